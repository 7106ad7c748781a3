// SPDX-License-Identifier: Apache-2.0

package journal

// Records as their owners have them, and how they stand in the file. All numbers are little-endian.

// An Extent is a piece of the arena; the zero Extent is none.
type Extent struct {
	Offset int64
	Length uint32
}

const extentLen = 16

// An offset is stored plus one, so that zeros are no place.
func (e Extent) encode(p []byte) {
	if e.Length == 0 {
		e.Offset = -1
	}
	le.PutUint64(p, uint64(e.Offset+1))
	le.PutUint64(p[8:], uint64(e.Length))
}

func (e *Extent) decode(p []byte) {
	*e = Extent{}
	if n := le.Uint32(p[8:]); n > 0 {
		e.Offset, e.Length = int64(le.Uint64(p))-1, n
	}
}

// SessionRecord is what changes of a session with its requests.
type SessionRecord struct {
	ExpCmdSN, MaxCmdSN uint32
	LastTTT            uint32
	Flags              uint32 // the owner's: resetting, ending, why
	Arrivals           uint64
	Leave              int64  // when it has to have logged out, see package boottime; 0 for not at all
	LSN                uint64 // of the last control transaction that is applied to it

	TextITT, TextTTT uint32
	TextIn, TextOut  Extent
}

const sessionRecordLen = 96

func (r *SessionRecord) encode(p []byte) {
	_ = p[sessionRecordLen-1]
	le.PutUint32(p[8:], r.ExpCmdSN)
	le.PutUint32(p[12:], r.MaxCmdSN)
	le.PutUint32(p[16:], r.LastTTT)
	le.PutUint32(p[20:], r.Flags)
	le.PutUint64(p[24:], r.Arrivals)
	le.PutUint64(p[32:], uint64(r.Leave))
	le.PutUint64(p[40:], r.LSN)
	le.PutUint32(p[48:], r.TextITT)
	le.PutUint32(p[52:], r.TextTTT)
	r.TextIn.encode(p[56:])
	r.TextOut.encode(p[72:])
}

func (r *SessionRecord) decode(p []byte) {
	r.ExpCmdSN, r.MaxCmdSN, r.LastTTT, r.Flags = le.Uint32(p[8:]), le.Uint32(p[12:]), le.Uint32(p[16:]), le.Uint32(p[20:])
	r.Arrivals, r.Leave, r.LSN = le.Uint64(p[24:]), int64(le.Uint64(p[32:])), le.Uint64(p[40:])
	r.TextITT, r.TextTTT = le.Uint32(p[48:]), le.Uint32(p[52:])
	r.TextIn.decode(p[56:])
	r.TextOut.decode(p[72:])
}

// ConnRecord is what changes of a connection with the requests of its session.
type ConnRecord struct {
	// Consumed is the stream offset behind the last PDU that has had its effect. It is ahead of what was read
	// while a data segment for which there is no memory is passed over.
	Consumed uint64
	OutTail  uint64 // the next place in the order of responses
	Flags    uint32 // the owner's: leaving, last
}

const connRecordLen = 32

func (r *ConnRecord) encode(p []byte) {
	_ = p[connRecordLen-1]
	le.PutUint64(p[8:], r.Consumed)
	le.PutUint64(p[16:], r.OutTail)
	le.PutUint64(p[24:], uint64(r.Flags))
}

func (r *ConnRecord) decode(p []byte) {
	r.Consumed, r.OutTail, r.Flags = le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint32(p[24:])
}

// Input is where bytes are read to: from stream offset Base to the start of Bulk into Chunk, then into Bulk, which is a
// long data segment, then into Chunk again.
type Input struct {
	Chunk, Bulk Extent
	Base        uint64 // stream offset of the first byte of Chunk
	BulkFrom    uint64 // stream offset of the first byte of Bulk
}

const inputLen = 56

func (r *Input) encode(p []byte) {
	_ = p[inputLen-1]
	r.Chunk.encode(p[8:])
	r.Bulk.encode(p[24:])
	le.PutUint64(p[40:], r.Base)
	le.PutUint64(p[48:], r.BulkFrom)
}

func (r *Input) decode(p []byte) {
	r.Chunk.decode(p[8:])
	r.Bulk.decode(p[24:])
	r.Base, r.BulkFrom = le.Uint64(p[40:]), le.Uint64(p[48:])
}

// Kind says what is in a slot.
type Kind uint8

const (
	Command    Kind = iota + 1 // a SCSI command
	Skipped                    // a CmdSN that is used up in its turn; of no connection
	Request                    // another request that is ahead of its turn
	Management                 // a task management function or logout whose response is deferred
)

// R2T is one that is not answered in whole (RFC 7143 11.8).
type R2T struct{ TTT, Offset, Length, DataSN uint32 }

const (
	maxR2T = 8
	r2tLen = 16

	// SenseLength is the most sense data that a slot has, in bytes.
	SenseLength = 252
)

// Slot is a request that has had an effect and is not answered in whole.
type Slot struct {
	Kind   Kind
	State  uint8 // the owner's
	Flags  uint8 // the owner's
	Status uint8 // SCSI status, or response code of a task management function
	Broken uint16

	// Queued says that its outcome is known and that its response has the place Out in the order of
	// its connection. The slot is free when that is with the kernel, without any store.
	Queued bool
	Out    uint64

	Conn     *Conn // nil for Skipped
	Header   [48]byte
	Order    uint64 // of delivery
	Data     Extent // data-out that has arrived, or has room in this buffer
	In       Extent // data-in
	InLength uint32 // residuals are computed of it
	Received uint32
	OutSN    uint32
	Asked    uint32
	R2TSN    uint32
	R2Ts     []R2T // at most 8
	Progress uint64

	// Sense is sense data. Once committed it stays as it is while the slot is in use.
	Sense []byte
}

