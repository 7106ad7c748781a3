// SPDX-License-Identifier: Apache-2.0

// Package transfer follows the data-out of one SCSI command (RFC 7143 4.2.5.2, 11.7 and 11.8): what has
// come, what R2Ts have asked for, and whether a Data-Out PDU is one that the initiator may send now. It
// knows numbers only: no data, no buffer, no socket and no lock.
package transfer

import (
	"fmt"
	"slices"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// A Fault is what is wrong with data that has come.
type Fault uint8

// The faults.
const (
	None        Fault = iota
	Unexpected        // nobody has asked for it, and it is more than may come unasked
	OutOfOrder        // it is not the next of its sequence
	WrongAmount       // its sequence has more or less data than was asked for
)

// R2T is a request for data that has been sent (RFC 7143 11.8).
type R2T struct {
	TTT    uint32 `cbor:"1,keyasint"`
	Offset uint32 `cbor:"2,keyasint"`
	Length uint32 `cbor:"3,keyasint"`
	DataSN uint32 `cbor:"4,keyasint"` // of the next Data-Out that answers it
}

// Out is the data-out of one command. Data arrives in order, because DataPDUInOrder and
// DataSequenceInOrder are always Yes. The zero Out is that of a command of which nothing has come.
type Out struct {
	want        uint32 // bytes that the command takes
	received    uint32 // bytes that have come; the next Data-Out starts here
	unsolicited bool   // Data-Out PDUs that nobody asked for are still to come
	outSN       uint32 // DataSN of the next unsolicited Data-Out
	asked       uint32 // R2Ts have asked for the bytes before this one
	r2ts        [login.MaxR2T]R2T
	open        int // r2ts[:open], oldest first
	r2tSN       uint32
}

// Begin takes in a command that has come with n bytes of immediate data.
func (o *Out) Begin(req *pdu.SCSICommand, n uint32, p *login.Params) Fault {
	o.unsolicited = req.Write && !req.Final
	switch {
	case n > 0 && (!req.Write || !p.ImmediateData || n > p.FirstBurstLength || n > req.ExpectedDataTransferLength):
		return Unexpected
	case o.unsolicited && (p.InitialR2T || n >= min(p.FirstBurstLength, req.ExpectedDataTransferLength)):
		o.unsolicited = false
		return Unexpected
	}
	o.received = n
	return None
}

// SetWant says how many bytes the command takes, once that is known.
func (o *Out) SetWant(n uint32) { o.want = n }

// Want returns how many bytes the command takes.
func (o *Out) Want() uint32 { return o.want }

// Received returns how many bytes have come.
func (o *Out) Received() uint32 { return o.received }

// Unsolicited reports whether Data-Out PDUs that nobody asked for are still to come.
func (o *Out) Unsolicited() bool { return o.unsolicited }

// Open returns the R2Ts that are not answered in whole, the oldest first.
func (o *Out) Open() []R2T { return o.r2ts[:o.open] }

// Asked returns how many R2Ts have been sent.
func (o *Out) Asked() uint32 { return o.r2tSN }

// Underway reports whether the initiator has more to send: what it has announced, or what it was
// asked for.
func (o *Out) Underway() bool { return o.unsolicited || o.open > 0 }

// Complete reports whether all has come that the command takes.
func (o *Out) Complete() bool { return o.received >= o.want }

// Check checks a Data-Out PDU of a command that expects so many bytes against the sequence that it
// belongs to.
func (o *Out) Check(p *pdu.DataOut, expected, firstBurst uint32) Fault {
	if p.TargetTransferTag == pdu.ReservedTag {
		limit := min(firstBurst, expected)
		switch {
		case !o.unsolicited || uint64(p.BufferOffset)+uint64(p.DataLength) > uint64(limit):
			return Unexpected
		case p.DataSN != o.outSN || p.BufferOffset != o.received:
			return OutOfOrder
		}
		return None
	}
	i := o.find(p.TargetTransferTag)
	if i < 0 {
		return Unexpected
	}
	r := &o.r2ts[i]
	end := r.Offset + r.Length
	switch {
	case i > 0 || p.DataSN != r.DataSN || p.BufferOffset != o.received:
		return OutOfOrder
	case p.DataLength > end-o.received, p.Final && p.DataLength < end-o.received:
		return WrongAmount
	}
	return None
}

// Receive notes that n bytes have come.
func (o *Out) Receive(n int) { o.received += uint32(n) }

// Advance notes that a Data-Out PDU of a sequence has come, and the end of the sequence with its F
// bit. It reports whether that was the end of what an R2T has asked for.
func (o *Out) Advance(p *pdu.DataOut) (answered bool) {
	if p.TargetTransferTag == pdu.ReservedTag {
		o.outSN++
		if p.Final {
			o.unsolicited = false
			o.asked = o.received
		}
		return false
	}
	i := o.find(p.TargetTransferTag)
	if i < 0 {
		return false
	}
	o.r2ts[i].DataSN++
	if p.Final {
		o.open = len(slices.Delete(o.r2ts[:o.open], i, i+1))
	}
	return p.Final
}

func (o *Out) find(ttt uint32) int {
	for i := range o.r2ts[:o.open] {
		if o.r2ts[i].TTT == ttt {
			return i
		}
	}
	return -1
}

// MayAsk reports whether the initiator may be asked for more.
func (o *Out) MayAsk(p *login.Params) bool {
	return max(o.asked, o.received) < o.want && o.open < int(min(p.MaxOutstandingR2T, login.MaxR2T))
}

// Ask opens an R2T with a target transfer tag for the data that comes next, which [Out.MayAsk] has
// allowed. sn is its R2TSN.
func (o *Out) Ask(tag uint32, p *login.Params) (r R2T, sn uint32) {
	o.asked = max(o.asked, o.received)
	r = R2T{TTT: tag, Offset: o.asked, Length: min(o.want-o.asked, p.MaxBurstLength)}
	o.r2ts[o.open] = r
	o.open++
	o.asked += r.Length
	o.r2tSN++
	return r, o.r2tSN - 1
}

// State is an Out as plain data, without what the command takes.
type State struct {
	Received    uint32
	Unsolicited bool
	OutSN       uint32 // DataSN of the next unsolicited Data-Out
	Asked       uint32 // R2Ts have asked for the bytes before this one
	R2Ts        []R2T  // that are open
	R2TSN       uint32
}

// Snapshot returns the state, which shares memory with o.
func (o *Out) Snapshot() State {
	return State{o.received, o.unsolicited, o.outSN, o.asked, o.Open(), o.r2tSN}
}

// Restore goes on with the state of another process.
func (o *Out) Restore(s State) error {
	if len(s.R2Ts) > len(o.r2ts) {
		return fmt.Errorf("%d R2Ts are open, and %d are possible", len(s.R2Ts), len(o.r2ts))
	}
	*o = Out{received: s.Received, unsolicited: s.Unsolicited, outSN: s.OutSN, asked: s.Asked, r2tSN: s.R2TSN}
	o.open = copy(o.r2ts[:], s.R2Ts)
	return nil
}
