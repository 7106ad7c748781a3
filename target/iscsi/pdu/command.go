// SPDX-License-Identifier: Apache-2.0

package pdu

// TaskAttribute is the ATTR field of a SCSI Command (RFC 7143 11.3.1).
type TaskAttribute uint8

// The task attributes.
const (
	Untagged TaskAttribute = iota
	Simple
	Ordered
	HeadOfQueue
	ACA
)

// SCSICommand is a SCSI Command PDU (RFC 7143 11.3).
type SCSICommand struct {
	Immediate                  bool
	Final                      bool
	Read                       bool
	Write                      bool
	Attribute                  TaskAttribute
	DataLength                 uint32 // of the immediate data, bytes
	LUN                        uint64
	InitiatorTaskTag           uint32
	ExpectedDataTransferLength uint32 // bytes
	CmdSN                      uint32
	ExpStatSN                  uint32
	CDB                        [16]byte
}

// Decode implements [PDU].
func (p *SCSICommand) Decode(h *BHS) {
	p.Immediate = h.Immediate()
	p.Final, p.Read, p.Write = h[1]&0x80 != 0, h[1]&0x40 != 0, h[1]&0x20 != 0
	p.Attribute = TaskAttribute(h[1] & 7)
	p.DataLength = uint32(h.DataSegmentLength())
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag = get32(h, 16)
	p.ExpectedDataTransferLength = get32(h, 20)
	p.CmdSN, p.ExpStatSN = get32(h, 24), get32(h, 28)
	copy(p.CDB[:], h[32:])
}

// Encode implements [PDU].
func (p *SCSICommand) Encode(h *BHS) {
	start(h, OpSCSICommand, p.Immediate, p.DataLength)
	h[1] = bit(p.Final, 0x80) | bit(p.Read, 0x40) | bit(p.Write, 0x20) | byte(p.Attribute&7)
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.ExpectedDataTransferLength)
	put32(h, 24, p.CmdSN)
	put32(h, 28, p.ExpStatSN)
	copy(h[32:], p.CDB[:])
}

func (p *SCSICommand) String() string { return describe("SCSI Command", p) }

// SCSIResponse is a SCSI Response PDU (RFC 7143 11.4).
type SCSIResponse struct {
	BidiOverflow     bool
	BidiUnderflow    bool
	Overflow         bool
	Underflow        bool
	Response         uint8 // iSCSI service response, RFC 7143 11.4.3
	Status           uint8 // SCSI status
	DataLength       uint32
	InitiatorTaskTag uint32
	SNACKTag         uint32
	Sequence
	ExpDataSN     uint32
	BidiResidual  uint32 // bytes
	ResidualCount uint32 // bytes
}

// Service responses of a SCSI Response (RFC 7143 11.4.3).
const (
	CommandCompleted = 0x00
	TargetFailure    = 0x01
)

// Decode implements [PDU].
func (p *SCSIResponse) Decode(h *BHS) {
	p.BidiOverflow, p.BidiUnderflow = h[1]&0x10 != 0, h[1]&0x08 != 0
	p.Overflow, p.Underflow = h[1]&0x04 != 0, h[1]&0x02 != 0
	p.Response, p.Status = h[2], h[3]
	p.DataLength = uint32(h.DataSegmentLength())
	p.InitiatorTaskTag, p.SNACKTag = get32(h, 16), get32(h, 20)
	p.Sequence.decode(h)
	p.ExpDataSN, p.BidiResidual, p.ResidualCount = get32(h, 36), get32(h, 40), get32(h, 44)
}

// Encode implements [PDU].
func (p *SCSIResponse) Encode(h *BHS) {
	start(h, OpSCSIResponse, false, p.DataLength)
	h[1] = 0x80 | bit(p.BidiOverflow, 0x10) | bit(p.BidiUnderflow, 0x08) | bit(p.Overflow, 0x04) | bit(p.Underflow, 0x02)
	h[2], h[3] = p.Response, p.Status
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.SNACKTag)
	p.Sequence.encode(h)
	put32(h, 36, p.ExpDataSN)
	put32(h, 40, p.BidiResidual)
	put32(h, 44, p.ResidualCount)
}

func (p *SCSIResponse) String() string { return describe("SCSI Response", p) }

// TaskFunction is the Function field of a task management request
// (RFC 7143 11.5.1).
type TaskFunction uint8

// The task management functions.
const (
	AbortTask TaskFunction = iota + 1
	AbortTaskSet
	ClearACA
	ClearTaskSet
	LogicalUnitReset
	TargetWarmReset
	TargetColdReset
	TaskReassign
)

// TaskManagementRequest is a Task Management Function Request (RFC 7143 11.5).
type TaskManagementRequest struct {
	Immediate         bool
	Function          TaskFunction
	LUN               uint64
	InitiatorTaskTag  uint32
	ReferencedTaskTag uint32
	CmdSN             uint32
	ExpStatSN         uint32
	RefCmdSN          uint32
	ExpDataSN         uint32
}

// Decode implements [PDU].
func (p *TaskManagementRequest) Decode(h *BHS) {
	p.Immediate, p.Function = h.Immediate(), TaskFunction(h[1]&0x7f)
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag, p.ReferencedTaskTag = get32(h, 16), get32(h, 20)
	p.CmdSN, p.ExpStatSN = get32(h, 24), get32(h, 28)
	p.RefCmdSN, p.ExpDataSN = get32(h, 32), get32(h, 36)
}

// Encode implements [PDU].
func (p *TaskManagementRequest) Encode(h *BHS) {
	start(h, OpTaskMgmtReq, p.Immediate, 0)
	h[1] = 0x80 | byte(p.Function&0x7f)
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.ReferencedTaskTag)
	put32(h, 24, p.CmdSN)
	put32(h, 28, p.ExpStatSN)
	put32(h, 32, p.RefCmdSN)
	put32(h, 36, p.ExpDataSN)
}

func (p *TaskManagementRequest) String() string {
	return describe("Task Management Function Request", p)
}

// Responses to a task management request (RFC 7143 11.6.1).
const (
	FunctionComplete            = 0
	TaskDoesNotExist            = 1
	LUNDoesNotExist             = 2
	TaskStillAllegiant          = 3
	AllegianceReassignUnsupport = 4
	FunctionNotSupported        = 5
	FunctionAuthFailed          = 6
	FunctionRejected            = 255
)

// TaskManagementResponse is a Task Management Function Response (RFC 7143 11.6).
type TaskManagementResponse struct {
	Response         uint8
	InitiatorTaskTag uint32
	Sequence
}

// Decode implements [PDU].
func (p *TaskManagementResponse) Decode(h *BHS) {
	p.Response = h[2]
	p.InitiatorTaskTag = get32(h, 16)
	p.Sequence.decode(h)
}

// Encode implements [PDU].
func (p *TaskManagementResponse) Encode(h *BHS) {
	start(h, OpTaskMgmtResp, false, 0)
	h[1], h[2] = 0x80, p.Response
	put32(h, 16, p.InitiatorTaskTag)
	p.Sequence.encode(h)
}

func (p *TaskManagementResponse) String() string {
	return describe("Task Management Function Response", p)
}
