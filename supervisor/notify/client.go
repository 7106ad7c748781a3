// SPDX-License-Identifier: Apache-2.0

// Package notify speaks the protocol of sd_notify(3) between a service and
// its manager, from both sides, with the descriptors that go with a message.
package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

const (
	// sendTimeout bounds how long a manager's full queue may hold up a service.
	sendTimeout = 5 * time.Second
	// MaxFiles is how many descriptors the kernel passes in one message
	// (SCM_MAX_FD, unix(7)).
	MaxFiles = 253
	// maxNameLength is the length of a descriptor's name that systemd accepts.
	maxNameLength = 255
)

// A Client sends messages to the service manager. The zero value has no
// manager; it sends nothing and reports no error.
type Client struct {
	addr *net.UnixAddr
}

// NewClient returns the client for the socket named by NOTIFY_SOCKET, which
// may be empty.
func NewClient(path string) Client {
	if path == "" {
		return Client{}
	}
	return Client{&net.UnixAddr{Name: path, Net: "unixgram"}}
}

// Managed reports whether there is a manager.
func (c Client) Managed() bool { return c.addr != nil }

// Send sends one message of the given fields, each such as "READY=1". Line
// ends within a field become blanks.
func (c Client) Send(fields ...string) error { return c.send(nil, fields) }

func (c Client) send(fds []int, fields []string) error {
	if c.addr == nil {
		return nil
	}
	lines := make([]string, len(fields))
	for i, f := range fields {
		lines[i] = strings.Map(blankLineEnd, f)
	}
	conn, err := net.DialUnix("unixgram", nil, c.addr)
	if err != nil {
		return fmt.Errorf("can't reach the service manager: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("can't notify the service manager: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := sendmsg(conn, []byte(strings.Join(lines, "\n")), rights); err != nil {
		return fmt.Errorf("can't notify the service manager: %w", err)
	}
	return nil
}

// sendmsg does what WriteMsgUnix refuses to do on a connected datagram socket.
func sendmsg(conn *net.UnixConn, text, rights []byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), text, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	if err != nil {
		return err
	}
	return sendErr
}

func blankLineEnd(r rune) rune {
	if r == '\n' || r == '\r' {
		return ' '
	}
	return r
}

// Reloading tells the manager that the service is reloading; the next READY=1
// ends that. status may be empty.
func (c Client) Reloading(status string) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("can't read the monotonic clock: %w", err)
	}
	return c.Send(withStatus(status, "RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))...)
}

// Stopping tells the manager that the service is about to end. status may be
// empty.
func (c Client) Stopping(status string) error {
	return c.Send(withStatus(status, "STOPPING=1")...)
}

func withStatus(status string, fields ...string) []string {
	if status != "" {
		fields = append(fields, "STATUS="+status)
	}
	return fields
}

// Store gives copies of files to the manager's descriptor store under one
// name. They stay there, also after a hang-up, until Unstore. The manager
// gives no answer: what exceeds its bound it drops.
func (c Client) Store(name string, files ...*os.File) error {
	return c.store(name, files, "FDPOLL=0")
}

// StorePolled is Store for files that the manager is to remove when they hang
// up.
func (c Client) StorePolled(name string, files ...*os.File) error { return c.store(name, files) }

func (c Client) store(name string, files []*os.File, more ...string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	fields := append([]string{"FDSTORE=1", "FDNAME=" + name}, more...)
	for len(files) > 0 {
		n := min(len(files), MaxFiles)
		if err := c.sendFiles(files[:n], fields...); err != nil {
			return fmt.Errorf("can't store descriptors %q: %w", name, err)
		}
		files = files[n:]
	}
	return nil
}

func (c Client) sendFiles(files []*os.File, fields ...string) error {
	fds := make([]int, 0, len(files))
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, f := range files {
		fd, err := kernel.DupFD(f)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	return c.send(fds, fields)
}

// Unstore removes what is stored under name.
func (c Client) Unstore(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return c.Send("FDSTOREREMOVE=1", "FDNAME="+name)
}

// Barrier returns when the manager has dealt with every message sent before:
// it closes the descriptor that comes with BARRIER=1.
func (c Client) Barrier(ctx context.Context) error {
	if c.addr == nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("can't make a barrier: %w", err)
	}
	defer r.Close()
	err = c.sendFiles([]*os.File{w}, "BARRIER=1")
	_ = w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("the service manager did not answer the barrier: %w", err)
	}
	return nil
}

// CheckName reports whether name may name a descriptor: 1 to 255 printable
// ASCII characters and no colon, as sd_notify(3) has it under FDNAME.
func CheckName(name string) error {
	if name == "" || len(name) > maxNameLength {
		return fmt.Errorf("descriptor name %.20q has %d characters, not 1 to %d", name, len(name), maxNameLength)
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c >= 127 || c == ':' {
			return fmt.Errorf("descriptor name %q has the character %q in it", name, c)
		}
	}
	return nil
}
