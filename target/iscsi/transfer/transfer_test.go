// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// write is a command with its data-out, and an initiator that keeps the rules.
type write struct {
	*testing.T
	r   *rand.Rand
	p   login.Params
	req pdu.SCSICommand
	out Out

	tag     uint32
	sn      uint32 // DataSN of the next unsolicited Data-Out
	answers []R2T  // that the initiator still has to answer
	sent    uint32
	asked   uint32
}

func newWrite(t *testing.T, seed uint64) *write {
	w := &write{T: t, r: rand.New(rand.NewPCG(seed, 1))}
	w.p = login.Params{
		FirstBurstLength: 1 + w.r.Uint32N(5000), MaxBurstLength: 100 + w.r.Uint32N(5000),
		MaxOutstandingR2T: uint16(1 + w.r.IntN(2*login.MaxR2T)), InitialR2T: w.r.IntN(2) == 0, ImmediateData: w.r.IntN(2) == 0,
	}
	w.req = pdu.SCSICommand{Write: true, Final: true, ExpectedDataTransferLength: w.r.Uint32N(40000)}
	return w
}

// begin sends the command, and unsolicited data if it may.
func (w *write) begin() {
	first := min(w.p.FirstBurstLength, w.req.ExpectedDataTransferLength)
	if w.p.ImmediateData {
		w.sent = w.r.Uint32N(first + 1)
	}
	w.req.Final = w.p.InitialR2T || w.sent == first
	if f := w.out.Begin(&w.req, w.sent, &w.p); f != None {
		w.Fatalf("%+v with %d bytes: fault %d", w.req, w.sent, f)
	}
	w.out.SetWant(w.req.ExpectedDataTransferLength)
	for w.out.Unsolicited() {
		n := 1 + w.r.Uint32N(first-w.sent)
		w.send(&pdu.DataOut{TargetTransferTag: pdu.ReservedTag, Final: w.sent+n == first || w.r.IntN(3) == 0, DataSN: w.sn, BufferOffset: w.sent, DataLength: n})
		w.sn++
	}
	w.asked = w.sent
}

// ask has the target ask as it may, and checks what it asks for.
func (w *write) ask() {
	for w.out.MayAsk(&w.p) {
		w.tag++
		r, sn := w.out.Ask(w.tag, &w.p)
		if r.Offset != w.asked || r.Length == 0 || r.Length > w.p.MaxBurstLength || sn != w.tag-1 {
			w.Fatalf("R2T %d is %+v, want one from %d on of %d bytes at most", sn, r, w.asked, w.p.MaxBurstLength)
		}
		w.asked += r.Length
		w.answers = append(w.answers, r)
	}
	if n := len(w.answers); n > int(w.p.MaxOutstandingR2T) || n > login.MaxR2T || n != len(w.out.Open()) {
		w.Fatalf("%d R2Ts are open, of %d", n, w.p.MaxOutstandingR2T)
	}
}

// next is the next answer to the oldest R2T.
func (w *write) next() *pdu.DataOut {
	a := &w.answers[0]
	left := a.Offset + a.Length - w.sent
	n := 1 + w.r.Uint32N(left)
	return &pdu.DataOut{TargetTransferTag: a.TTT, Final: n == left, DataSN: a.DataSN, BufferOffset: w.sent, DataLength: n}
}

func (w *write) send(p *pdu.DataOut) {
	if f := w.out.Check(p, w.req.ExpectedDataTransferLength, w.p.FirstBurstLength); f != None {
		w.Fatalf("%+v: fault %d", p, f)
	}
	w.out.Receive(int(p.DataLength))
	answered := w.out.Advance(p)
	w.sent += p.DataLength
	if p.TargetTransferTag == pdu.ReservedTag {
		return
	}
	if answered != p.Final {
		w.Fatalf("%+v: the R2T is answered: %v", p, answered)
	}
	if w.answers[0].DataSN++; p.Final {
		w.answers = slices.Delete(w.answers, 0, 1)
	}
}

// TestRules has initiators that keep the rules send all data of commands, whatever was negotiated: no fault is
// found, and the R2Ts ask for each byte once. At any place another process can go on, and a PDU that is
// changed in any way is found.
func TestRules(t *testing.T) {
	for seed := range uint64(300) {
		w := newWrite(t, seed)
		w.begin()
		for w.ask(); len(w.answers) > 0; w.ask() {
			p := w.next()
			w.changed(p)
			w.send(p)
			moved := Out{}
			if err := moved.Restore(w.out.Snapshot()); err != nil {
				t.Fatal(err)
			}
			moved.SetWant(w.out.Want())
			if moved != w.out {
				t.Fatalf("seed %d: restored: %+v, want %+v", seed, moved, w.out)
			}
		}
		if w.out.Underway() || !w.out.Complete() || w.sent != w.req.ExpectedDataTransferLength || w.out.Asked() != w.tag {
			t.Fatalf("seed %d: in the end %d bytes of %d were sent, %+v", seed, w.sent, w.req.ExpectedDataTransferLength, w.out)
		}
	}
}

