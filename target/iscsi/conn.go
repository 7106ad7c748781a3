// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
)

// Reasons for the end of a connection that are nobody's fault.
var (
	errShutdown    = errors.New("the target shuts down")
	errReinstated  = errors.New("the session was reinstated")
	errLoggedOut   = errors.New("logged out")
	errReplaced    = errors.New("replaced by a new connection with its CID")
	errReset       = errors.New("the target was reset")
	errSessionLost = errors.New("another connection of the session was lost")
	errFrozen      = errors.New("frozen") // the reader stops for a handoff; never leaves the package
)

// A protocolError ends its connection, because what follows in the byte
// stream can't be trusted (RFC 7143 7.7, format errors).
type protocolError struct{ what string }

func (e protocolError) Error() string { return "protocol error: " + e.what }

func protocolErrorf(format string, args ...any) error {
	return protocolError{fmt.Sprintf(format, args...)}
}

// conn is one TCP connection. Its fields belong to the reading goroutine
// unless they say otherwise; what login sets is constant afterwards.
type conn struct {
	node   *Node
	sock   *socket.Socket
	remote netip.AddrPort
	group  uint16 // tag of the portal group it came in through
	born   time.Time

	in     input
	readFn func(uintptr) bool // in.read, bound once
	login  *login.Login       // nil in full feature phase

	sess         *session // nil during login
	cid          uint16
	headerDigest bool
	dataDigest   bool
	sendLimit    int // the initiator's MaxRecvDataSegmentLength, bytes
	receiveLimit int // ours

	out output // has its own lock

	heard atomic.Uint32 // PDUs received, for liveness
	ping  pingState     // belongs to the liveness loop
	phase atomic.Uint32 // a connPhase
	ended error         // why it is closed; set once, before
	once  sync.Once     // guards ended
	done  chan struct{} // closed when nothing of the connection runs any more
}

// newConn returns a connection that takes sock over.
func newConn(n *Node, sock *socket.Socket, group uint16) *conn {
	c := &conn{
		node: n, sock: sock, group: group, born: time.Now(),
		remote:       sock.Remote(),
		sendLimit:    login.DefaultSegment,
		receiveLimit: login.DefaultSegment,
		login:        new(login.Login),
		done:         make(chan struct{}),
	}
	c.readFn = c.read
	c.out.init(c)
	return c
}

// close ends the connection for a reason; the first reason counts. It never
// blocks: the reading goroutine notices and cleans up.
func (c *conn) close(why error) {
	c.once.Do(func() {
		c.ended = why
		c.move(connClosed)
		if !c.node.is(nodeForeign) {
			// The reading goroutine closes it later, and another process may hold
			// the socket too while a handoff fails: this sends the FIN.
			c.sock.Shutdown()
		}
		c.sock.Wake()
		c.out.wake()
	})
}

// run is the reading goroutine: it lives as long as the connection.
func (c *conn) run() {
	defer c.node.removeConn(c)
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
	c.dropBulk()
	if c.sess != nil {
		c.sess.connectionLost(c)
	}
	c.letGo()
}

// letGo ends what is left of a closed connection.
func (c *conn) letGo() {
	c.in.release()
	c.out.discard()
	c.sock.Close()
	close(c.done)
}

// retire lets go of the connection after its session has moved to a
// successor: the file descriptor is closed, the TCP connection goes on.
func (c *conn) retire() {
	c.once.Do(func() {
		c.ended = errFrozen
		c.move(connClosed)
	})
	c.dropBulk()
	c.letGo()
}

func (c *conn) logEnd() {
	level := slog.LevelInfo
	attrs := []any{"remote", c.remote.String(), "reason", c.ended}
	if c.sess != nil {
		attrs = append(attrs, "initiator", c.sess.initiator, "target", c.sess.targetName(), "tsih", c.sess.tsih, "cid", c.cid)
	}
	if errors.Is(c.ended, errLoggedOut) {
		level = slog.LevelDebug
	}
	c.node.logLimit.Log(c.node.log, level, "connection closed", attrs...)
}

// serve reads and handles PDUs until something ends that. Output gathers
// while input lasts and goes out in one piece when it is used up.
func (c *conn) serve() error {
	for {
		c.out.gather()
		if err := c.handleInput(); err != nil {
			c.out.ungather()
			if !errors.Is(err, errFrozen) {
				c.out.flush() // a last word, such as a login failure
			}
			return err
		}
		c.out.flushNow()
		c.node.memory.serve(c.node)
		if c.out.finished() {
			return errLoggedOut
		}
		if err := c.readMore(); err != nil {
			return err
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
		if err := c.out.throttle(); err != nil {
			return err
		}
		ok, err := c.nextPDU()
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
			return protocolErrorf("opcode %#x during login", uint8(op))
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
		return protocolErrorf("login request in full feature phase")
	}
	c.reject(pdu.CommandNotSupported, h)
	return nil
}

// reject answers a PDU with a Reject that carries its header (RFC 7143 11.17).
func (c *conn) reject(reason pdu.RejectReason, h *pdu.BHS) {
	p := pdu.Reject{Reason: reason, DataLength: pdu.BHSLen}
	b := c.node.pool.Get(pdu.BHSLen)
	copy(b.B, h[:])
	c.out.sendData(header(&p), true, b)
	c.node.logLimit.Log(c.node.log, slog.LevelWarn, "PDU rejected", "remote", c.remote.String(),
		"reason", fmt.Sprintf("%#x", uint8(reason)), "opcode", fmt.Sprintf("%#x", h[0]))
}
