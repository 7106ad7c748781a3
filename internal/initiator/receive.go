// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"encoding/binary"
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// dispatch handles the PDU whose header is in c.wire.bhs.
func (c *conn) dispatch() error {
	h := &c.wire.bhs
	switch h.Opcode() {
	case pdu.OpDataIn:
		c.dataIn.Decode(h)
		return c.onDataIn(&c.dataIn)
	case pdu.OpSCSIResponse:
		c.resp.Decode(h)
		return c.onResponse(&c.resp)
	case pdu.OpR2T:
		c.r2t.Decode(h)
		return c.onR2T(&c.r2t)
	case pdu.OpLoginResp:
		return violation(nil, "login response in full feature phase, header %x", h[:])
	}
	p := pdu.New(h.Opcode())
	if p == nil || h.Opcode() < pdu.OpNOPIn {
		return violation(nil, "opcode %#x is no target's, header %x", uint8(h.Opcode()), h[:])
	}
	p.Decode(h)
	data := make([]byte, h.DataSegmentLength())
	if err := c.wire.payload(data); err != nil {
		return err
	}
	return c.onControl(p, data)
}

// How a PDU uses its StatSN field.
type statUse uint8

const (
	statNone statUse = iota // reserved, zero
	statNext                // says the next one without using it up
	statOwn                 // carries status and so uses one up
)

// arriveLocked checks what every PDU has in common: reserved fields and the
// three sequence numbers (RFC 7143 4.2.2). It opens the command window.
func (c *conn) arriveLocked(p pdu.PDU, seq *pdu.Sequence, use statUse) error {
	s := c.s
	if err := checkReserved(p, &c.wire.bhs, &c.again); err != nil {
		return err
	}
	switch {
	case use == statNone && seq.StatSN != 0:
		return violation(p, "StatSN %d where it is reserved", seq.StatSN)
	case use != statNone && seq.StatSN != c.expStatSN:
		return violation(p, "StatSN %d, want %d", seq.StatSN, c.expStatSN)
	case pdu.SNLess(seq.MaxCmdSN, seq.ExpCmdSN-1):
		return violation(p, "MaxCmdSN %d before ExpCmdSN-1", seq.MaxCmdSN)
	case pdu.SNLess(seq.ExpCmdSN, c.expCmdSN):
		return violation(p, "ExpCmdSN went back from %d", c.expCmdSN)
	case pdu.SNLess(seq.MaxCmdSN, c.maxCmdSN):
		return violation(p, "MaxCmdSN went back from %d", c.maxCmdSN)
	case pdu.SNLess(s.cmdSN, seq.ExpCmdSN):
		return violation(p, "ExpCmdSN %d, but %d has yet to be sent", seq.ExpCmdSN, s.cmdSN)
	}
	if use == statOwn {
		c.expStatSN++
	}
	c.expCmdSN, c.maxCmdSN = seq.ExpCmdSN, seq.MaxCmdSN
	if pdu.SNLess(s.maxCmdSN, seq.MaxCmdSN) {
		s.maxCmdSN = seq.MaxCmdSN
	}
	return nil
}

// commandLocked returns the command that p is about, having checked that it waits
// here and that ExpCmdSN acknowledges it.
func (c *conn) commandLocked(p pdu.PDU, tag uint32, seq *pdu.Sequence) (*task, error) {
	t := c.s.tasks.find(tag, c)
	switch {
	case t == nil || t.cmd == nil:
		return nil, violation(p, "no command with tag %#x waits on this connection", tag)
	case !t.immediate && !pdu.SNLess(t.cmdSN, seq.ExpCmdSN):
		return nil, violation(p, "answer to command %d, which ExpCmdSN %d does not acknowledge", t.cmdSN, seq.ExpCmdSN)
	}
	return t, nil
}

// advance sends what the window now allows; called after every PDU. The own
// connection's output leaves before the reader next waits.
func (c *conn) advance() {
	s := c.s
	s.mu.Lock()
	pumped := len(s.waiting) > 0
	s.pumpLocked()
	others := pumped && len(s.conns) > 1
	s.mu.Unlock()
	if others {
		s.flush()
	}
}

func (c *conn) onDataIn(p *pdu.DataIn) error {
	s := c.s
	s.mu.Lock()
	t, err := c.acceptDataInLocked(p)
	c.storing = t
	s.mu.Unlock()
	if err != nil {
		return err
	}
	cmd := t.cmd
	if err := c.wire.payload(cmd.In[p.BufferOffset : p.BufferOffset+p.DataLength]); err != nil {
		return err
	}
	s.mu.Lock()
	c.storing = nil
	ended := p.HasStatus || t.aborted
	s.mu.Unlock()
	c.advance()
	if ended {
		s.settle(t)
	}
	return nil
}