// changed checks that a PDU like p is refused that differs from it.
func (w *write) changed(p *pdu.DataOut) {
	left := w.answers[0].Offset + w.answers[0].Length - w.sent
	for _, c := range []struct {
		what   string
		change func(p *pdu.DataOut)
		want   Fault
	}{
		{"nobody's tag", func(p *pdu.DataOut) { p.TargetTransferTag = w.tag + 1 }, Unexpected},
		{"unsolicited", func(p *pdu.DataOut) { p.TargetTransferTag = pdu.ReservedTag }, Unexpected},
		{"another DataSN", func(p *pdu.DataOut) { p.DataSN++ }, OutOfOrder},
		{"an offset behind", func(p *pdu.DataOut) { p.BufferOffset++ }, OutOfOrder},
		{"an offset before", func(p *pdu.DataOut) { p.BufferOffset-- }, OutOfOrder},
		{"too much", func(p *pdu.DataOut) { p.DataLength = left + 1 }, WrongAmount},
		{"too little", func(p *pdu.DataOut) { p.Final, p.DataLength = true, left-1 }, WrongAmount},
		{"a later R2T's", func(p *pdu.DataOut) {
			p.TargetTransferTag = w.tag + 1
			if n := len(w.answers); n > 1 {
				p.TargetTransferTag, p.DataSN = w.answers[n-1].TTT, 0
			}
		}, Unexpected},
	} {
		q, want := *p, c.want
		if c.change(&q); q.TargetTransferTag != w.tag+1 && c.what == "a later R2T's" {
			want = OutOfOrder
		}
		if f := w.out.Check(&q, w.req.ExpectedDataTransferLength, w.p.FirstBurstLength); f != want {
			w.Fatalf("%s, %+v: fault %d, want %d", c.what, q, f, want)
		}
	}
}

// TestBegin has what comes with a command.
func TestBegin(t *testing.T) {
	yes := login.Params{ImmediateData: true, FirstBurstLength: 1000}
	for _, c := range []struct {
		what  string
		p     login.Params
		req   pdu.SCSICommand
		n     uint32
		fault Fault
		more  bool // unsolicited data is to come
	}{
		{"a read", yes, pdu.SCSICommand{Read: true, Final: true, ExpectedDataTransferLength: 4096}, 0, None, false},
		{"a read with data", yes, pdu.SCSICommand{Read: true, Final: true, ExpectedDataTransferLength: 4096}, 1, Unexpected, false},
		{"immediate data", yes, pdu.SCSICommand{Write: true, Final: true, ExpectedDataTransferLength: 4096}, 1000, None, false},
		{"that was not agreed", login.Params{FirstBurstLength: 1000}, pdu.SCSICommand{Write: true, Final: true, ExpectedDataTransferLength: 4096}, 1, Unexpected, false},
		{"beyond the first burst", yes, pdu.SCSICommand{Write: true, Final: true, ExpectedDataTransferLength: 4096}, 1001, Unexpected, false},
		{"beyond what is expected", yes, pdu.SCSICommand{Write: true, Final: true, ExpectedDataTransferLength: 10}, 11, Unexpected, false},
		{"and more to come", yes, pdu.SCSICommand{Write: true, ExpectedDataTransferLength: 4096}, 999, None, true},
		{"and more than may", yes, pdu.SCSICommand{Write: true, ExpectedDataTransferLength: 4096}, 1000, Unexpected, false},
		{"more to come unasked", login.Params{ImmediateData: true, InitialR2T: true, FirstBurstLength: 1000}, pdu.SCSICommand{Write: true, ExpectedDataTransferLength: 4096}, 0, Unexpected, false},
	} {
		var o Out
		if f := o.Begin(&c.req, c.n, &c.p); f != c.fault || o.Unsolicited() != c.more {
			t.Errorf("%s: fault %d, more to come %v; want %d, %v", c.what, f, o.Unsolicited(), c.fault, c.more)
		}
		if want := c.n; c.fault == None && o.Received() != want {
			t.Errorf("%s: %d bytes have come, want %d", c.what, o.Received(), want)
		}
	}
}

// TestUnsolicited has faults of data that comes unasked.
func TestUnsolicited(t *testing.T) {
	p := login.Params{FirstBurstLength: 1000}
	begun := func() *Out {
		var o Out
		o.Begin(&pdu.SCSICommand{Write: true, ExpectedDataTransferLength: 4096}, 0, &p)
		first := pdu.DataOut{TargetTransferTag: pdu.ReservedTag, DataLength: 400}
		o.Receive(400)
		o.Advance(&first)
		return &o
	}
	for _, c := range []struct {
		p    pdu.DataOut
		want Fault
	}{
		{pdu.DataOut{DataSN: 1, BufferOffset: 400, DataLength: 600}, None},
		{pdu.DataOut{DataSN: 1, BufferOffset: 400, DataLength: 601}, Unexpected},
		{pdu.DataOut{DataSN: 1, BufferOffset: 1<<32 - 1, DataLength: 600}, Unexpected},
		{pdu.DataOut{DataSN: 0, BufferOffset: 400, DataLength: 600}, OutOfOrder},
		{pdu.DataOut{DataSN: 1, BufferOffset: 300, DataLength: 600}, OutOfOrder},
	} {
		c.p.TargetTransferTag = pdu.ReservedTag
		if f := begun().Check(&c.p, 4096, p.FirstBurstLength); f != c.want {
			t.Errorf("%+v: fault %d, want %d", c.p, f, c.want)
		}
	}
}

// TestRestoreRefuses has more R2Ts than there can be.
func TestRestoreRefuses(t *testing.T) {
	if err := new(Out).Restore(State{R2Ts: make([]R2T, login.MaxR2T+1)}); err == nil {
		t.Error("restored")
	}
}
