// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
	"github.com/gotgtd/gotgtd/target/mem"
)

// Reasons for the end of a connection that are nobody's fault.
var (
	errShutdown    = errors.New("the target shuts down")
	errReinstated  = errors.New("the session was reinstated")
	errLoggedOut   = errors.New("logged out")
	errReplaced    = errors.New("replaced by a new connection with its CID")
	errReset       = errors.New("the target was reset")
	errSessionLost = errors.New("another connection of the session was lost")
	errFrozen      = stream.ErrFrozen // the reader stops for a handoff; never leaves the package
)

// conn is one TCP connection. Its fields belong to the reading goroutine
// unless they say otherwise; what login sets is constant afterwards.
type conn struct {
	node   *Node
	sock   *socket.Socket
	remote netip.AddrPort
	group  uint16 // tag of the portal group it came in through
	born   boottime.Stamp

	memory    *account.Account // of the login; closed when that is over
	loginHeld int64            // bytes of text of the login that are on it
	pool      *mem.Pool        // charges the one or the other
	in        stream.Input
	filling   *task        // a Data-Out segment is being read straight into its buffer
	login     *login.Login // nil in full feature phase

	sess   *session // nil during login
	cid    uint16
	agreed login.Agreed // digests and limits

	out stream.Output // has its own lock

	heard atomic.Uint32 // PDUs received, for liveness
	ping  pingState     // belongs to the liveness loop
	phase atomic.Uint32 // a connPhase
	ended error         // why it is closed; set once, before
	once  sync.Once     // guards ended
	quiet bool          // its end is no line of the log
	done  chan struct{} // closed when nothing of the connection runs any more

	closing chan struct{} // closed when ended is set
}

// newConn returns a connection that takes sock over.
func newConn(n *Node, sock *socket.Socket, group uint16) *conn {
	c := &conn{
		node: n, sock: sock, group: group, born: boottime.Of(time.Now()),
		remote: sock.Remote(),
		login:  new(login.Login),
		done:   make(chan struct{}),

		closing: make(chan struct{}),
	}
	c.memory = n.memory.Open("address " + origin(c.remote.Addr()).String())
	c.pool = n.pool.For(c.memory)
	c.in.Init((*reader)(c), sock, c.pool)
	c.out.Init((*writer)(c), writes{sock, &n.sys}, rankOutput)
	c.out.SetAccount(c.memory)
	c.agree(login.Agreed{SendLimit: login.DefaultSegment, ReceiveLimit: login.DefaultSegment})
	return c
}

// chargeSession makes the session pay for the connection from now on.
func (c *conn) chargeSession() {
	c.pool = c.sess.pool
	c.in.SetPool(c.pool)
	c.out.SetAccount(c.sess.memory)
	c.closeAccount()
}

// closeAccount gives up what the connection has had for its login.
func (c *conn) closeAccount() {
	c.memory.Release(c.loginHeld)
	c.loginHeld = 0
	c.memory.Close()
}

// agree makes the connection use digests and limits from now on.
func (c *conn) agree(a login.Agreed) {
	c.agreed = a
	c.in.SetDigests(a.HeaderDigest, a.DataDigest)
	c.in.SetLimit(a.ReceiveLimit)
	c.out.SetDigests(a.HeaderDigest, a.DataDigest)
}

// header encodes a PDU that is about to be queued. It is small enough to be
// inlined, and then neither the PDU nor the header is on the heap.
func header(p pdu.PDU) (h pdu.BHS) {
	p.Encode(&h)
	return h
}

// writes is the socket as the output sees it.
type writes struct {
	*socket.Socket
	sys *system
}

func (w writes) Writev(iov []unix.Iovec) (int, error) { return w.sys.writev(w.Socket, iov) }

// writer is the connection as its output sees it; it is a [stream.Owner].
type writer conn

func (w *writer) Stopped() error { return (*conn)(w).stopped() }

func (w *writer) Numbers() (exp, maximum uint32) { return w.sess.window.Numbers() }