// acceptDataInLocked judges a Data-In (RFC 7143 11.7) and moves its task on.
func (c *conn) acceptDataInLocked(p *pdu.DataIn) (*task, error) {
	use := statNone
	if p.HasStatus {
		use = statOwn
	}
	if err := c.arriveLocked(p, &p.Sequence, use); err != nil {
		return nil, err
	}
	t, err := c.commandLocked(p, p.InitiatorTaskTag, &p.Sequence)
	if err != nil {
		return nil, err
	}
	switch cmd := t.cmd; {
	case p.DataSN != t.dataSN:
		return nil, violation(p, "DataSN %d, want %d", p.DataSN, t.dataSN)
	case p.BufferOffset != t.received:
		return nil, violation(p, "buffer offset %d, want %d", p.BufferOffset, t.received)
	case p.DataLength > uint32(len(cmd.In))-t.received:
		return nil, violation(p, "data past the expected transfer length %d", len(cmd.In))
	case p.Acknowledge:
		return nil, violation(p, "A bit at ErrorRecoveryLevel 0")
	case p.TargetTransferTag != pdu.ReservedTag:
		return nil, violation(p, "target transfer tag without A bit")
	case p.LUN != 0 && p.LUN != cmd.LUN:
		return nil, violation(p, "LUN of another command, want %#x or 0", cmd.LUN)
	case p.DataLength > c.s.params.MaxBurstLength-t.burst:
		return nil, violation(p, "sequence longer than MaxBurstLength %d", c.s.params.MaxBurstLength)
	case p.HasStatus && !p.Final:
		return nil, violation(p, "S bit without F bit")
	case p.HasStatus && !statusWithoutSense(p.Status):
		return nil, violation(p, "status %#02x in a Data-In", p.Status)
	case !p.HasStatus && (p.Status != 0 || p.Overflow || p.Underflow || p.ResidualCount != 0):
		return nil, violation(p, "status or residual without S bit")
	case !p.HasStatus && p.DataLength == 0:
		return nil, violation(p, "neither data nor status")
	}
	t.dataSN++
	t.received += p.DataLength
	t.burst += p.DataLength
	if p.Final {
		t.burst = 0
	}
	if p.HasStatus {
		return t, t.concludeLocked(p, outcome{status: p.Status, overflow: p.Overflow, underflow: p.Underflow, residual: p.ResidualCount})
	}
	return t, nil
}

// statusWithoutSense reports whether a status may come with a Data-In: GOOD,
// CONDITION MET or INTERMEDIATE (RFC 7143 11.7.3).
func statusWithoutSense(status uint8) bool {
	return status == StatusGood || status == StatusConditionMet || status == 0x10 || status == 0x14
}

// onR2T answers an R2T (RFC 7143 11.8).
func (c *conn) onR2T(p *pdu.R2T) error {
	s := c.s
	started := c.out.started()
	s.mu.Lock()
	err := c.acceptR2TLocked(p, started)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	c.advance()
	return nil
}

func (c *conn) acceptR2TLocked(p *pdu.R2T, started uint64) error {
	if err := c.arriveLocked(p, &p.Sequence, statNext); err != nil {
		return err
	}
	t, err := c.commandLocked(p, p.InitiatorTaskTag, &p.Sequence)
	if err != nil {
		return err
	}
	// An R2T is outstanding until its data has left, so for those whose data
	// still waits to be written with the R2T at hand the limit is checked.
	if t.r2tBatch <= started {
		t.r2tOpen = 0
	}
	switch cmd := t.cmd; {
	case p.R2TSN != t.r2tSN:
		return violation(p, "R2TSN %d, want %d", p.R2TSN, t.r2tSN)
	case p.TargetTransferTag == pdu.ReservedTag:
		return violation(p, "reserved target transfer tag")
	case p.LUN != cmd.LUN:
		return violation(p, "LUN of another command, want %#x", cmd.LUN)
	case p.BufferOffset != t.promised:
		return violation(p, "buffer offset %d, want %d", p.BufferOffset, t.promised)
	case p.DesiredDataTransferLength == 0 || p.DesiredDataTransferLength > uint32(len(cmd.Out))-t.promised:
		return violation(p, "%d bytes asked for, %d are left", p.DesiredDataTransferLength, uint32(len(cmd.Out))-t.promised)
	case p.DesiredDataTransferLength > c.s.params.MaxBurstLength:
		return violation(p, "more than MaxBurstLength %d", c.s.params.MaxBurstLength)
	case t.r2tOpen >= c.s.params.MaxOutstandingR2T:
		return violation(p, "more than MaxOutstandingR2T %d", c.s.params.MaxOutstandingR2T)
	}
	t.r2tSN++
	t.r2tOpen++
	c.sendDataLocked(t, p.TargetTransferTag, p.LUN, t.promised+p.DesiredDataTransferLength)
	t.r2tBatch = c.out.current()
	return nil
}

// onResponse handles a SCSI Response (RFC 7143 11.4).
func (c *conn) onResponse(p *pdu.SCSIResponse) error {
	c.scratch = append(c.scratch[:0], make([]byte, p.DataLength)...)
	if err := c.wire.payload(c.scratch); err != nil {
		return err
	}
	s := c.s
	s.mu.Lock()
	t, err := c.acceptResponseLocked(p, c.scratch)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	c.advance()
	s.settle(t)
	return nil
}

