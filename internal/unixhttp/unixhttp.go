// SPDX-License-Identifier: Apache-2.0

// Package unixhttp is HTTP with JSON over a unix socket that only its owner can
// use, as commands talk to the daemon and to the supervisor.
package unixhttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Client talks to the process that listens on a socket.
type Client struct {
	socket    string
	host      string
	alive     string
	maxAnswer int64
	silence   time.Duration
	http      http.Client
}

// NewClient returns a client that calls the server host, for its errors alone,
// and reads maxAnswer bytes of an answer. alive is the path of what the server can
// tell at once: a server that doesn't while an operation is under way is silent. Each
// request has a connection of its own, so that it reaches the process that listens by then.
func NewClient(socket, host, alive string, maxAnswer int64) *Client {
	return &Client{socket: socket, host: host, alive: alive, maxAnswer: maxAnswer, silence: silence, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Do makes a request; body may be nil. The caller closes the answer's body. An
// error is a [*SilentError], or a *url.Error.
func (c *Client) Do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	ctx, stop := c.watch(ctx, method)
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.host+path, bytes.NewReader(body))
	if err != nil {
		stop()
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		stop()
		return nil, said(ctx, err)
	}
	resp.Body = &watchedBody{io.LimitReader(resp.Body, c.maxAnswer), resp.Body, ctx, stop}
	return resp, nil
}

// Options bound what a client can do.
type Options struct {
	// ReadTimeout bounds the time in which a request has to arrive, not that for
	// its answer. 0 means no bound.
	ReadTimeout time.Duration
	// MaxHeader bounds the size of a request's header, in bytes; 0 means 1 MiB.
	MaxHeader int
	// OneRequest closes a connection after one request.
	OneRequest bool
}

// Server answers requests on a socket.
type Server struct {
	listener net.Listener
	http     http.Server
	done     chan struct{}
	err      error // valid after done
}

// Serve answers requests on l until Close or Leave.
func Serve(l net.Listener, h http.Handler, o Options) *Server {
	s := &Server{listener: l, done: make(chan struct{}), http: http.Server{
		Handler: h, ReadTimeout: o.ReadTimeout, MaxHeaderBytes: o.MaxHeader,
	}}
	s.http.SetKeepAlivesEnabled(!o.OneRequest)
	go func() {
		defer close(s.done)
		err := s.http.Serve(l)
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			s.err = err
		}
	}()
	return s
}

// Wait returns when no more connections are taken: an error, unless by Close
// or Leave.
func (s *Server) Wait() error {
	<-s.done
	return s.err
}

// Leave stops taking connections. Those that there are go on.
func (s *Server) Leave() {
	_ = s.listener.Close()
	<-s.done // from here on Close knows of every connection
}

// Close stops taking connections and waits, until ctx ends, for the answers to
// requests under way.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	<-s.done
	return err
}

// writeTimeout bounds the time in which a client has to take its answer.
const writeTimeout = 10 * time.Second

// Reply answers a request. With its length known and flushed, the answer is
// complete when Reply returns: the program may be another one right after.
func Reply(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	text = append(text, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(code)
	c := http.NewResponseController(w)
	// Not from the request on: what was asked for takes its time.
	_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, _ = w.Write(text)
	_ = c.Flush()
}
