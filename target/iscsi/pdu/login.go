// SPDX-License-Identifier: Apache-2.0

package pdu

// ISID is an initiator session ID (RFC 7143 11.12.5).
type ISID [6]byte

// Stage is a stage of the login phase (RFC 7143 11.12.3).
type Stage uint8

// The stages.
const (
	SecurityNegotiation         Stage = 0
	LoginOperationalNegotiation Stage = 1
	FullFeaturePhase            Stage = 3
)

// LoginRequest is a Login Request PDU (RFC 7143 11.12). It is always immediate.
type LoginRequest struct {
	Transit          bool
	Continue         bool
	CSG              Stage
	NSG              Stage
	VersionMax       uint8
	VersionMin       uint8
	DataLength       uint32
	ISID             ISID
	TSIH             uint16
	InitiatorTaskTag uint32
	CID              uint16
	CmdSN            uint32
	ExpStatSN        uint32
}

// Decode implements [PDU].
func (p *LoginRequest) Decode(h *BHS) {
	p.Transit, p.Continue = h[1]&0x80 != 0, h[1]&0x40 != 0
	p.CSG, p.NSG = Stage(h[1]>>2&3), Stage(h[1]&3)
	p.VersionMax, p.VersionMin = h[2], h[3]
	p.DataLength = uint32(h.DataSegmentLength())
	copy(p.ISID[:], h[8:])
	p.TSIH = get16(h, 14)
	p.InitiatorTaskTag = get32(h, 16)
	p.CID = get16(h, 20)
	p.CmdSN, p.ExpStatSN = get32(h, 24), get32(h, 28)
}

// Encode implements [PDU].
func (p *LoginRequest) Encode(h *BHS) {
	start(h, OpLoginReq, true, p.DataLength)
	h[1] = bit(p.Transit, 0x80) | bit(p.Continue, 0x40) | byte(p.CSG&3)<<2 | byte(p.NSG&3)
	h[2], h[3] = p.VersionMax, p.VersionMin
	copy(h[8:], p.ISID[:])
	put16(h, 14, p.TSIH)
	put32(h, 16, p.InitiatorTaskTag)
	put16(h, 20, p.CID)
	put32(h, 24, p.CmdSN)
	put32(h, 28, p.ExpStatSN)
}

func (p *LoginRequest) String() string { return describe("Login Request", p) }

// LoginStatus is the status class and detail of a login response
// (RFC 7143 11.13.5).
type LoginStatus uint16

// The login statuses.
const (
	LoginSuccess            LoginStatus = 0x0000
	TargetMovedTemporarily  LoginStatus = 0x0101
	TargetMovedPermanently  LoginStatus = 0x0102
	InitiatorError          LoginStatus = 0x0200
	AuthenticationFailure   LoginStatus = 0x0201
	AuthorizationFailure    LoginStatus = 0x0202
	TargetNotFound          LoginStatus = 0x0203
	TargetRemoved           LoginStatus = 0x0204
	UnsupportedVersion      LoginStatus = 0x0205
	TooManyConnections      LoginStatus = 0x0206
	MissingParameter        LoginStatus = 0x0207
	CantIncludeInSession    LoginStatus = 0x0208
	SessionTypeNotSupported LoginStatus = 0x0209
	SessionDoesNotExist     LoginStatus = 0x020a
	InvalidDuringLogin      LoginStatus = 0x020b
	TargetError             LoginStatus = 0x0300
	ServiceUnavailable      LoginStatus = 0x0301
	OutOfResources          LoginStatus = 0x0302
)

// LoginResponse is a Login Response PDU (RFC 7143 11.13).
type LoginResponse struct {
	Transit          bool
	Continue         bool
	CSG              Stage
	NSG              Stage
	VersionMax       uint8
	VersionActive    uint8
	DataLength       uint32
	ISID             ISID
	TSIH             uint16
	InitiatorTaskTag uint32
	Sequence
	Status LoginStatus
}

// Decode implements [PDU].
func (p *LoginResponse) Decode(h *BHS) {
	p.Transit, p.Continue = h[1]&0x80 != 0, h[1]&0x40 != 0
	p.CSG, p.NSG = Stage(h[1]>>2&3), Stage(h[1]&3)
	p.VersionMax, p.VersionActive = h[2], h[3]
	p.DataLength = uint32(h.DataSegmentLength())
	copy(p.ISID[:], h[8:])
	p.TSIH = get16(h, 14)
	p.InitiatorTaskTag = get32(h, 16)
	p.Sequence.decode(h)
	p.Status = LoginStatus(get16(h, 36))
}

// Encode implements [PDU].
func (p *LoginResponse) Encode(h *BHS) {
	start(h, OpLoginResp, false, p.DataLength)
	h[1] = bit(p.Transit, 0x80) | bit(p.Continue, 0x40) | byte(p.CSG&3)<<2 | byte(p.NSG&3)
	h[2], h[3] = p.VersionMax, p.VersionActive
	copy(h[8:], p.ISID[:])
	put16(h, 14, p.TSIH)
	put32(h, 16, p.InitiatorTaskTag)
	p.Sequence.encode(h)
	put16(h, 36, uint16(p.Status))
}

func (p *LoginResponse) String() string { return describe("Login Response", p) }

// TextRequest is a Text Request PDU (RFC 7143 11.10).
type TextRequest struct {
	Immediate         bool
	Final             bool
	Continue          bool
	DataLength        uint32
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	CmdSN             uint32
	ExpStatSN         uint32
}

// Decode implements [PDU].
func (p *TextRequest) Decode(h *BHS) {
	p.Immediate, p.Final, p.Continue = h.Immediate(), h[1]&0x80 != 0, h[1]&0x40 != 0
	p.DataLength = uint32(h.DataSegmentLength())
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.CmdSN, p.ExpStatSN = get32(h, 24), get32(h, 28)
}

// Encode implements [PDU].
func (p *TextRequest) Encode(h *BHS) {
	start(h, OpTextReq, p.Immediate, p.DataLength)
	h[1] = bit(p.Final, 0x80) | bit(p.Continue, 0x40)
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	put32(h, 24, p.CmdSN)
	put32(h, 28, p.ExpStatSN)
}

func (p *TextRequest) String() string { return describe("Text Request", p) }

// TextResponse is a Text Response PDU (RFC 7143 11.11).
type TextResponse struct {
	Final             bool
	Continue          bool
	DataLength        uint32
	LUN               uint64
	InitiatorTaskTag  uint32
	TargetTransferTag uint32
	Sequence
}

// Decode implements [PDU].
func (p *TextResponse) Decode(h *BHS) {
	p.Final, p.Continue = h[1]&0x80 != 0, h[1]&0x40 != 0
	p.DataLength = uint32(h.DataSegmentLength())
	p.LUN = get64(h, 8)
	p.InitiatorTaskTag, p.TargetTransferTag = get32(h, 16), get32(h, 20)
	p.Sequence.decode(h)
}

// Encode implements [PDU].
func (p *TextResponse) Encode(h *BHS) {
	start(h, OpTextResp, false, p.DataLength)
	h[1] = bit(p.Final, 0x80) | bit(p.Continue, 0x40)
	put64(h, 8, p.LUN)
	put32(h, 16, p.InitiatorTaskTag)
	put32(h, 20, p.TargetTransferTag)
	p.Sequence.encode(h)
}

func (p *TextResponse) String() string { return describe("Text Response", p) }
