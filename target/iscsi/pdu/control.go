// SPDX-License-Identifier: Apache-2.0

package pdu

// Reasons of a logout request (RFC 7143 11.14.1).
const (
	CloseSession      = 0
	CloseConnection   = 1
	RemoveForRecovery = 2
)

// LogoutRequest is a Logout Request PDU (RFC 7143 11.14).
type LogoutRequest struct {
	Immediate        bool
	Reason           uint8
	InitiatorTaskTag uint32
	CID              uint16
	CmdSN            uint32
	ExpStatSN        uint32
}

// Decode implements [PDU].
func (p *LogoutRequest) Decode(h *BHS) {
	p.Immediate, p.Reason = h.Immediate(), h[1]&0x7f
	p.InitiatorTaskTag, p.CID = get32(h, 16), get16(h, 20)
	p.CmdSN, p.ExpStatSN = get32(h, 24), get32(h, 28)
}

// Encode implements [PDU].
func (p *LogoutRequest) Encode(h *BHS) {
	start(h, OpLogoutReq, p.Immediate, 0)
	h[1] = 0x80 | p.Reason&0x7f
	put32(h, 16, p.InitiatorTaskTag)
	put16(h, 20, p.CID)
	put32(h, 24, p.CmdSN)
	put32(h, 28, p.ExpStatSN)
}

func (p *LogoutRequest) String() string { return describe("Logout Request", p) }

// Responses to a logout request (RFC 7143 11.15.1).
const (
	LogoutSuccess       = 0
	LogoutCIDNotFound   = 1
	LogoutNoRecovery    = 2
	LogoutCleanupFailed = 3
)

// LogoutResponse is a Logout Response PDU (RFC 7143 11.15).
type LogoutResponse struct {
	Response         uint8
	InitiatorTaskTag uint32
	Sequence
	Time2Wait   uint16 // seconds
	Time2Retain uint16 // seconds
}

// Decode implements [PDU].
func (p *LogoutResponse) Decode(h *BHS) {
	p.Response = h[2]
	p.InitiatorTaskTag = get32(h, 16)
	p.Sequence.decode(h)
	p.Time2Wait, p.Time2Retain = get16(h, 40), get16(h, 42)
}

// Encode implements [PDU].
func (p *LogoutResponse) Encode(h *BHS) {
	start(h, OpLogoutResp, false, 0)
	h[1], h[2] = 0x80, p.Response
	put32(h, 16, p.InitiatorTaskTag)
	p.Sequence.encode(h)
	put16(h, 40, p.Time2Wait)
	put16(h, 42, p.Time2Retain)
}

func (p *LogoutResponse) String() string { return describe("Logout Response", p) }

// SNACKRequest is a SNACK Request PDU (RFC 7143 11.16).
type SNACKRequest struct {
	Type              uint8
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	ExpStatSN         uint32
	BegRun            uint32
	RunLength         uint32
}

// Decode implements [PDU].
func (p *SNACKRequest) Decode(h *BHS) {
	p.Type, p.LUN = h[1]&0x0f, get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.ExpStatSN, p.BegRun, p.RunLength = get32(h, 28), get32(h, 40), get32(h, 44)
}

// Encode implements [PDU].
func (p *SNACKRequest) Encode(h *BHS) {
	start(h, OpSNACKReq, false, 0)
	h[1] = 0x80 | p.Type&0x0f
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	put32(h, 28, p.ExpStatSN)
	put32(h, 40, p.BegRun)
	put32(h, 44, p.RunLength)
}

func (p *SNACKRequest) String() string { return describe("SNACK Request", p) }

// RejectReason says why a PDU was rejected (RFC 7143 11.17.1).
type RejectReason uint8

// The reasons.
const (
	DataDigestError     RejectReason = 0x02
	SNACKReject         RejectReason = 0x03
	ProtocolError       RejectReason = 0x04
	CommandNotSupported RejectReason = 0x05
	ImmediateCmdReject  RejectReason = 0x06
	TaskInProgress      RejectReason = 0x07
	InvalidDataACK      RejectReason = 0x08
	InvalidPDUField     RejectReason = 0x09
	LongOperationReject RejectReason = 0x0a
	WaitingForLogout    RejectReason = 0x0c
)

