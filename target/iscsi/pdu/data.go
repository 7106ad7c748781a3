// SPDX-License-Identifier: Apache-2.0

package pdu

// DataOut is a SCSI Data-Out PDU (RFC 7143 11.7).
type DataOut struct {
	Final             bool
	DataLength        uint32
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	ExpStatSN         uint32
	DataSN            uint32
	BufferOffset      uint32 // bytes
}

// Decode implements [PDU].
func (p *DataOut) Decode(h *BHS) {
	p.Final, p.DataLength = h[1]&0x80 != 0, uint32(h.DataSegmentLength())
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.ExpStatSN, p.DataSN, p.BufferOffset = get32(h, 28), get32(h, 36), get32(h, 40)
}

// Encode implements [PDU].
func (p *DataOut) Encode(h *BHS) {
	start(h, OpDataOut, false, p.DataLength)
	h[1] = bit(p.Final, 0x80)
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	put32(h, 28, p.ExpStatSN)
	put32(h, 36, p.DataSN)
	put32(h, 40, p.BufferOffset)
}

func (p *DataOut) String() string { return describe("SCSI Data-Out", p) }

// DataIn is a SCSI Data-In PDU (RFC 7143 11.7). StatSN, Status and the
// residual mean something only when HasStatus is set.
type DataIn struct {
	Final             bool
	Acknowledge       bool
	Overflow          bool
	Underflow         bool
	HasStatus         bool // the S bit
	Status            uint8
	DataLength        uint32
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	Sequence
	DataSN        uint32
	BufferOffset  uint32 // bytes
	ResidualCount uint32 // bytes
}

// Decode implements [PDU].
func (p *DataIn) Decode(h *BHS) {
	p.Final, p.Acknowledge = h[1]&0x80 != 0, h[1]&0x40 != 0
	p.Overflow, p.Underflow, p.HasStatus = h[1]&0x04 != 0, h[1]&0x02 != 0, h[1]&0x01 != 0
	p.Status, p.DataLength = h[3], uint32(h.DataSegmentLength())
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.Sequence.decode(h)
	p.DataSN, p.BufferOffset, p.ResidualCount = get32(h, 36), get32(h, 40), get32(h, 44)
}

// Encode implements [PDU].
func (p *DataIn) Encode(h *BHS) {
	start(h, OpDataIn, false, p.DataLength)
	h[1] = bit(p.Final, 0x80) | bit(p.Acknowledge, 0x40) | bit(p.Overflow, 0x04) | bit(p.Underflow, 0x02) | bit(p.HasStatus, 0x01)
	h[3] = p.Status
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	p.Sequence.encode(h)
	put32(h, 36, p.DataSN)
	put32(h, 40, p.BufferOffset)
	put32(h, 44, p.ResidualCount)
}

func (p *DataIn) String() string { return describe("SCSI Data-In", p) }

// R2T is a Ready To Transfer PDU (RFC 7143 11.8).
type R2T struct {
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	Sequence
	R2TSN                     uint32
	BufferOffset              uint32 // bytes
	DesiredDataTransferLength uint32 // bytes
}

// Decode implements [PDU].
func (p *R2T) Decode(h *BHS) {
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.Sequence.decode(h)
	p.R2TSN, p.BufferOffset, p.DesiredDataTransferLength = get32(h, 36), get32(h, 40), get32(h, 44)
}

// Encode implements [PDU].
func (p *R2T) Encode(h *BHS) {
	start(h, OpR2T, false, 0)
	h[1] = 0x80
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	p.Sequence.encode(h)
	put32(h, 36, p.R2TSN)
	put32(h, 40, p.BufferOffset)
	put32(h, 44, p.DesiredDataTransferLength)
}

func (p *R2T) String() string { return describe("R2T", p) }
