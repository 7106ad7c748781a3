// SPDX-License-Identifier: Apache-2.0

// Package pdu is the wire format of iSCSI (RFC 7143 11): one type for each
// PDU, the text format of login and text negotiation, and the CRC32C digests.
//
// A PDU is a basic header segment of 48 bytes, additional header segments, an
// optional header digest, and a data segment padded to four bytes with an
// optional data digest. The types here are the basic header segment; the
// segments behind it stay with whoever owns the bytes.
package pdu

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
)

const (
	// BHSLen is the length of a basic header segment in bytes.
	BHSLen = 48
	// DigestLen is the length of a header or data digest in bytes.
	DigestLen = 4
	// MaxDataSegment is the longest data segment that a header can announce.
	MaxDataSegment = 1<<24 - 1
	// ReservedTag is the value of a task tag that names no task
	// (RFC 7143 11.2.1.8 and 11.7.4).
	ReservedTag = 0xffffffff
)

// Opcode says what a PDU is (RFC 7143 11.2.1.2).
type Opcode uint8

// Opcodes of the initiator.
const (
	OpNOPOut      Opcode = 0x00
	OpSCSICommand Opcode = 0x01
	OpTaskMgmtReq Opcode = 0x02
	OpLoginReq    Opcode = 0x03
	OpTextReq     Opcode = 0x04
	OpDataOut     Opcode = 0x05
	OpLogoutReq   Opcode = 0x06
	OpSNACKReq    Opcode = 0x10
)

// Opcodes of the target.
const (
	OpNOPIn        Opcode = 0x20
	OpSCSIResponse Opcode = 0x21
	OpTaskMgmtResp Opcode = 0x22
	OpLoginResp    Opcode = 0x23
	OpTextResp     Opcode = 0x24
	OpDataIn       Opcode = 0x25
	OpLogoutResp   Opcode = 0x26
	OpR2T          Opcode = 0x31
	OpAsyncMessage Opcode = 0x32
	OpReject       Opcode = 0x3f
)

// BHS is a basic header segment as it is on the wire.
type BHS [BHSLen]byte

// Opcode returns what the header says the PDU is.
func (h *BHS) Opcode() Opcode { return Opcode(h[0] & 0x3f) }

// Immediate returns the I bit of an initiator's PDU.
func (h *BHS) Immediate() bool { return h[0]&0x40 != 0 }

// TotalAHSLength returns the length of the additional header segments in bytes.
func (h *BHS) TotalAHSLength() int { return int(h[4]) * 4 }

// DataSegmentLength returns the length of the data segment in bytes, without padding.
func (h *BHS) DataSegmentLength() int {
	return int(h[5])<<16 | int(h[6])<<8 | int(h[7])
}

// CmdSN returns the command sequence number of an initiator's request.
func (h *BHS) CmdSN() uint32 { return binary.BigEndian.Uint32(h[24:]) }

// InitiatorTaskTag returns the tag that all PDUs of one task share.
func (h *BHS) InitiatorTaskTag() uint32 { return binary.BigEndian.Uint32(h[16:]) }

// BufferOffset returns the field of a Data-Out.
func (h *BHS) BufferOffset() uint32 { return binary.BigEndian.Uint32(h[40:]) }

// ExpectedDataTransferLength returns the field of a SCSI Command.
func (h *BHS) ExpectedDataTransferLength() uint32 { return binary.BigEndian.Uint32(h[20:]) }

// Padded returns n rounded up to the next multiple of four.
func Padded(n int) int { return (n + 3) &^ 3 }

// A PDU is one of the types of this package.
type PDU interface {
	fmt.Stringer
	// Encode writes the whole basic header segment.
	Encode(*BHS)
	// Decode reads a basic header segment that has the type's opcode. Every
	// sequence of 48 bytes decodes; what a field may hold is for the
	// receiver to judge.
	Decode(*BHS)
}

