// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"maps"
	"slices"
	"testing"
)

// step is one thing that a session does.
func (m *model) step() {
	steps := []func(c *modelConn){
		m.readInput, m.readInput, m.inPlace, m.inPlace, m.toWorker, m.toWorker, m.askFor, m.dataOut, m.ping,
		m.attention, m.complete, m.complete, m.complete, m.abort, m.skip, m.flush, m.flush, m.send, m.send, m.send,
	}
	if i := m.rnd.IntN(len(steps) + 1); i < len(steps) {
		steps[i](m.conns[m.rnd.IntN(len(m.conns))])
	} else {
		m.openOrClose()
	}
}

func (m *model) openConn() {
	m.cookie++
	c := &modelConn{
		cookie: m.cookie, birth: Position{m.rnd.Uint64N(1000), m.rnd.Uint64N(1000)},
		pdus: map[uint16]PDU{}, pdusNext: map[uint16]PDU{}, batch: BatchRecord{StatSN: 5},
	}
	m.conns = append(m.conns, c)
	conn, err := m.s.OpenConn([]byte("addresses"), &Birth{Cookie: c.cookie, Read: c.birth.Read, Written: c.birth.Written, StatSN: 5}, &c.now)
	if err != nil {
		m.t.Fatal(err)
	}
	m.settle()
	c.conn = conn
}

func (m *model) openOrClose() {
	if len(m.conns) < 3 {
		m.openConn()
		return
	}
	i := m.rnd.IntN(len(m.conns))
	c := m.conns[i]
	if err := c.conn.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.settle()
	m.conns = slices.Delete(m.conns, i, i+1)
	// Its slots are free, and its buffers.
	for n, t := range m.slotsNext {
		if t.Cookie == c.cookie {
			delete(m.slotsNext, n)
			delete(m.slots, n)
			m.s.GiveSlot(n)
		}
	}
	m.blocks = map[int64]bool{}
	m.eachExtent(func(e Extent) { m.blocks[e.Offset] = true })
}

// readInput has the kernel give bytes, into a chunk that is there or a new one.
func (m *model) readInput(c *modelConn) {
	if c.read == c.now.Consumed {
		delete(m.blocks, c.input.Chunk.Offset)
		delete(m.blocks, c.input.Bulk.Offset)
		in := Input{Chunk: Extent{m.block().Offset, testBlock}, Base: c.read}
		if m.rnd.IntN(3) == 0 {
			in.Bulk, in.BulkFrom = m.block(), c.read+48
		}
		c.inputNext = &in
		c.conn.PutInput(&in)
		m.settle()
	}
	c.read = min(c.read+m.rnd.Uint64N(400), c.input.Base+uint64(c.input.Chunk.Length))
	m.check()
}

// request consumes a PDU, and reports false if none is there.
func (m *model) request(c *modelConn) bool {
	if c.read < c.now.Consumed+48 {
		return false
	}
	c.next.Consumed += 48
	m.recordNext.ExpCmdSN++
	return true
}

func (m *model) newSlot(c *modelConn) (uint16, slotView) {
	n, ok := m.s.TakeSlot()
	if !ok {
		m.t.Fatal("no slot is free")
	}
	s := slotView{Slot: Slot{Kind: Command, Header: m.header(), Order: m.recordNext.Arrivals}, Cookie: c.cookie}
	m.recordNext.Arrivals++
	return n, s
}

func (m *model) put(n uint16, s slotView) {
	m.slotsNext[n] = s
	s.Conn = nil
	if c := m.byCookie(s.Cookie); c != nil {
		s.Conn = c.conn
	}
	m.s.PutSlot(n, &s.Slot)
}

// answer queues the response of a slot.
func (m *model) answer(c *modelConn, n uint16, s slotView) {
	if s.Data.Length > 0 {
		m.free = append(m.free, s.Data.Offset)
	}
	s.Queued, s.Out, s.Data, s.R2Ts = true, c.next.OutTail, Extent{}, nil
	c.next.OutTail++
	m.recordNext.MaxCmdSN++
	m.put(n, s)
	m.s.PutConn(c.conn, &c.next)
	m.commit()
}

// inPlace is a READ or a WRITE on the reader.
func (m *model) inPlace(c *modelConn) {
	if !m.request(c) {
		return
	}
	if m.rnd.IntN(2) == 0 {
		c.conn.Start(c.now.Consumed)
		m.settle()
	}
	n, s := m.newSlot(c)
	if m.rnd.IntN(2) == 0 {
		s.In, s.InLength = m.block(), m.rnd.Uint32()
	}
	m.answer(c, n, s)
}

