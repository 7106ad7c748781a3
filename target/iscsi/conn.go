// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

func (w *writer) Stopped() error                 { return (*conn)(w).stopped() }
func (w *writer) Numbers() (exp, maximum uint32) { return w.sess.window.Numbers() }
func (w *writer) Written()                       { w.node.work.kick(w.sess) }

func (w *writer) Ended(err error) {
	if err == nil {
		err = errLoggedOut
	}
	(*conn)(w).close(err)
}

// reader is the connection as its input sees it; it is a [stream.Handler].
type reader conn

func (r *reader) Stopped() error                             { return (*conn)(r).stopped() }
func (r *reader) Handle(h *pdu.BHS, data []byte) error       { return (*conn)(r).dispatch(h, data) }
func (r *reader) Damaged(h *pdu.BHS) error                   { return (*conn)(r).dataDigestError(h) }
func (r *reader) Refused(h *pdu.BHS) error                   { return (*conn)(r).dispatchRefused(h) }
func (r *reader) Direct(length, total int) bool              { return r.node.opt.FastPaths.direct(length, total) }
func (r *reader) Place(h *pdu.BHS, length int) ([]byte, int) { return (*conn)(r).place(h, length) }
func (r *reader) Unplace()                                   { (*conn)(r).unplace() }

// close ends the connection for a reason; the first reason counts. It never
// blocks: the reading goroutine notices and cleans up.
func (c *conn) close(why error) {
	c.once.Do(func() {
		c.ended = why
		c.move(connClosed)
		close(c.closing)
		if !c.node.is(nodeForeign) {
			// The reading goroutine closes it later, and another process may hold
			// the socket too while a handoff fails: this sends the FIN.
			c.sock.Shutdown()
		}
		c.sock.Wake()
		c.out.Wake()
	})
}

// run is the reading goroutine: it lives as long as the connection.
func (c *conn) run() {
	defer c.node.removeConn(c)
	if c.sess != nil && c.sess.apart != nil {
		<-c.sess.apart.done
	}
	for {
		err := c.serve()
		if errors.Is(err, errFrozen) {
			if c.node.park(c) {
				continue // thawed
			}
			c.retire()
			return
		}
		c.close(err)
		break
	}
	c.logEnd()
	c.in.Drop()
	if c.sess != nil {
		c.sess.connectionLost(c)
	}
	c.letGo()
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

func (c *conn) logEnd() {
	level := slog.LevelInfo
	attrs := []any{"remote", c.remote.String(), "reason", c.ended}
	if c.sess != nil {
		attrs = append(attrs, "initiator", c.sess.initiator, "target", c.sess.targetName(), "tsih", c.sess.tsih, "cid", c.cid)
	}
	if errors.Is(c.ended, errLoggedOut) || c.quiet {
		level = slog.LevelDebug
	}
	c.node.log.Log(context.Background(), level, "connection closed", attrs...)
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
	case c.node.stopped():
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
		if c.node.stopped() {
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

// dispatch handles one whole PDU with intact digests. data is its data
// segment; it belongs to the input buffer and is gone after the call.
func (c *conn) dispatch(h *pdu.BHS, data []byte) error {
	c.heard.Add(1)
	op := h.Opcode()
	if c.login != nil {
		if op != pdu.OpLoginReq {
			// RFC 7143 6.3: anything else during login ends the connection;
			// the response says so.
			c.refuseLogin(login.Errorf(pdu.InvalidDuringLogin, "opcode %#x", uint8(op)), nil)
			return stream.FormatErrorf("opcode %#x during login", uint8(op))
		}
		return c.handleLogin(h, data)
	}
	if !c.is(connFull) {
		return nil // RFC 7143 11.14: nothing counts after a logout request
	}
	switch op {
	case pdu.OpSCSICommand:
		return c.handleCommand(h, data)
	case pdu.OpDataOut:
		return c.handleDataOut(h, data)
	case pdu.OpNOPOut, pdu.OpTaskMgmtReq, pdu.OpTextReq, pdu.OpLogoutReq:
		return c.sequence(h, data)
	case pdu.OpSNACKReq:
		// RFC 7143 11.16: without error recovery there is nothing to resend.
		c.reject(pdu.SNACKReject, h)
		return nil
	case pdu.OpLoginReq:
		return stream.FormatErrorf("login request in full feature phase")
	}
	c.reject(pdu.CommandNotSupported, h)
	return nil
}

// dispatchRefused handles a PDU whose data segment found no memory and is passed over.
func (c *conn) dispatchRefused(h *pdu.BHS) error {
	c.heard.Add(1)
	switch {
	case c.login != nil:
		return c.refuseText(h)
	case !c.is(connFull):
		return nil
	}
	switch h.Opcode() {
	case pdu.OpDataOut:
		c.lostDataOut(h, insufficientResources)
	case pdu.OpSCSICommand, pdu.OpNOPOut, pdu.OpTaskMgmtReq, pdu.OpTextReq, pdu.OpLogoutReq:
		c.refuseForMemory(h)
	default:
		return c.dispatch(h, nil)
	}
	return nil
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
