// SPDX-License-Identifier: Apache-2.0

package unixhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/proc"
)

// silence is how long a server may say nothing. A daemon that stands still for an upgrade does so
// for 4 s at most.
const silence = 30 * time.Second

// SilentError is a server that is there and says nothing.
type SilentError struct {
	Socket string
	For    time.Duration
	Who    string // the processes that listen on the socket, or could
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("%s listens on %s and has not answered for %v: it is stopped (state T in /proc/PID/status; kill -CONT lets it go on), "+
		"or hangs (state D: its storage does not answer; otherwise kill -QUIT has it log what it does, and ends it)", e.Who, e.Socket, e.For)
}

// watch ends the context of a request when the server is silent: when what is only asked for is not
// answered in time, or when an operation, which may take as long as it needs, goes
// on and the server does not answer another question meanwhile. stop waits for its end.
func (c *Client) watch(ctx context.Context, method string) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	wait := c.silence
	if method != http.MethodGet {
		wait /= 3 // and then that long for the other answer
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-watched.Done():
				return
			case <-time.After(wait):
			}
			if method == http.MethodGet || !c.answers(watched) {
				cancel(&SilentError{c.socket, c.silence, listeners(c.socket, c.host)})
				return
			}
		}
	}()
	return watched, func() { cancel(nil); <-done }
}

// answers asks the server something that it can answer at once. A server that can't be
// reached any more is not silent: whoever waits for its answer learns of its end.
func (c *Client) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.silence)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.host+c.alive, nil)
	if err != nil {
		return false
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return !errors.Is(err, context.DeadlineExceeded)
	}
	return resp.Body.Close() == nil
}

// watchedBody is the body of an answer.
type watchedBody struct {
	io.Reader
	io.Closer
	ctx  context.Context
	stop func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	return n, said(b.ctx, err)
}

func (b *watchedBody) Close() error {
	err := b.Closer.Close()
	b.stop()
	return err
}

// said returns err, or that the server is silent if this is why.
func said(ctx context.Context, err error) error {
	var silent *SilentError
	if err != nil && errors.As(context.Cause(ctx), &silent) {
		return silent
	}
	return err
}

// listeners names the processes that have a listening socket open, as far as this one may
// know: the one that began to listen may be gone since.
func listeners(path, host string) string {
	var list []string
	for _, pid := range proc.UnixListeners(path) {
		list = append(list, proc.Name(pid))
	}
	if len(list) > 0 {
		return strings.Join(list, " or ")
	}
	if c, err := net.DialTimeout("unix", path, dialTimeout); err == nil {
		defer c.Close()
		if pid := peerPID(c.(*net.UnixConn)); pid > 0 {
			return proc.Name(pid)
		}
	}
	return host
}