// toWorker is a command whose data has arrived.
func (m *model) toWorker(c *modelConn) {
	if !m.request(c) {
		return
	}
	n, s := m.newSlot(c)
	s.Data, s.State = m.block(), 2
	m.put(n, s)
	m.s.PutConn(c.conn, &c.next)
	m.commit()
}

// askFor is a command whose data is asked for.
func (m *model) askFor(c *modelConn) {
	if !m.request(c) {
		return
	}
	n, s := m.newSlot(c)
	s.Data, s.State, s.Asked = m.block(), 1, m.rnd.Uint32()
	for range 1 + m.rnd.IntN(maxR2T) {
		s.R2Ts = append(s.R2Ts, R2T{m.rnd.Uint32(), m.rnd.Uint32(), m.rnd.Uint32(), 0})
	}
	m.recordNext.LastTTT++
	m.put(n, s)
	m.queue(c, PDU{Header: m.header()})
	m.s.PutConn(c.conn, &c.next)
	m.commit()
}

// queue adds a PDU of no slot.
func (m *model) queue(c *modelConn, p PDU) {
	n, ok := c.conn.TakePlace()
	if !ok {
		m.t.Fatal("no place is free")
	}
	p.Out = c.next.OutTail
	c.next.OutTail++
	c.pdusNext[n] = p
	m.s.PutPDU(c.conn, n, &p)
}

func (m *model) find(f func(slotView) bool) (uint16, slotView, *modelConn) {
	for _, n := range slices.Sorted(maps.Keys(m.slotsNext)) {
		if s := m.slotsNext[n]; !s.Queued && f(s) {
			return n, s, m.byCookie(s.Cookie)
		}
	}
	return 0, slotView{}, nil
}

func (m *model) dataOut(c *modelConn) {
	n, s, of := m.find(func(s slotView) bool { return len(s.R2Ts) > 0 })
	if n == 0 || c != of || !m.request(c) {
		return
	}
	s.R2Ts, s.Received, s.OutSN = s.R2Ts[1:], s.Received+512, s.OutSN+1
	if len(s.R2Ts) == 0 {
		s.R2Ts, s.State = nil, 2
	}
	m.put(n, s)
	m.s.PutConn(c.conn, &c.next)
	m.commit()
}

func (m *model) ping(c *modelConn) {
	if !m.request(c) {
		return
	}
	m.queue(c, PDU{Header: m.header(), Data: m.block(), Status: true})
	m.s.PutConn(c.conn, &c.next)
	m.commit()
}

// attention raises a unit attention, or has a command take one.
func (m *model) attention(c *modelConn) {
	code := uint16(0x2900 + m.rnd.IntN(4))
	set := slices.Clone(m.unitsNext[code])
	for len(set) < 2+rowInline {
		set = append(set, 0)
	}
	set[m.rnd.IntN(len(set))] ^= 1 << m.rnd.IntN(64)
	m.unitsNext[code] = set
	if !m.s.PutUnits(code, set) {
		m.t.Fatal("no row is free")
	}
	if !m.request(c) {
		m.commit()
		return
	}
	n, s := m.newSlot(c)
	s.Status = 2
	for range 1 + m.rnd.IntN(SenseLength) {
		s.Sense = append(s.Sense, byte(m.rnd.Uint32()))
	}
	m.answer(c, n, s)
}

// complete is the end of a command on a worker.
func (m *model) complete(*modelConn) {
	n, s, c := m.find(func(s slotView) bool { return s.State == 2 })
	if n == 0 {
		return
	}
	m.s.Start(n, s.Order)
	m.settle()
	s.Status = uint8(m.rnd.IntN(3))
	m.answer(c, n, s)
}

func (m *model) abort(*modelConn) {
	n, s, _ := m.find(func(slotView) bool { return m.rnd.IntN(3) == 0 })
	if n == 0 {
		return
	}
	if s.Data.Length > 0 {
		m.free = append(m.free, s.Data.Offset)
	}
	delete(m.slotsNext, n)
	m.s.ClearSlot(n)
	m.give = append(m.give, n)
	m.commit()
}

func (m *model) skip(c *modelConn) {
	if len(m.slotsNext) > 60 {
		return
	}
	n, s := m.newSlot(c)
	s.Kind, s.Cookie = Skipped, 0
	m.put(n, s)
	m.commit()
}

