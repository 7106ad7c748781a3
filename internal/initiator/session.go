// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// A Session is an iSCSI session in full feature phase. Its methods are safe for
// concurrent use. It ends with Logout, Close, a violation, or the loss of a
// connection; then everything under way ends with the session's error.
type Session struct {
	opts    Options
	params  Params
	running sync.WaitGroup // the connections' goroutines
	done    chan struct{}  // closed when everything has ended

	mu       sync.Mutex // protects all below, and what conn and task say
	conns    []*conn    // those that carry tasks
	joined   int        // connections ever, which numbers them
	turn     int        // of the connection for the next command
	tasks    taskTable
	waiting  []*task // for the command window, in order
	cmdSN    uint32  // of the next command
	maxCmdSN uint32  // highest CmdSN that the target takes
	draining bool    // the target asked for a logout
	asked    bool    // the logout for that was sent
	err      error
}

// A conn is one connection of a session.
type conn struct {
	s      *Session
	index  int // from 1
	cid    uint16
	params *Params
	wire   *Wire
	out    *output
	stop   chan struct{} // closed when the writer is to end
	silent chan struct{} // closed when the writer has ended

	// Protected by the session's lock.
	head      pdu.BHS // scratch space of senders
	expStatSN uint32
	expCmdSN  uint32 // as the target said last here
	maxCmdSN  uint32 // as the target said last here
	storing   *task  // whose data the reader is taking from the wire
	leaving   bool   // a logout of this connection is under way
	closed    bool

	// The reader's own.
	again   pdu.BHS
	scratch []byte
	dataIn  pdu.DataIn
	resp    pdu.SCSIResponse
	r2t     pdu.R2T
}

// Dial logs in and returns the session. ctx bounds the login only.
func Dial(ctx context.Context, o Options) (*Session, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	w, p, err := openConnection(ctx, &o, member{cmdSN: o.InitialCmdSN})
	if err != nil {
		return nil, err
	}
	s := &Session{opts: o, params: *p, done: make(chan struct{}), cmdSN: p.CmdSN, maxCmdSN: p.MaxCmdSN}
	s.mu.Lock()
	s.startLocked(w, p, 0)
	s.mu.Unlock()
	go s.reap()
	return s, nil
}

// AddConnection logs another connection into the session and returns its
// number, counted from 1 for the leading one.
func (s *Session) AddConnection(ctx context.Context) (int, error) {
	s.mu.Lock()
	m := member{tsih: s.params.TSIH, cid: uint16(s.joined), cmdSN: s.cmdSN, session: &s.params}
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	w, p, err := openConnection(ctx, &s.opts, m)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		w.Close()
		return 0, s.err
	}
	return s.startLocked(w, p, m.cid).index, nil
}

// startLocked adds a connection that has logged in, and starts its goroutines.
func (s *Session) startLocked(w *Wire, p *Params, cid uint16) *conn {
	s.joined++
	c := &conn{s: s, index: s.joined, cid: cid, params: p, wire: w, out: newOutput(w.conn), stop: make(chan struct{}), silent: make(chan struct{}),
		expStatSN: p.ExpStatSN, expCmdSN: p.ExpCmdSN, maxCmdSN: p.MaxCmdSN}
	w.waiter = c
	s.conns = append(s.conns, c)
	s.running.Add(2)
	go c.read()
	go c.write()
	return c
}

// Params returns what the leading login came to.
func (s *Session) Params() Params { return s.params }

// Connections returns the connections that carry tasks, oldest first.
func (s *Session) Connections() []*Wire {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wires []*Wire
	for _, c := range s.conns {
		wires = append(wires, c.wire)
	}
	return wires
}

// Done is closed when the session has ended and every command is done.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err returns why the session ended, nil while it goes on.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close drops the connections without a logout and returns when every command
// is done. It returns the error that had ended the session before, if any
// but a logout had. It must not be called from a Done function.
func (s *Session) Close() error {
	s.fail(ErrClosed)
	<-s.done
	if errors.Is(s.err, ErrClosed) || errors.Is(s.err, ErrLoggedOut) {
		return nil
	}
	return s.err
}

