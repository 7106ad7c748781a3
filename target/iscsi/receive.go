// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// reader is the connection as its input sees it; it is a [stream.Handler].
type reader conn

func (r *reader) Stopped() error { return (*conn)(r).stopped() }

func (r *reader) Handle(h *pdu.BHS, data []byte) error { return (*conn)(r).dispatch(h, data) }

func (r *reader) Damaged(h *pdu.BHS) error { return (*conn)(r).dataDigestError(h) }

func (r *reader) Refused(h *pdu.BHS) error { return (*conn)(r).dispatchRefused(h) }

func (r *reader) Direct(length, total int) bool { return r.node.opt.FastPaths.direct(length, total) }

func (r *reader) Place(h *pdu.BHS, length int) ([]byte, int) { return (*conn)(r).place(h, length) }

func (r *reader) Unplace() { (*conn)(r).unplace() }

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

// dataDigestError handles a PDU whose data segment was damaged on the way
// (RFC 7143 7.8): it is rejected, and a write command that lost data fails
// once the initiator has sent the rest.
func (c *conn) dataDigestError(h *pdu.BHS) error {
	if c.login != nil {
		return stream.FormatErrorf("data digest error during login")
	}
	c.reject(pdu.DataDigestError, h)
	if h.Opcode() == pdu.OpDataOut {
		c.lostDataOut(h, scsi.ProtocolServiceCRCError)
	}
	return nil
}

// sequence handles a request other than a SCSI command in its turn.
func (c *conn) sequence(h *pdu.BHS, data []byte) error {
	s := c.sess
	s.mu.Lock()
	switch s.window.Admit(h.Immediate(), h.CmdSN()) {
	case sequence.Never:
		s.mu.Unlock()
		return nil
	case sequence.Later:
		r := c.keepRequest(h, data)
		if r == nil {
			s.mu.Unlock()
			c.refuseForMemory(h)
			return nil
		}
		s.window.Keep(h.CmdSN(), r)
		s.mu.Unlock()
		return nil
	}
	if !h.Immediate() {
		s.openWindowLocked()
	}
	more := s.window.Len() > 0
	s.mu.Unlock()
	err := c.process(h, data)
	if more {
		s.runWaiting()
	}
	return err
}

// keepRequest copies a request that is ahead of its turn, nil if the session has no memory for it.
func (c *conn) keepRequest(h *pdu.BHS, data []byte) *request {
	if !c.sess.memory.Admit(requestCost) {
		return nil
	}
	r := &request{conn: c, bhs: *h}
	if len(data) == 0 {
		return r
	}
	if r.data = c.in.Take(); r.data == nil {
		if r.data = c.pool.TryGet(len(data)); r.data == nil {
			c.sess.memory.Release(requestCost)
			return nil
		}
		copy(r.data.B, data)
	}
	r.data.B = r.data.B[:len(data)]
	return r
}

// process handles a request whose turn has come.
func (c *conn) process(h *pdu.BHS, data []byte) error {
	switch h.Opcode() {
	case pdu.OpNOPOut:
		return c.handleNOPOut(h, data)
	case pdu.OpTextReq:
		return c.handleText(h, data)
	case pdu.OpLogoutReq:
		return c.handleLogout(h)
	default:
		return c.handleTaskManagement(h)
	}
}

// runWaiting handles the waiting requests whose turn has come.
func (s *session) runWaiting() {
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
			s.proceed(r.task, run)
		default:
			s.openWindowLocked()
			s.mu.Unlock()
			r.process()
		}
		r.conn.out.Flush()
	}
}

// process handles a waiting request other than a SCSI command.
func (r *request) process() {
	var data []byte
	if r.data != nil {
		data = r.data.B
	}
	if err := r.conn.process(&r.bhs, data); err != nil {
		r.conn.close(err)
	}
	r.data.Release()
	r.conn.sess.memory.Release(requestCost)
}

// place says where a long data segment goes; see [stream.Handler].
func (c *conn) place(h *pdu.BHS, length int) (dest []byte, size int) {
	switch h.Opcode() {
	case pdu.OpDataOut:
		if c.sess != nil && c.node.opt.FastPaths.inPlace() {
			c.filling, dest = c.sess.reserveDataOut(c, h, length)
		}
	case pdu.OpSCSICommand:
		// Large enough to serve as the whole command's.
		return nil, max(length, int(min(h.ExpectedDataTransferLength(), scsi.MaxTransfer)))
	}
	return dest, length
}

// unplace gives up what place has reserved, if that was not used.
func (c *conn) unplace() {
	if c.filling != nil {
		c.sess.unreserveDataOut(c.filling)
		c.filling = nil
	}
}
