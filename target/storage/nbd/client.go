// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// Numbers of the transmission phase.
const (
	requestMagic = 0x25609513
	simpleMagic  = 0x67446698

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdWriteZeroes = 6

	flagFUA    = 1 << 0
	flagNoHole = 1 << 1

	headerSize = 28
	replySize  = 16

	depth = 64 // requests that the server has at a time
)

// A client sends requests over one connection, and has a goroutine that takes the replies. As requests are
// kept for use again, and data goes from and to the caller's buffer, a request allocates nothing.
//
// A connection that fails stays failed: every request that it has, and every later one, has an error.
type client struct {
	conn net.Conn
	free chan *request // those that nobody uses
	done chan struct{} // closed once the receiver has ended

	sending sync.Mutex // held while a request is written, so that it is in one piece

	mu     sync.Mutex // protects what follows, and active of each request
	all    [depth]request
	failed error
}

// A request is a place for one that is under way.
type request struct {
	cookie uint64 // ends with its place in the table; the rest differs from use to use
	active bool   // the server owes an answer
	into   []byte // where what is read goes
	answer chan error
	header [headerSize]byte
	parts  [2][]byte
	vector net.Buffers
}

func newClient(conn net.Conn) *client {
	c := &client{conn: conn, free: make(chan *request, depth), done: make(chan struct{})}
	for i := range c.all {
		c.all[i].cookie, c.all[i].answer = uint64(i), make(chan error, 1)
		c.free <- &c.all[i]
	}
	go c.receive()
	return c
}

// do has the server execute a command, and waits for its answer. The context ends it until it is sent:
// after that nothing tells whether the server has still to execute it.
func (c *client) do(ctx context.Context, kind, flags uint16, off int64, n int, into, data []byte) error {
	var r *request
	select {
	case r = <-c.free:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { c.free <- r }()
	if err := c.begin(ctx, r, into); err != nil {
		return err
	}
	putHeader(&r.header, kind, flags, r.cookie, off, n)
	r.parts = [2][]byte{r.header[:], data}
	r.vector = r.parts[:]
	if len(data) == 0 {
		r.vector = r.parts[:1]
	}
	c.sending.Lock()
	_, err := r.vector.WriteTo(c.conn)
	c.sending.Unlock()
	if err != nil {
		c.conn.Close() // half a request may be out; the receiver answers
	}
	err = <-r.answer
	r.into, r.parts = nil, [2][]byte{}
	return err
}

// begin enters a request that is about to be sent.
func (c *client) begin(ctx context.Context, r *request, into []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return c.failed
	}
	r.cookie += depth
	r.active, r.into = true, into
	return nil
}

func putHeader(b *[headerSize]byte, kind, flags uint16, cookie uint64, off int64, n int) {
	binary.BigEndian.PutUint32(b[:], requestMagic)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint64(b[16:], uint64(off))
	binary.BigEndian.PutUint32(b[24:], uint32(n))
}

// receive hands out replies until the connection fails, and then the error to all who wait.
func (c *client) receive() {
	defer close(c.done)
	in := bufio.NewReader(c.conn)
	var err error
	for err == nil {
		err = c.receiveOne(in)
	}
	c.conn.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = errors.New("the server has closed the connection")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = fmt.Errorf("%w: %w", syscall.ENOTCONN, err)
	for i := range c.all {
		if r := &c.all[i]; r.active {
			r.active = false
			r.answer <- c.failed
		}
	}
}

// receiveOne takes one reply. Its error ends the connection, that in the reply is for who asked.
func (c *client) receiveOne(in *bufio.Reader) error {
	head, err := in.Peek(replySize)
	if err != nil {
		return err
	}
	if magic := binary.BigEndian.Uint32(head); magic != simpleMagic {
		return fmt.Errorf("the server has sent what is no reply (%#x)", magic)
	}
	code, cookie := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint64(head[8:])
	r := &c.all[cookie%depth]
	c.mu.Lock()
	known := r.active && r.cookie == cookie
	c.mu.Unlock()
	if !known {
		return errors.New("the server has answered a request that it was not sent")
	}
	if _, err := in.Discard(replySize); err != nil {
		return err
	}
	if code == 0 {
		if _, err := io.ReadFull(in, r.into); err != nil {
			return err
		}
	}
	c.mu.Lock()
	r.active = false
	c.mu.Unlock()
	r.answer <- answerOf(code)
	return nil
}

// answerOf returns the error of a reply. The protocol has these numbers; they are those of Linux.
func answerOf(code uint32) error {
	switch e := syscall.Errno(code); e {
	case 0:
		return nil
	case syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC, syscall.EOVERFLOW, syscall.ENOTSUP, syscall.ESHUTDOWN:
		return e
	default:
		return syscall.EIO
	}
}

// close says goodbye, and waits for the receiver. No request is under way.
func (c *client) close() {
	var b [headerSize]byte
	putHeader(&b, cmdDisconnect, 0, 0, 0, 0)
	_, _ = c.conn.Write(b[:]) // a courtesy
	c.conn.Close()
	<-c.done
}
