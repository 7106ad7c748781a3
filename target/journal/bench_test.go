// SPDX-License-Identifier: Apache-2.0

package journal

import "testing"

// bed is a session with one connection whose input never ends.
type bed struct {
	s      *Session
	c      *Conn
	record SessionRecord
	conn   ConnRecord
	batch  BatchRecord
	slot   Slot
	queued [BatchPDUs]uint16
	n      int
}

func newBed(t testing.TB) *bed {
	j := newJournal(t, Options{Sessions: 1, Connections: 1, Units: 1, Arena: newFile(t, testArena)})
	b := &bed{}
	var err error
	if b.s, err = j.OpenSession([]byte("names"), &b.record); err != nil {
		t.Fatal(err)
	}
	if b.c, err = b.s.OpenConn(nil, &Birth{Cookie: 1}, &b.conn); err != nil {
		t.Fatal(err)
	}
	b.slot = Slot{Kind: Command, Conn: b.c, Queued: true}
	return b
}

// answer commits the outcome of the command in a slot.
func (b *bed) answer(n uint16) {
	b.slot.Out = b.conn.OutTail
	b.conn.OutTail++
	b.conn.Consumed += 48
	b.record.ExpCmdSN++
	b.s.PutSlot(n, &b.slot)
	b.s.PutConn(b.c, &b.conn)
	b.s.PutRecord(&b.record)
	b.s.Commit()
	b.queued[b.n] = n
	if b.n++; b.n == 32 {
		b.flush()
	}
}

// flush encodes the responses that are queued, and has the kernel take them.
func (b *bed) flush() {
	batch := b.c.NextBatch()
	b.batch.Start += b.batch.Total
	b.batch.Total, b.batch.Head = 0, b.batch.NewHead
	for i := range b.n {
		batch.Header(i)[0] = 0x25
		batch.AddHeader(i, 48)
		batch.AddData(Extent{4096, 4096})
		b.batch.Total += 48 + 4096
	}
	b.batch.NewHead += uint64(b.n)
	b.batch.StatSN += uint32(b.n)
	b.c.CommitBatch(&b.batch)
	for i := range b.n {
		b.s.GiveSlot(b.queued[i])
	}
	b.n = 0
}

func (b *bed) read() {
	n, _ := b.s.TakeSlot()
	b.slot.In, b.slot.InLength = Extent{4096, 4096}, 4096
	b.answer(n)
}

func (b *bed) write() {
	n, _ := b.s.TakeSlot()
	b.c.Start(b.conn.Consumed)
	b.slot.In, b.slot.InLength = Extent{}, 0
	b.answer(n)
}

func (b *bed) writeOnWorker() {
	n, _ := b.s.TakeSlot()
	b.slot.Queued, b.slot.Data = false, Extent{8192, 4096}
	b.s.PutSlot(n, &b.slot)
	b.s.PutConn(b.c, &b.conn)
	b.s.PutRecord(&b.record)
	b.s.Commit()
	b.s.Start(n, b.slot.Order)
	b.slot.Queued, b.slot.Data = true, Extent{}
	b.answer(n)
}

// What the records of a command cost, with its 32nd part of a batch.
func BenchmarkRecords(b *testing.B) {
	for name, f := range commands {
		b.Run(name, func(b *testing.B) {
			d := newBed(b)
			b.ReportAllocs()
			for b.Loop() {
				f(d)
			}
		})
	}
}

// What a successor needs to read a session with 8 responses that are queued.
func BenchmarkRecover(b *testing.B) {
	const n = 100
	j := newJournal(b, Options{Sessions: n, Connections: n, Units: 1, Arena: newFile(b, testArena)})
	sockets := make(map[uint64]Position)
	for i := range uint64(n) {
		d := &bed{}
		var err error
		if d.s, err = j.OpenSession(make([]byte, 1000), &d.record); err != nil {
			b.Fatal(err)
		}
		if d.c, err = d.s.OpenConn(make([]byte, 200), &Birth{Cookie: i}, &d.conn); err != nil {
			b.Fatal(err)
		}
		d.slot = Slot{Kind: Command, Conn: d.c, Queued: true, Sense: make([]byte, 18)}
		for range 8 {
			d.write()
		}
		sockets[i] = Position{d.conn.Consumed, 0}
	}
	for b.Loop() {
		if r, err := j.Recover(sockets); err != nil || len(r.Sessions) != n || len(r.Sessions[0].Slots) != 8 {
			b.Fatal(err, r.Dropped)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/session")
}

var commands = map[string]func(*bed){"READ": (*bed).read, "WRITE": (*bed).write, "WRITE on a worker": (*bed).writeOnWorker}

func TestRecordsAllocateNothing(t *testing.T) {
	for name, f := range commands {
		d := newBed(t)
		if n := testing.AllocsPerRun(500, func() { f(d) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