// New returns an empty PDU of the type that op names, or nil for an opcode
// that RFC 7143 does not define.
func New(op Opcode) PDU {
	switch op {
	case OpNOPOut:
		return new(NOPOut)
	case OpSCSICommand:
		return new(SCSICommand)
	case OpTaskMgmtReq:
		return new(TaskManagementRequest)
	case OpLoginReq:
		return new(LoginRequest)
	case OpTextReq:
		return new(TextRequest)
	case OpDataOut:
		return new(DataOut)
	case OpLogoutReq:
		return new(LogoutRequest)
	case OpSNACKReq:
		return new(SNACKRequest)
	case OpNOPIn:
		return new(NOPIn)
	case OpSCSIResponse:
		return new(SCSIResponse)
	case OpTaskMgmtResp:
		return new(TaskManagementResponse)
	case OpLoginResp:
		return new(LoginResponse)
	case OpTextResp:
		return new(TextResponse)
	case OpDataIn:
		return new(DataIn)
	case OpLogoutResp:
		return new(LogoutResponse)
	case OpR2T:
		return new(R2T)
	case OpAsyncMessage:
		return new(AsyncMessage)
	case OpReject:
		return new(Reject)
	}
	return nil
}

// Sequence holds the three sequence numbers that every PDU of the target carries.
type Sequence struct {
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
}

func (s *Sequence) encode(h *BHS) { h.PutSequence(*s) }

// PutSequence writes the sequence numbers into an encoded PDU of the target.
func (h *BHS) PutSequence(s Sequence) {
	put32(h, 24, s.StatSN)
	put32(h, 28, s.ExpCmdSN)
	put32(h, 32, s.MaxCmdSN)
}

// PutStatSN writes StatSN alone.
func (h *BHS) PutStatSN(v uint32) { put32(h, 24, v) }

func (s *Sequence) decode(h *BHS) {
	s.StatSN, s.ExpCmdSN, s.MaxCmdSN = get32(h, 24), get32(h, 28), get32(h, 32)
}

// SNLess reports whether a comes before b in serial number arithmetic
// (RFC 1982, as RFC 7143 4.2.2.1 wants for all sequence numbers).
func SNLess(a, b uint32) bool { return int32(a-b) < 0 }

func get16(h *BHS, at int) uint16    { return binary.BigEndian.Uint16(h[at:]) }
func get32(h *BHS, at int) uint32    { return binary.BigEndian.Uint32(h[at:]) }
func get64(h *BHS, at int) uint64    { return binary.BigEndian.Uint64(h[at:]) }
func put16(h *BHS, at int, v uint16) { binary.BigEndian.PutUint16(h[at:], v) }
func put32(h *BHS, at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }
func put64(h *BHS, at int, v uint64) { binary.BigEndian.PutUint64(h[at:], v) }

// start clears h and writes the first byte and the data segment's length.
func start(h *BHS, op Opcode, immediate bool, dataLength uint32) {
	*h = BHS{0: byte(op)}
	if immediate {
		h[0] |= 0x40
	}
	h[5], h[6], h[7] = byte(dataLength>>16), byte(dataLength>>8), byte(dataLength)
}

// bit returns v when on, otherwise 0.
func bit(on bool, v byte) byte {
	if on {
		return v
	}
	return 0
}

// describe prints a PDU as "Name field=value ...", leaving out zero fields.
func describe(name string, p any) string {
	var b strings.Builder
	b.WriteString(name)
	describeFields(&b, reflect.ValueOf(p).Elem())
	return b.String()
}

func describeFields(b *strings.Builder, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case f.Anonymous:
			describeFields(b, v.Field(i))
		case v.Field(i).IsZero():
		case v.Field(i).Kind() == reflect.Array, strings.HasSuffix(f.Name, "Tag"), f.Name == "LUN":
			fmt.Fprintf(b, " %s=%#x", f.Name, v.Field(i).Interface())
		default:
			fmt.Fprintf(b, " %s=%v", f.Name, v.Field(i).Interface())
		}
	}
}
