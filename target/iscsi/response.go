// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// A finished task is a [stream.Source]: its Data-In PDUs and its SCSI Response are
// made when there is room to send them.

// Size implements [stream.Source].
func (t *task) Size() int {
	if t.cmd.In == nil {
		return 0
	}
	return len(t.cmd.In.B)
}

// Release implements [stream.Source].
func (t *task) Release() { t.release() }

// Next implements [stream.Source].
func (t *task) Next(h *pdu.BHS) (data []byte, status, last bool) {
	if t.inSent < t.Size() {
		data, status = t.nextDataIn(h)
		return data, status, status
	}
	return t.response(h), true, true
}

// nextDataIn makes the task's next Data-In PDU. It reports true when that carries
// the status too (RFC 7143 11.7.3: only for status GOOD here).
func (t *task) nextDataIn(h *pdu.BHS) (data []byte, status bool) {
	total, maxBurst := t.Size(), int(t.terms.params.MaxBurstLength)
	burstEnd := min((t.inSent/maxBurst+1)*maxBurst, total)
	n := min(burstEnd-t.inSent, t.conn.agreed.SendLimit)
	p := pdu.DataIn{
		Final:             t.inSent+n == burstEnd,
		DataLength:        uint32(n),
		InitiatorTaskTag:  t.req.InitiatorTaskTag,
		TargetTransferTag: pdu.ReservedTag,
		DataSN:            t.dataSN,
		BufferOffset:      uint32(t.inSent),
	}
	if t.inSent+n == total && t.goodStatus() {
		p.HasStatus, p.Status = true, uint8(t.cmd.Status)
		p.Overflow, p.Underflow, p.ResidualCount = t.residual()
	}
	data = t.cmd.In.B[t.inSent : t.inSent+n]
	t.inSent += n
	t.dataSN++
	p.Encode(h)
	return data, p.HasStatus
}

// response makes the task's SCSI Response, with sense data if there is any.
func (t *task) response(h *pdu.BHS) (data []byte) {
	p := pdu.SCSIResponse{
		Response: pdu.CommandCompleted, Status: uint8(t.cmd.Status),
		InitiatorTaskTag: t.req.InitiatorTaskTag,
		ExpDataSN:        t.dataSN + t.data.Asked(),
	}
	p.Overflow, p.Underflow, p.ResidualCount = t.residual()
	if len(t.cmd.Sense) > 0 {
		// RFC 7143 11.4.7: SenseLength in two bytes, then the sense data.
		data = append(t.senseSegment[:0], byte(len(t.cmd.Sense)>>8), byte(len(t.cmd.Sense)))
		data = append(data, t.cmd.Sense...)
		p.DataLength = uint32(len(data))
	}
	p.Encode(h)
	return data
}

func (t *task) goodStatus() bool { return t.cmd.Status == scsi.Good }

// residual compares what the initiator expected with what the command
// transfers (RFC 7143 11.4.5).
func (t *task) residual() (overflow, underflow bool, count uint32) {
	// A command that moves data the other way than its R and W bits say moves none: all
	// of it is what the initiator does not expect.
	actual, expected := t.cmd.InLength, t.cmd.InExpected
	switch {
	case t.cmd.Direction == scsi.DataOut:
		actual, expected = t.cmd.Length, t.cmd.OutExpected
	case actual == 0:
		expected += t.cmd.OutExpected // one of the two is 0
	}
	switch {
	case actual > expected:
		return true, false, actual - expected
	case actual < expected:
		return false, true, expected - actual
	}
	return false, false, 0
}
