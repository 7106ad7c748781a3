// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/transfer"
)

// handleDataOut takes in a SCSI Data-Out PDU (RFC 7143 11.7).
func (s *session) handleDataOut(c *transport, at *placement, h *pdu.BHS, data []byte) {
	var p pdu.DataOut
	p.Decode(h)
	s.mu.Lock()
	t := s.tasks.byTag[p.InitiatorTaskTag]
	if t == nil || t.conn != c {
		// What is left of a task that was aborted or has failed.
		s.mu.Unlock()
		return
	}
	run, inPlace := false, at.filledLocked(t)
	if s.takeDataLocked(t, &p, data, inPlace) && t.phase != taskEarly {
		run = s.continueLocked(t)
	}
	s.mu.Unlock()
	s.proceed(t, run, &c.inPlace)
}

// takeDataLocked adds the data of one PDU to its task, or finds the task
// broken. It reports whether the task may go on. inPlace says that data is in
// the task's buffer already.
func (s *session) takeDataLocked(t *task, p *pdu.DataOut, data []byte, inPlace bool) bool {
	if t.phase > taskData {
		return false // data for a task that has all of its data
	}
	plantedFault(t, p)
	if fault := t.data.Check(p, t.req.ExpectedDataTransferLength, s.params.FirstBurstLength); fault != transfer.None && t.broken == 0 {
		t.broken = conditions[fault]
	}
	if t.broken == 0 && len(data) > 0 {
		if !inPlace {
			t.store(data)
		}
		t.data.Receive(len(data))
		if t.buf != nil {
			t.cmd.Out = t.buf.B[:min(int(t.data.Received()), len(t.buf.B))]
		}
	}
	s.gathered += int64(len(data))
	t.advance(p)
	return true
}

// advance notes that a Data-Out has come.
func (t *task) advance(p *pdu.DataOut) {
	if t.data.Advance(p) {
		t.unanswered = unanswered{}
	}
}

// placement is where the reader of a connection puts a long Data-Out segment while it arrives:
// straight into its task's buffer. It belongs to the reading goroutine.
type placement struct {
	task *task // nil for none
}

// reserveDataOut finds the place of a segment, and returns nothing if the
// segment must be looked at first. Until unreserveDataOut the buffer stays.
func (s *session) reserveDataOut(c *transport, at *placement, h *pdu.BHS, length int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks.byTag[h.InitiatorTaskTag()]
	if t == nil || t.conn != c || t.phase != taskData || t.buf == nil || t.aborted ||
		h.BufferOffset() != t.data.Received() || int(t.data.Received())+length > len(t.buf.B) {
		return nil
	}
	at.task, t.filling = t, true
	return t.buf.B[t.data.Received():][:length]
}

// filledLocked ends a reservation because its segment is complete, and reports
// whether that was t's. It comes before t goes on: from then on t may be
// answered and used again at any moment.
func (at *placement) filledLocked(t *task) bool {
	if at.task != t {
		return false
	}
	at.task, t.filling = nil, false
	return true
}

// unreserveDataOut gives up a reservation whose segment was not used. A task
// that was aborted meanwhile is released only here.
func (s *session) unreserveDataOut(at *placement) {
	t := at.task
	if t == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at.task, t.filling = nil, false
	if t.aborted {
		t.release()
	}
}

// lostDataOut takes in a Data-Out whose data segment is lost: its command fails with a condition.
func (s *session) lostDataOut(c *transport, at *placement, h *pdu.BHS, code uint16) {
	var p pdu.DataOut
	p.Decode(h)
	s.mu.Lock()
	t := s.tasks.byTag[p.InitiatorTaskTag]
	run := false
	if t != nil && t.conn == c && t.phase <= taskData {
		at.filledLocked(t)
		if t.broken == 0 {
			t.broken = code
		}
		t.advance(&p)
		if t.phase != taskEarly {
			run = s.continueLocked(t)
		}
	}
	s.mu.Unlock()
	s.proceed(t, run, nil)
}