// flush encodes a batch, if the last one is with the kernel.
func (m *model) flush(c *modelConn) {
	if c.written != c.batch.Start+c.batch.Total || c.head() == c.now.OutTail {
		return
	}
	b := c.conn.NextBatch()
	r := BatchRecord{Start: c.written, Head: c.head(), NewHead: c.head(), StatSN: c.batch.StatSN + 1}
	var pieces []Piece
	for i := 0; r.NewHead < c.now.OutTail && i < 8; i++ {
		pieces = m.encode(c, b, i, r.NewHead, pieces)
		r.NewHead++
	}
	for _, p := range pieces {
		r.Total += uint64(len(p.Bytes)) + uint64(p.Data.Length)
	}
	c.batchNext, c.piecesN = &r, pieces
	c.conn.CommitBatch(&r)
	m.settle()
}

// encode adds the response with a place in the order.
func (m *model) encode(c *modelConn, b *Batch, i int, out uint64, pieces []Piece) []Piece {
	h := b.Header(i)
	for k := range h {
		h[k] = byte(m.rnd.Uint32())
	}
	b.AddHeader(i, 52)
	pieces = append(pieces, Piece{Bytes: slices.Clone(h[:])})
	data := func(e Extent) {
		if e.Length > 0 {
			b.AddData(e)
			pieces = append(pieces, Piece{Data: e})
			*b.Tail(i) = [8]byte{1, 2, 3}
			b.AddTail(i, 3)
			pieces = append(pieces, Piece{Bytes: []byte{1, 2, 3}})
		}
	}
	for _, p := range c.pdus {
		if p.Out == out {
			data(p.Data)
		}
	}
	for n, s := range m.slots {
		if s.Cookie == c.cookie && s.Queued && s.Out == out {
			data(s.In)
			if len(s.Sense) > 0 {
				segment := m.s.SenseSegment(n)
				b.AddSense(m.s, n, len(segment))
				pieces = append(pieces, Piece{Bytes: slices.Clone(segment)})
			}
		}
	}
	return pieces
}

// send has the kernel take some bytes.
func (m *model) send(c *modelConn) {
	end := c.batch.Start + c.batch.Total
	c.written += min(end-c.written, m.rnd.Uint64N(6000))
	m.check()
	if c.written != end {
		return
	}
	for n, s := range m.slotsNext {
		if s.Cookie == c.cookie && s.Queued && s.Out < c.batch.NewHead {
			delete(m.blocks, s.In.Offset)
			delete(m.slotsNext, n)
			delete(m.slots, n)
			m.s.GiveSlot(n)
		}
	}
	for n, p := range c.pdusNext {
		if p.Out < c.batch.NewHead {
			delete(m.blocks, p.Data.Offset)
			delete(c.pdusNext, n)
			delete(c.pdus, n)
			c.conn.GivePlace(n)
		}
	}
}

// At each store of random transactions, and in the midst of it, exactly what was committed is in force. A successor goes on
// from any of these points.
func TestModel(t *testing.T) {
	checks, takes := 0, 0
	for seed := range uint64(4) {
		m := newModel(t, seed, control{})
		if failed := m.run(400); failed != "" {
			t.Fatalf("seed %d, check %d: %s", seed, m.checks, failed)
		}
		checks, takes = checks+m.checks, takes+m.takes
	}
	if checks < 5000 || takes < 5 {
		t.Errorf("only %d states were compared, and %d successors died at once", checks, takes)
	}
}

func isCommit(m *model, off int64) bool { return off == m.s.at+sessionCommit }

// wordOf tells the words of the connections at a place in their regions.
func wordOf(at int64) func(*model, int64) bool {
	return func(m *model, off int64) bool {
		first := m.j.g.first[ofConnection]
		return off >= first && (off-first)%connectionSize == at
	}
}

func isPDU(m *model, off int64) bool {
	first := m.j.g.first[ofConnection]
	at := (off - first) % connectionSize
	return off >= first && at >= connPlaces && at < connBatches && (at-connPlaces)%pduLen == 0
}

// The model finds each rule that is not kept.
func TestModelFindsFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		control
	}{
		{"uncommitted versions are not made void", control{noVoid: true}},
		{"the commit overtakes a record", control{early: isCommit}},
		{"the number of the batch overtakes it", control{early: wordOf(connBatch)}},
		{"the number of the input overtakes it", control{early: wordOf(connInput)}},
		{"the tag of a PDU is overtaken by what follows", control{late: isPDU}},
		{"how many slots there were is not told before the commit", control{last: func(m *model, off int64) bool { return off == m.s.at+sessionSlots }}},
		{"how many places there were is not told before the commit", control{last: wordOf(connPDUs)}},
		{"a connection is in the index before it is there", control{early: func(m *model, off int64) bool {
			return off >= m.j.g.index[ofConnection] && off < m.j.g.index[ofUnit] && m.j.load(off) != 0
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(40) {
				if m := newModel(t, seed, c.control); m.run(400) != "" {
					return
				}
			}
			t.Error("nothing was found")
		})
	}
}
