// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// A launch is a successor from the moment tableflip is asked for it until it is
// ready or gone.
type launch struct {
	p    *Process
	conn *net.UnixConn
	done chan struct{} // closed when tableflip's Upgrade has returned
	err  error         // what it returned; valid after done

	spoke bool // attach has failed, but by the death of a successor that had attached
}

// startLaunch makes the socket pair and has tableflip start the successor with
// one end of it.
func (p *Process) startLaunch(ctx context.Context) (*launch, error) {
	conn, child, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("can't make the handoff socket: %w", err)
	}
	defer child.Close()
	if err := p.sendInheritance(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	fd, err := kernel.DupFD(child)
	if err == nil {
		err = p.slot.put(fd)
		_ = unix.Close(fd)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("can't hand on the handoff socket: %w", err)
	}
	b := &launch{p: p, conn: conn, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		b.err = p.flip(ctx)
	}()
	return b, nil
}

// socketPair makes the handoff socket: this process's end, which reports the
// credentials of who writes to it, and the successor's.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	child := os.NewFile(uintptr(fds[1]), handoffName)
	own := os.NewFile(uintptr(fds[0]), handoffName)
	defer own.Close()
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		_ = child.Close()
		return nil, nil, err
	}
	conn, err := net.FileConn(own)
	if err != nil {
		_ = child.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), child, nil
}

// attach waits for the successor's Start. On an error the successor has been
// killed and reaped.
func (b *launch) attach(ctx context.Context) (*os.Process, error) {
	type greeting struct {
		pid int
		err error
	}
	greeted := make(chan greeting, 1)
	go func() {
		pid, err := readGreeting(b.conn)
		greeted <- greeting{pid, err}
	}()
	var g greeting
	select {
	case g = <-greeted:
	case <-b.done:
		// How the successor failed says more than the EOF of the read. If it is ready
		// already, its greeting was sent before that and can still be read.
		b.endRead()
		if g = <-greeted; b.err != nil {
			g.err = b.err
		}
	case <-ctx.Done():
		b.endRead()
		<-greeted
		g.err = context.Cause(ctx)
	}
	var process *os.Process
	err := g.err
	if err == nil {
		process, err = childProcess(g.pid)
	}
	if err != nil {
		b.abort()
		if b.err != nil && !errors.Is(b.err, errKilled) {
			err = b.err
		}
	}
	// By now the successor has its own descriptor, or is gone.
	if emptyErr := b.p.slot.empty(); emptyErr != nil {
		b.p.log.Error("handoff descriptor not released", "error", emptyErr)
	}
	if err != nil {
		b.spoke = g.pid > 0 && errors.Is(err, b.err) && !errors.Is(err, errKilled)
		return nil, err
	}
	return process, b.conn.SetReadDeadline(time.Time{})
}

// heardAfterExit calls f, to read what a successor sent before it exited: most likely the
// reason. The successor has attached, and was not killed by this process. err is how it exited.
func (b *launch) heardAfterExit(ctx context.Context, err error, f func(context.Context, Successor) error) error {
	if e := b.conn.SetReadDeadline(time.Time{}); e != nil {
		return err
	}
	words := b.watched(ctx, func(ctx context.Context) error { return f(ctx, Successor{Conn: b.conn}) })
	switch {
	case words == nil:
		return err
	case errors.Is(words, err):
		return words
	}
	return fmt.Errorf("%w (%w)", words, err)
}

// endRead ends a read on the socket that waits for a message.
func (b *launch) endRead() { _ = b.conn.SetReadDeadline(time.Now().Add(readGrace)) }

// readGrace is how long a read may still take for what has arrived already.
const readGrace = 100 * time.Millisecond

// abort kills the successor that has not attached, and waits until it is
// reaped.
func (b *launch) abort() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-b.done:
			if b.err == nil { // it is ready, and no successor of ours
				killFlipped()
			}
			return
		case <-tick.C:
			killFlipped()
		}
	}
}

// watched runs f with a context that ends when the successor dies.
func (b *launch) watched(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-b.done:
			if b.err != nil {
				cancel(b.err)
			}
		case <-ctx.Done():
		}
	}()
	err := f(ctx)
	cancel(nil)
	<-ended
	return err
}

// readGreeting reads the word of the successor's Start and returns the PID
// that the kernel vouches for.
func readGreeting(conn *net.UnixConn) (int, error) {
	buf := make([]byte, len(attachWord)+1)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, fmt.Errorf("the successor closed the handoff socket: %w", err)
	}
	if string(buf[:n]) != attachWord {
		return 0, fmt.Errorf("the successor answered %q", buf[:n])
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, fmt.Errorf("can't read the successor's credentials: %w", err)
	}
	if len(messages) != 1 {
		return 0, fmt.Errorf("the successor's answer came with %d control messages, not 1", len(messages))
	}
	cred, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0, fmt.Errorf("can't read the successor's credentials: %w", err)
	}
	return int(cred.Pid), kernel.Control(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 0)
	})
}

// childProcess returns a handle on a child of this process. A PID can be used
// again by another process; the check after the handle is opened rules it out.
func childProcess(pid int) (*os.Process, error) {
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("can't hold on to successor %d: %w", pid, err)
	}
	if kernel.Parent(pid) != os.Getpid() {
		_ = process.Release()
		return nil, fmt.Errorf("process %d answered in the successor's place", pid)
	}
	return process, nil
}