func (c *conn) acceptResponseLocked(p *pdu.SCSIResponse, data []byte) (*task, error) {
	if err := c.arriveLocked(p, &p.Sequence, statOwn); err != nil {
		return nil, err
	}
	t, err := c.commandLocked(p, p.InitiatorTaskTag, &p.Sequence)
	if err != nil {
		return nil, err
	}
	switch {
	case p.BidiOverflow || p.BidiUnderflow || p.BidiResidual != 0:
		return nil, violation(p, "bidirectional residual of a command that is not bidirectional")
	case p.SNACKTag != 0:
		return nil, violation(p, "SNACK tag at ErrorRecoveryLevel 0")
	case t.burst != 0:
		return nil, violation(p, "the last Data-In had no F bit")
	}
	if p.Response != pdu.CommandCompleted {
		if p.Status != 0 {
			return nil, violation(p, "status %#02x of a command that did not complete", p.Status)
		}
		t.answered = true
		t.cmd.Err = fmt.Errorf("initiator: service response %#02x to %s", p.Response, t.cmd)
		return t, nil
	}
	// For writes the standard can be read as wanting the count of R2Ts or zero.
	if want := t.dataSN + t.r2tSN; p.ExpDataSN != want && (p.ExpDataSN != 0 || t.dataSN > 0) {
		return nil, violation(p, "ExpDataSN %d, want %d", p.ExpDataSN, want)
	}
	sense, err := senseOf(p, data)
	if err != nil {
		return nil, err
	}
	t.cmd.Sense = append(t.cmd.Sense[:0], sense...)
	return t, t.concludeLocked(p, outcome{status: p.Status, overflow: p.Overflow, underflow: p.Underflow, residual: p.ResidualCount})
}

// senseOf returns the sense data in a response (RFC 7143 11.4.7).
func senseOf(p *pdu.SCSIResponse, data []byte) ([]byte, error) {
	if p.Status != StatusCheckCondition {
		if len(data) > 0 {
			return nil, violation(p, "%d bytes of data with a status that has no sense data", len(data))
		}
		return nil, nil
	}
	if len(data) < 2 {
		return nil, violation(p, "CHECK CONDITION without sense data")
	}
	n := int(binary.BigEndian.Uint16(data))
	if n == 0 || n > len(data)-2 {
		return nil, violation(p, "sense length %d in a data segment of %d bytes", n, len(data))
	}
	if code := data[2] & 0x7f; code < 0x70 || code > 0x73 {
		return nil, violation(p, "sense data with response code %#02x", code)
	}
	return data[2 : 2+n], nil
}

// An outcome is how the target says a command ended.
type outcome struct {
	status              uint8
	overflow, underflow bool
	residual            uint32
}

// concludeLocked checks the outcome of t against what was transferred and what
// the command implies (RFC 7143 11.4.5), and keeps it as the result.
func (t *task) concludeLocked(p pdu.PDU, o outcome) error {
	cmd := t.cmd
	expected := cmd.expected()
	switch {
	case o.overflow && o.underflow:
		return violation(p, "overflow and underflow at once")
	case (o.overflow || o.underflow) != (o.residual != 0):
		return violation(p, "residual %d does not go with the O and U bits", o.residual)
	case o.underflow && o.residual > expected:
		return violation(p, "residual %d of %d expected bytes", o.residual, expected)
	}
	if err := t.checkTransferLocked(p, o, expected); err != nil {
		return err
	}
	t.answered = true
	cmd.Status, cmd.Overflow, cmd.Underflow, cmd.Residual = o.status, o.overflow, o.underflow, o.residual
	cmd.Received = int(t.received)
	return nil
}

// checkTransferLocked holds the residual against the bytes that were moved.
func (t *task) checkTransferLocked(p pdu.PDU, o outcome, expected uint32) error {
	cmd := t.cmd
	moved := expected
	if o.underflow {
		moved -= o.residual
	}
	switch good := o.status == StatusGood; {
	case len(cmd.In) > 0 && (good || o.underflow) && moved != t.received:
		return violation(p, "%d bytes came, the residual says %d", t.received, moved)
	case len(cmd.Out) > 0 && good && moved > t.promised:
		return violation(p, "%d bytes taken, only %d were sent", moved, t.promised)
	case !good || cmd.Length == 0:
		return nil
	}
	var want outcome
	switch n := uint32(cmd.Length); {
	case n < expected:
		want = outcome{underflow: true, residual: expected - n}
	case n > expected:
		want = outcome{overflow: true, residual: n - expected}
	}
	if o.overflow != want.overflow || o.underflow != want.underflow || o.residual != want.residual {
		return violation(p, "residual of a command that moves %d bytes when %d are expected", cmd.Length, expected)
	}
	return nil
}
