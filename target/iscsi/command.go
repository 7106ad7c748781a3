// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/iscsi/transfer"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// handleCommand takes in a SCSI Command PDU (RFC 7143 11.3). It reports whether the turn of requests
// that wait may have come.
func (s *session) handleCommand(c *transport, h *pdu.BHS, data []byte) (more bool) {
	if s.target == nil {
		c.reject(pdu.ProtocolError, h) // RFC 7143 4.4.3: no commands in a discovery session
		return false
	}
	if !s.memory.Admit(taskCost) {
		return s.refuseForMemory(c, h)
	}
	t := newTask(&s.terms, c)
	t.req.Decode(h)
	s.mu.Lock()
	when := s.window.Admit(t.req.Immediate, t.req.CmdSN)
	if when == sequence.Never || s.phase != sessionOpen {
		s.mu.Unlock()
		t.release()
		return false
	}
	if reason, ok := s.tasks.mayEnter(&t.req); !ok {
		s.refuse(t, h, when, reason)
		return true
	}
	s.tasks.enter(t)
	s.takeImmediateData(t, data)
	if when == sequence.Later {
		if !t.keepData() {
			t.loseData()
		}
		s.window.Keep(t.req.CmdSN, &request{conn: c, bhs: *h, task: t})
		s.mu.Unlock()
		return false
	}
	run := s.deliverLocked(t)
	more = s.window.Len() > 0
	s.mu.Unlock()
	s.proceed(t, run, &c.inPlace)
	return more
}

// refuse rejects a command that can't enter the task set. It uses up its CmdSN
// all the same, in its turn. The caller holds the session's mutex.
func (s *session) refuse(t *task, h *pdu.BHS, when sequence.Turn, reason pdu.RejectReason) {
	c := t.conn
	if when == sequence.Later {
		s.window.Skip(t.req.CmdSN)
	}
	s.openWindowLocked()
	s.mu.Unlock()
	t.release()
	c.reject(reason, h)
}

// takeImmediateData notes the data that came with the command. It stays in
// the input buffer for now; [task.keepData] moves it when it must outlive that.
func (s *session) takeImmediateData(t *task, data []byte) {
	if fault := t.data.Begin(&t.req, uint32(len(data)), &s.params); fault != transfer.None {
		t.broken = conditions[fault]
		return
	}
	t.cmd.Out = data
	if s.engine.opt.FastPaths.inPlace() {
		if b := t.conn.in.Take(); b != nil {
			t.buf = b
		}
	}
}

// deliverLocked brings a command before the device server in its turn, and
// reports whether it is to be run now.
func (s *session) deliverLocked(t *task) (run bool) {
	s.tasks.deliver(t)
	t.address()
	if t.aborted {
		s.dropLocked(t)
		return false
	}
	if t.broken == 0 && !t.cmd.Done() { // it is if others have aborted it
		s.nexus.Prepare(&t.cmd)
	}
	t.setWant()
	return s.continueLocked(t)
}

// refuseForMemory answers a request for which the session has no memory, and whose data has been
// passed over. It uses up its CmdSN. What was to come behind it is ignored, as is what
// comes for a task that there is not. It reports whether the turn of requests that wait may have come.
func (s *session) refuseForMemory(c *transport, h *pdu.BHS) (more bool) {
	s.mu.Lock()
	switch s.window.Admit(h.Immediate(), h.CmdSN()) {
	case sequence.Never:
		s.mu.Unlock()
		return false
	case sequence.Later:
		s.window.Skip(h.CmdSN())
	}
	s.openWindowLocked()
	s.mu.Unlock()
	if h.Opcode() == pdu.OpSCSICommand && s.target != nil {
		// SAM-5 5.3.1: the initiator is to try again when others of its commands have ended.
		c.out.Send(header(&pdu.SCSIResponse{
			Response: pdu.CommandCompleted, Status: uint8(scsi.TaskSetFull), InitiatorTaskTag: h.InitiatorTaskTag(),
		}), true)
	} else {
		c.reject(pdu.LongOperationReject, h)
	}
	return true
}