func (w *writer) Written() {
	if w.sess != nil {
		w.node.work.Kick(&w.sess.queue)
	}
}

func (w *writer) Ended(err error) {
	if err == nil {
		err = errLoggedOut
	}
	(*conn)(w).close(err)
}

// close ends the connection for a reason; the first reason counts. It never
// blocks: the reading goroutine notices and cleans up.
func (c *conn) close(why error) {
	c.once.Do(func() {
		c.ended = why
		c.move(connClosed)
		close(c.closing)
		if !c.node.freeze.is(nodeForeign) {
			// The reading goroutine closes it later, and another process may hold
			// the socket too while a handoff fails: this sends the FIN.
			c.sock.Shutdown()
		}
		c.sock.Wake()
		c.out.Wake()
	})
}

// letGo ends what is left of a closed connection.
func (c *conn) letGo() {
	c.in.Release()
	c.out.Discard()
	c.sock.Close()
	c.closeAccount()
	close(c.done)
}

// retire lets go of the connection after its session has moved to a
// successor: the file descriptor is closed, the TCP connection goes on.
func (c *conn) retire() {
	c.once.Do(func() {
		c.ended = errFrozen
		c.move(connClosed)
	})
	c.in.Drop()
	c.letGo()
}

// serve reads and handles PDUs until something ends that. Output gathers
// while input lasts and goes out in one piece when it is used up.
func (c *conn) serve() error {
	for {
		c.out.Gather()
		if err := c.handleInput(); err != nil {
			c.out.Ungather()
			if !errors.Is(err, errFrozen) {
				c.out.Flush() // a last word, such as a login failure
			}
			return err
		}
		c.out.FlushNow()
		if c.out.Finished() {
			return errLoggedOut
		}
		if err := c.in.More(); err != nil {
			return c.readError(err)
		}
	}
}

// stopped says why the connection's goroutines should wait for nothing more, nil
// if they may.
func (c *conn) stopped() error {
	switch {
	case c.node.freeze.Stopped():
		return errFrozen
	case c.is(connClosed):
		return c.ended
	}
	return nil
}

// readError says what a failed read means.
func (c *conn) readError(err error) error {
	switch {
	case c.is(connClosed):
		return c.ended
	case errors.Is(err, io.EOF) && c.is(connLeaving):
		return errLoggedOut // the initiator has read the answer and was faster
	case errors.Is(err, io.EOF):
		return errors.New("closed by the initiator")
	}
	return err
}

// handleInput handles the whole PDUs that are in the buffer.
func (c *conn) handleInput() error {
	for {
		if c.node.freeze.Stopped() {
			return errFrozen
		}
		if err := c.out.Throttle(); err != nil {
			return err
		}
		ok, err := c.in.Next()
		if !ok || err != nil {
			return err
		}
	}
}

// refuseText answers a login request for whose text there is no memory.
func (c *conn) refuseText(h *pdu.BHS) error {
	err := login.Errorf(pdu.OutOfResources, "no memory for %d bytes of text", h.DataSegmentLength())
	c.refuseLogin(err, nil)
	return err
}

// reject answers a PDU with a Reject that carries its header (RFC 7143 11.17).
func (c *conn) reject(reason pdu.RejectReason, h *pdu.BHS) {
	p := pdu.Reject{Reason: reason, DataLength: pdu.BHSLen}
	b := c.pool.Get(pdu.BHSLen)
	copy(b.B, h[:])
	c.out.SendData(header(&p), true, b)
	c.node.log.Warn("PDU rejected", "remote", c.remote.String(),
		"reason", fmt.Sprintf("%#x", uint8(reason)), "opcode", fmt.Sprintf("%#x", h[0]))
}

func (c *conn) is(p connPhase) bool { return connPhase(c.phase.Load()) == p }

// move takes the connection to another phase, false if it can't go there.
func (c *conn) move(to connPhase) bool {
	for {
		from := c.phase.Load()
		if !has(connMoves[from], to) {
			return false
		}
		if c.phase.CompareAndSwap(from, uint32(to)) {
			return true
		}
	}
}
