// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// reader is a connection as its input sees it: it says what each PDU is for. It is a [stream.Handler].
type reader struct {
	*conn
	node *Node
}

// Stopped implements [stream.Handler].
func (r *reader) Stopped() error { return r.stopped() }

// Handle implements [stream.Handler]. data is the data segment of the PDU; it belongs to the input
// buffer and is gone after the call.
func (r *reader) Handle(h *pdu.BHS, data []byte) error {
	c, op := r.conn, h.Opcode()
	c.heard.Add(1)
	if c.login != nil {
		if op != pdu.OpLoginReq {
			// RFC 7143 6.3: anything else during login ends the connection;
			// the response says so.
			loginPhase(*r).refuse(login.Errorf(pdu.InvalidDuringLogin, "opcode %#x", uint8(op)), nil)
			return stream.FormatErrorf("opcode %#x during login", uint8(op))
		}
		return loginPhase(*r).handle(h, data)
	}
	if !c.is(connFull) {
		return nil // RFC 7143 11.14: nothing counts after a logout request
	}
	if op != pdu.OpSCSICommand && op != pdu.OpDataOut {
		c.inPlace.Stop()
	}
	switch op {
	case pdu.OpSCSICommand:
		if c.sess.handleCommand(&c.transport, h, data) {
			r.node.runWaiting(c.sess)
		}
	case pdu.OpDataOut:
		c.sess.handleDataOut(&c.transport, &c.filling, h, data)
	case pdu.OpNOPOut, pdu.OpTaskMgmtReq, pdu.OpTextReq, pdu.OpLogoutReq:
		r.node.handleInTurn(c.sess, &c.transport, h, data)
	case pdu.OpSNACKReq:
		// RFC 7143 11.16: without error recovery there is nothing to resend.
		c.reject(pdu.SNACKReject, h)
	case pdu.OpLoginReq:
		return stream.FormatErrorf("login request in full feature phase")
	default:
		c.reject(pdu.CommandNotSupported, h)
	}
	return nil
}

// Refused implements [stream.Handler]: there is no memory for the data segment of a PDU, which
// is passed over.
func (r *reader) Refused(h *pdu.BHS) error {
	c := r.conn
	c.heard.Add(1)
	switch {
	case c.login != nil:
		return loginPhase(*r).refuseText(h)
	case !c.is(connFull):
		return nil
	}
	switch h.Opcode() {
	case pdu.OpDataOut:
		c.sess.lostDataOut(&c.transport, &c.filling, h, insufficientResources)
	case pdu.OpSCSICommand, pdu.OpNOPOut, pdu.OpTaskMgmtReq, pdu.OpTextReq, pdu.OpLogoutReq:
		if c.sess.refuseForMemory(&c.transport, h) {
			r.node.runWaiting(c.sess)
		}
	default:
		return r.Handle(h, nil) // what it is matters, not its data
	}
	return nil
}

// Damaged implements [stream.Handler]: the data segment of a PDU was damaged on the way
// (RFC 7143 7.8). The PDU is rejected, and a write command that lost data fails
// once the initiator has sent the rest.
func (r *reader) Damaged(h *pdu.BHS) error {
	if r.login != nil {
		return stream.FormatErrorf("data digest error during login")
	}
	r.node.tally.DataDigest()
	r.reject(pdu.DataDigestError, h)
	if h.Opcode() == pdu.OpDataOut {
		r.sess.lostDataOut(&r.transport, &r.filling, h, scsi.ProtocolServiceCRCError)
	}
	return nil
}

// Direct implements [stream.Handler].
func (r *reader) Direct(length, total int) bool { return r.node.opt.FastPaths.direct(length, total) }

// Place implements [stream.Handler].
func (r *reader) Place(h *pdu.BHS, length int) (dest []byte, size int) {
	switch h.Opcode() {
	case pdu.OpDataOut:
		if r.sess != nil && r.node.opt.FastPaths.inPlace() {
			dest = r.sess.reserveDataOut(&r.transport, &r.filling, h, length)
		}
	case pdu.OpSCSICommand:
		// Large enough to serve as the whole command's.
		return nil, max(length, int(min(h.ExpectedDataTransferLength(), scsi.MaxTransfer)))
	}
	return dest, length
}

// Unplace implements [stream.Handler].
func (r *reader) Unplace() {
	if r.sess != nil {
		r.sess.unreserveDataOut(&r.filling)
	}
}

// handleInTurn handles a request other than a SCSI command in its turn.
func (n *Node) handleInTurn(s *session, c *transport, h *pdu.BHS, data []byte) {
	s.mu.Lock()
	switch s.window.Admit(h.Immediate(), h.CmdSN()) {
	case sequence.Never:
		s.mu.Unlock()
		return
	case sequence.Later:
		kept := s.keepRequest(c, h, data)
		if kept == nil {
			s.mu.Unlock()
			if s.refuseForMemory(c, h) {
				n.runWaiting(s)
			}
			return
		}
		s.window.Keep(h.CmdSN(), kept)
		s.mu.Unlock()
		return
	}
	if !h.Immediate() {
		s.openWindowLocked()
	}
	more := s.window.Len() > 0
	s.mu.Unlock()
	n.process(s, c, h, data)
	if more || h.Opcode() == pdu.OpTaskMgmtReq { // which may have used up the number of a task that has not come
		n.runWaiting(s)
	}
}

// process handles a request whose turn has come.
func (n *Node) process(s *session, c *transport, h *pdu.BHS, data []byte) {
	switch h.Opcode() {
	case pdu.OpNOPOut:
		c.handleNOPOut(h, data)
	case pdu.OpTextReq:
		n.handleText(s, c, h, data)
	case pdu.OpLogoutReq:
		s.handleLogout(c, h)
	default:
		n.handleTaskManagement(s, c, h)
	}
}

// runWaiting handles the waiting requests whose turn has come.
func (n *Node) runWaiting(s *session) {
	for {
		s.mu.Lock()
		next, ok := s.window.Next()
		if !ok {
			s.mu.Unlock()
			return
		}
		r := next.Request
		switch {
		case next.Skip:
			s.openWindowLocked()
			s.mu.Unlock()
			continue
		case r.task != nil:
			run := s.deliverLocked(r.task)
			s.mu.Unlock()
			s.proceed(r.task, run, nil)
		default:
			s.openWindowLocked()
			s.mu.Unlock()
			var data []byte
			if r.data != nil {
				data = r.data.B
			}
			n.process(s, r.conn, &r.bhs, data)
			r.data.Release()
			s.memory.Release(requestCost)
		}
		r.conn.out.Flush()
	}
}