// Reject is a Reject PDU (RFC 7143 11.17). Its data segment is the header of
// the PDU that was rejected.
type Reject struct {
	Reason     RejectReason
	DataLength uint32
	Sequence
	DataSN uint32
}

// Decode implements [PDU].
func (p *Reject) Decode(h *BHS) {
	p.Reason, p.DataLength = RejectReason(h[2]), uint32(h.DataSegmentLength())
	p.Sequence.decode(h)
	p.DataSN = get32(h, 36)
}

// Encode implements [PDU].
func (p *Reject) Encode(h *BHS) {
	start(h, OpReject, false, p.DataLength)
	h[1], h[2] = 0x80, byte(p.Reason)
	put32(h, 16, ReservedTag)
	p.Sequence.encode(h)
	put32(h, 36, p.DataSN)
}

func (p *Reject) String() string { return describe("Reject", p) }

// NOPOut is a NOP-Out PDU (RFC 7143 11.18).
type NOPOut struct {
	Immediate         bool
	DataLength        uint32
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	CmdSN             uint32
	ExpStatSN         uint32
}

// Decode implements [PDU].
func (p *NOPOut) Decode(h *BHS) {
	p.Immediate, p.DataLength = h.Immediate(), uint32(h.DataSegmentLength())
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.CmdSN, p.ExpStatSN = get32(h, 24), get32(h, 28)
}

// Encode implements [PDU].
func (p *NOPOut) Encode(h *BHS) {
	start(h, OpNOPOut, p.Immediate, p.DataLength)
	h[1] = 0x80
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	put32(h, 24, p.CmdSN)
	put32(h, 28, p.ExpStatSN)
}

func (p *NOPOut) String() string { return describe("NOP-Out", p) }

// NOPIn is a NOP-In PDU (RFC 7143 11.19).
type NOPIn struct {
	DataLength        uint32
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	Sequence
}

// Decode implements [PDU].
func (p *NOPIn) Decode(h *BHS) {
	p.DataLength, p.LUN = uint32(h.DataSegmentLength()), get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.Sequence.decode(h)
}

// Encode implements [PDU].
func (p *NOPIn) Encode(h *BHS) {
	start(h, OpNOPIn, false, p.DataLength)
	h[1] = 0x80
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	p.Sequence.encode(h)
}

func (p *NOPIn) String() string { return describe("NOP-In", p) }

// AsyncEvent is the event of an asynchronous message (RFC 7143 11.9.1).
type AsyncEvent uint8

// The events.
const (
	AsyncSCSI             AsyncEvent = 0
	AsyncLogoutRequest    AsyncEvent = 1
	AsyncDropConnection   AsyncEvent = 2
	AsyncDropSession      AsyncEvent = 3
	AsyncNegotiateRequest AsyncEvent = 4
	AsyncTasksTerminated  AsyncEvent = 5
)

// AsyncMessage is an Asynchronous Message PDU (RFC 7143 11.9).
type AsyncMessage struct {
	DataLength uint32
	LUN        uint64
	Sequence
	Event      AsyncEvent
	VCode      uint8
	Parameter1 uint16
	Parameter2 uint16
	Parameter3 uint16
}

// Decode implements [PDU].
func (p *AsyncMessage) Decode(h *BHS) {
	p.DataLength, p.LUN = uint32(h.DataSegmentLength()), get64(h, 8)
	p.Sequence.decode(h)
	p.Event, p.VCode = AsyncEvent(h[36]), h[37]
	p.Parameter1, p.Parameter2, p.Parameter3 = get16(h, 38), get16(h, 40), get16(h, 42)
}

// Encode implements [PDU].
func (p *AsyncMessage) Encode(h *BHS) {
	start(h, OpAsyncMessage, false, p.DataLength)
	h[1] = 0x80
	put64(h, 8, p.LUN)
	put32(h, 16, ReservedTag)
	p.Sequence.encode(h)
	h[36], h[37] = byte(p.Event), p.VCode
	put16(h, 38, p.Parameter1)
	put16(h, 40, p.Parameter2)
	put16(h, 42, p.Parameter3)
}

func (p *AsyncMessage) String() string { return describe("Asynchronous Message", p) }
