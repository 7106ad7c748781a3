// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// handleDataOut takes in a SCSI Data-Out PDU (RFC 7143 11.7).
func (s *session) handleDataOut(c *transport, at *placement, h *pdu.BHS, data []byte) {
	var p pdu.DataOut
	p.Decode(h)
	s.mu.Lock()
	t := s.tasks[p.InitiatorTaskTag]
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
	s.proceed(t, run)
}

// takeDataLocked adds the data of one PDU to its task, or finds the task
// broken. It reports whether the task may go on. inPlace says that data is in
// the task's buffer already.
func (s *session) takeDataLocked(t *task, p *pdu.DataOut, data []byte, inPlace bool) bool {
	if t.phase > taskData {
		return false // data for a task that has all of its data
	}
	plantedFault(t, p)
	if code := s.checkDataLocked(t, p); code != 0 && t.broken == 0 {
		t.broken = code
	}
	if t.broken == 0 && len(data) > 0 {
		if !inPlace {
			t.store(data)
		}
		t.received += uint32(len(data))
		if t.buf != nil {
			t.cmd.Out = t.buf.B[:min(int(t.received), len(t.buf.B))]
		}
	}
	s.gathered += int64(len(data))
	s.advanceSequenceLocked(t, p)
	return true
}

// checkDataLocked checks a Data-Out against the sequence that it belongs to.
// It returns the condition to report, 0 if all is well.
func (s *session) checkDataLocked(t *task, p *pdu.DataOut) uint16 {
	if p.TargetTransferTag == pdu.ReservedTag {
		limit := min(s.params.FirstBurstLength, t.req.ExpectedDataTransferLength)
		switch {
		case !t.unsolicited || uint64(p.BufferOffset)+uint64(p.DataLength) > uint64(limit):
			return scsi.UnexpectedUnsolicitedData
		case p.DataSN != t.outSN || p.BufferOffset != t.received:
			return scsi.DataPhaseError
		}
		return 0
	}
	r := t.openR2T(p.TargetTransferTag)
	if r == nil {
		return scsi.UnexpectedUnsolicitedData
	}
	end := r.Offset + r.Length
	switch {
	case r != &t.r2ts[0] || p.DataSN != r.DataSN || p.BufferOffset != t.received:
		return scsi.DataPhaseError
	case p.DataLength > end-t.received, p.Final && p.DataLength < end-t.received:
		return scsi.IncorrectAmountOfData
	}
	return 0
}

// advanceSequenceLocked notes that a Data-Out of a sequence has come, and the
// end of the sequence with its F bit.
func (s *session) advanceSequenceLocked(t *task, p *pdu.DataOut) {
	if p.TargetTransferTag == pdu.ReservedTag {
		t.outSN++
		if p.Final {
			t.unsolicited = false
			t.asked = t.received
		}
		return
	}
	if r := t.openR2T(p.TargetTransferTag); r != nil {
		r.DataSN++
		if p.Final {
			t.unanswered = unanswered{}
			t.openR2Ts = len(slices.DeleteFunc(t.r2ts[:t.openR2Ts], func(o r2t) bool { return o.TTT == p.TargetTransferTag }))
		}
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
	t := s.tasks[h.InitiatorTaskTag()]
	if t == nil || t.conn != c || t.phase != taskData || t.buf == nil || t.aborted ||
		h.BufferOffset() != t.received || int(t.received)+length > len(t.buf.B) {
		return nil
	}
	at.task, t.filling = t, true
	return t.buf.B[t.received:][:length]
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
	t := s.tasks[p.InitiatorTaskTag]
	run := false
	if t != nil && t.conn == c && t.phase <= taskData {
		at.filledLocked(t)
		if t.broken == 0 {
			t.broken = code
		}
		s.advanceSequenceLocked(t, &p)
		if t.phase != taskEarly {
			run = s.continueLocked(t)
		}
	}
	s.mu.Unlock()
	s.proceed(t, run)
}