const (
	slotRecordLen = 168

	queuedFlag = 1 // of the flags that are the journal's
)

func (r *Slot) encode(p []byte) {
	_ = p[slotRecordLen-1]
	copy(p[8:56], r.Header[:])
	flags := uint32(r.Kind) | uint32(r.State)<<8 | uint32(r.Flags)<<16 | uint32(r.Status)<<24
	le.PutUint32(p[56:], flags)
	own, conn, serial := uint16(0), uint32(0), uint64(0)
	if r.Queued {
		own = queuedFlag
	}
	if r.Conn != nil {
		conn, serial = r.Conn.n, r.Conn.serial
	}
	le.PutUint32(p[60:], conn)
	le.PutUint64(p[64:], serial)
	le.PutUint64(p[72:], r.Order)
	le.PutUint64(p[80:], r.Out)
	r.Data.encode(p[88:])
	r.In.encode(p[104:])
	le.PutUint32(p[120:], r.Received)
	le.PutUint32(p[124:], r.OutSN)
	le.PutUint32(p[128:], r.Asked)
	le.PutUint32(p[132:], r.R2TSN)
	le.PutUint16(p[136:], r.Broken)
	le.PutUint16(p[138:], uint16(len(r.Sense)))
	le.PutUint16(p[140:], uint16(len(r.R2Ts)))
	le.PutUint16(p[142:], own)
	le.PutUint64(p[144:], uint64(r.InLength))
	le.PutUint64(p[152:], r.Progress)
}

// slotConn is the connection that a slot names, by its region and serial.
type slotConn struct {
	n      uint32
	serial uint64
}

// decode reads all but the sense data and the R2Ts, of which it tells the numbers.
func (r *Slot) decode(p []byte) (conn slotConn, sense, r2ts int) {
	copy(r.Header[:], p[8:56])
	flags := le.Uint32(p[56:])
	r.Kind, r.State, r.Flags, r.Status = Kind(flags), uint8(flags>>8), uint8(flags>>16), uint8(flags>>24)
	conn = slotConn{le.Uint32(p[60:]), le.Uint64(p[64:])}
	r.Order, r.Out = le.Uint64(p[72:]), le.Uint64(p[80:])
	r.Data.decode(p[88:])
	r.In.decode(p[104:])
	r.Received, r.OutSN, r.Asked, r.R2TSN = le.Uint32(p[120:]), le.Uint32(p[124:]), le.Uint32(p[128:]), le.Uint32(p[132:])
	r.Broken = le.Uint16(p[136:])
	r.Queued = le.Uint16(p[142:])&queuedFlag != 0
	r.InLength, r.Progress = le.Uint32(p[144:]), le.Uint64(p[152:])
	return conn, int(le.Uint16(p[138:])), int(le.Uint16(p[140:]))
}

// PDU is a response that comes of no slot: its header but for the sequence numbers, and its data segment.
type PDU struct {
	Out    uint64 // place in the order of its connection
	Header [48]byte
	Data   Extent
	Status bool // it carries status, so that StatSN goes up
}

const pduLen = 96

func (r *PDU) encode(p []byte) {
	_ = p[pduLen-1]
	le.PutUint64(p[8:], r.Out)
	copy(p[16:64], r.Header[:])
	r.Data.encode(p[64:])
	v := uint64(0)
	if r.Status {
		v = 1
	}
	le.PutUint64(p[80:], v)
}

func (r *PDU) decode(p []byte) {
	r.Out = le.Uint64(p[8:])
	copy(r.Header[:], p[16:64])
	r.Data.decode(p[64:])
	r.Status = le.Uint64(p[80:])&1 != 0
}

// BatchRecord is one vectored write: PDUs that have their sequence numbers.
type BatchRecord struct {
	Start, Total  uint64 // stream offset of its first byte, and how many bytes it has
	Head, NewHead uint64 // places in the order of responses: the first that is in it, and the first that is not in it in whole
	StatSN        uint32 // of the next PDU that carries status

	// The slot whose response has the place NewHead, if some of its Data-In PDUs have been encoded: how many bytes are
	// in these, and the next DataSN. 0 for none.
	Part   uint16
	InSent uint32
	DataSN uint32
}

const batchRecordLen = 64

func (r *BatchRecord) encode(p []byte, pieces int) {
	_ = p[batchRecordLen-1]
	le.PutUint64(p[8:], r.Start)
	le.PutUint64(p[16:], r.Total)
	le.PutUint64(p[24:], r.Head)
	le.PutUint64(p[32:], r.NewHead)
	le.PutUint32(p[40:], r.StatSN)
	le.PutUint16(p[44:], uint16(pieces))
	le.PutUint16(p[46:], r.Part)
	le.PutUint32(p[48:], r.InSent)
	le.PutUint32(p[52:], r.DataSN)
}

func (r *BatchRecord) decode(p []byte) (pieces int) {
	r.Start, r.Total, r.Head, r.NewHead = le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:]), le.Uint64(p[32:])
	r.StatSN, r.Part, r.InSent, r.DataSN = le.Uint32(p[40:]), le.Uint16(p[46:]), le.Uint32(p[48:]), le.Uint32(p[52:])
	return int(le.Uint16(p[44:]))
}
