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

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// Reasons for the end of a connection that are nobody's fault.
var (
	errShutdown    = tally.Endingf(tally.Shutdown, "the target shuts down")
	errReinstated  = tally.Endingf(tally.Reinstated, "the session was reinstated")
	errLoggedOut   = tally.Endingf(tally.LoggedOut, "logged out")
	errReplaced    = tally.Endingf(tally.Reinstated, "replaced by a new connection with its CID")
	errReset       = tally.Endingf(tally.TargetReset, "the target was reset")
	errSessionLost = tally.Endingf(tally.SessionLost, "another connection of the session was lost")
	errFrozen      = stream.ErrFrozen // the reader stops for a handoff; never leaves the package
)

// transport is one TCP connection with its two streams of PDUs: what sessions and their tasks
// need of a connection. Its fields belong to the reading goroutine unless they say otherwise;
// what login sets is constant afterwards.
type transport struct {
	freeze *freezer
	log    *slog.Logger
	sock   *socket.Socket
	remote netip.AddrPort
	group  uint16 // tag of the portal group it came in through
	born   boottime.Stamp

	pool   *mem.Pool // charges the login, or the session
	in     stream.Input
	out    stream.Output // has its own lock
	cid    uint16
	agreed login.Agreed // digests and limits

	inPlace scsi.Batch // of the commands that came over it

	heard atomic.Uint32 // PDUs received, for liveness
	ping  pingState     // belongs to the liveness loop
	phase atomic.Uint32 // a connPhase
	ended error         // why it is closed; set once, before
	once  sync.Once     // guards ended
	done  chan struct{} // closed when nothing of the connection runs any more

	closing chan struct{} // closed when ended is set
}

// pingState is what the liveness loop remembers of a connection.
type pingState struct {
	heard uint32    // PDUs received when last looked at
	since time.Time // when that last changed
	sent  bool      // a NOP-In is unanswered since
}

// origin is who counts as one by address: an IPv4 address, or an IPv6 network of 64 bits, of
// which any host has as many addresses as it likes.
func origin(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap(); a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // an address that is not valid has the zero Prefix
	return p
}

func (c *transport) origin() netip.Prefix { return origin(c.remote.Addr()) }

// agree makes the connection use digests and limits from now on.
func (c *transport) agree(a login.Agreed) {
	c.agreed = a
	c.in.SetDigests(a.HeaderDigest, a.DataDigest)
	c.in.SetLimit(a.ReceiveLimit)
	c.out.SetDigests(a.HeaderDigest, a.DataDigest)
}

func (c *transport) is(p connPhase) bool { return connPhase(c.phase.Load()) == p }

// move takes the connection to another phase, false if it can't go there.
func (c *transport) move(to connPhase) bool {
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

// close ends the connection for a reason; the first reason counts. It never
// blocks: the reading goroutine notices and cleans up.
func (c *transport) close(why error) {
	c.once.Do(func() {
		c.ended = why
		c.move(connClosed)
		close(c.closing)
		if !c.freeze.is(nodeForeign) {
			// The reading goroutine closes it later, and another process may hold
			// the socket too while a handoff fails: this sends the FIN.
			c.sock.Shutdown()
		}
		c.sock.Wake()
		c.out.Wake()
	})
}

// stopped says why the connection's goroutines should wait for nothing more, nil
// if they may.
func (c *transport) stopped() error {
	switch {
	case c.freeze.Stopped():
		return errFrozen
	case c.is(connClosed):
		return c.ended
	}
	return nil
}

// serve reads and handles PDUs until something ends that. Output gathers
// while input lasts and goes out in one piece when it is used up.
func (c *transport) serve() error {
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

// handleInput handles the whole PDUs that are in the buffer. Their answers are queued then, and
// what they did is counted.
func (c *transport) handleInput() error {
	defer c.inPlace.Stop()
	for {
		if c.freeze.Stopped() {
			return errFrozen
		}
		if c.out.Full() {
			c.inPlace.Stop()
			if err := c.out.Throttle(); err != nil {
				return err
			}
		}
		ok, err := c.in.Next()
		if !ok || err != nil {
			return err
		}
	}
}

// readError says what a failed read means.
func (c *transport) readError(err error) error {
	switch {
	case c.is(connClosed):
		return c.ended
	case errors.Is(err, io.EOF) && c.is(connLeaving):
		return errLoggedOut // the initiator has read the answer and was faster
	case errors.Is(err, io.EOF):
		return tally.Endingf(tally.ClosedByPeer, "closed by the initiator")
	}
	return err
}

// lost reports whether a connection has ended in a way that ends its session.
func (c *transport) lost() bool {
	return c.is(connClosed) && c.ended != errLoggedOut && c.ended != errReplaced
}

// reject answers a PDU with a Reject that carries its header (RFC 7143 11.17).
func (c *transport) reject(reason pdu.RejectReason, h *pdu.BHS) {
	p := pdu.Reject{Reason: reason, DataLength: pdu.BHSLen}
	b := c.pool.Get(pdu.BHSLen)
	copy(b.B, h[:])
	c.out.SendData(header(&p), true, b)
	c.log.Warn("PDU rejected", "remote", c.remote.String(),
		"reason", fmt.Sprintf("%#x", uint8(reason)), "opcode", fmt.Sprintf("%#x", h[0]))
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