// fail ends the session; only the first error counts.
func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *Session) failLocked(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	for _, c := range s.conns {
		c.closeLocked()
	}
}

// closeLocked makes both goroutines of c end.
func (c *conn) closeLocked() {
	if c.closed {
		return
	}
	c.closed = true
	close(c.stop)
	c.wire.Close() // an error here changes nothing: the connection is given up
}

// reap waits for the end and then ends what is still under way.
func (s *Session) reap() {
	defer close(s.done)
	s.running.Wait()
	s.endTasks(nil, s.err)
}

// endTasks ends with err what is still under way on c, nil for everywhere. The
// connection's goroutines do nothing any more.
func (s *Session) endTasks(c *conn, err error) {
	elsewhere := func(t *task) bool { return c != nil && t.conn != c }
	s.mu.Lock()
	left := slices.DeleteFunc(s.tasks.underWay(), elsewhere)
	s.waiting = slices.DeleteFunc(s.waiting, func(t *task) bool { return !elsewhere(t) })
	s.mu.Unlock()
	for _, t := range left {
		t.conn.out.quiesce()
		if !t.settled {
			s.setError(t, err)
		}
		s.deliver(t)
	}
}

// setError makes err the result of t.
func (s *Session) setError(t *task, err error) {
	if t.cmd != nil {
		t.cmd.Err = err
	} else {
		t.control.err = err
	}
}

// write is the connection's writer goroutine.
func (c *conn) write() {
	defer c.s.running.Done()
	defer close(c.silent)
	for {
		select {
		case <-c.stop:
			return
		case <-c.out.wake:
		}
		if err := c.out.writeLeftover(); err != nil {
			c.s.fail(fmt.Errorf("initiator: can't write to connection %d: %w", c.index, err))
			return
		}
		for _, t := range c.out.ready() {
			c.s.deliver(t)
		}
	}
}

// read is the connection's reader goroutine.
func (c *conn) read() {
	defer c.s.running.Done()
	var err error
	for err == nil {
		if err = c.wire.header(); err == nil {
			err = c.dispatch()
		}
	}
	if c.loggedOut(err) {
		<-c.stop
		<-c.silent
		c.s.endTasks(c, ErrLoggedOut)
	}
}

// loggedOut decides what the end of reading means: for a connection that is
// logged out, or about to be, that this was the last of it; otherwise the
// end of the session.
func (c *conn) loggedOut(err error) bool {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && (c.closed || c.leaving && errors.Is(err, io.EOF)) {
		return true
	}
	var v *Violation
	var rejected *RejectError
	switch {
	case errors.As(err, &v), errors.As(err, &rejected):
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("initiator: target closed connection %d: %w", c.index, err)
	default:
		err = fmt.Errorf("initiator: can't read from connection %d: %w", c.index, err)
	}
	s.failLocked(err)
	return false
}

// beforeRead implements inputWait.
func (c *conn) beforeRead() { c.out.release() }

// afterRead implements inputWait.
func (c *conn) afterRead() { c.out.hold() }

// flush sends what has gathered on every connection.
func (s *Session) flush() {
	s.mu.Lock()
	conns := s.conns
	s.mu.Unlock()
	for _, c := range conns {
		c.out.flush()
	}
}

// SendRaw sends bytes on a connection, counted from 1, as they are: a whole PDU or
// not, after everything queued before. The session knows nothing of it, so
// an answer that it provokes may be a violation.
func (s *Session) SendRaw(connection int, raw []byte) error {
	s.mu.Lock()
	c, err := s.pickLocked(connection)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	c.out.putRaw(raw)
	c.out.flush()
	return nil
}

// pickLocked returns the connection with that number, or for zero the one
// whose turn it is.
func (s *Session) pickLocked(number int) (*conn, error) {
	if s.err != nil {
		return nil, s.err
	}
	if number == 0 {
		s.turn++
		return s.conns[s.turn%len(s.conns)], nil
	}
	for _, c := range s.conns {
		if c.index == number {
			return c, nil
		}
	}
	return nil, fmt.Errorf("initiator: the session has no connection %d", number)
}
