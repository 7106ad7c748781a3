// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/memfile"
)

const (
	testArena = 16 << 20
	testBlock = 4 << 10
)

func newFile(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := memfile.New("test", size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func newJournal(t testing.TB, o Options) *Journal {
	t.Helper()
	j, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// A view is what is in force of a session, in a form that can be compared.
type view struct {
	Record SessionRecord
	Units  map[uint16][]uint64
	Slots  map[uint16]slotView
	Conns  map[uint64]connView // by cookie
}

type slotView struct {
	Slot
	Cookie  uint64
	Started bool
}

type connView struct {
	Record  ConnRecord
	Input   Input
	Read    uint64
	Started bool
	Batch   BatchRecord
	Unsent  []string
	PDUs    map[uint16]PDU
}

// sight is the view of what was recovered.
func sight(r *RecoveredSession) view {
	v := view{Record: r.Record, Units: r.Units, Slots: make(map[uint16]slotView), Conns: make(map[uint64]connView)}
	cookies := make(map[*Conn]uint64)
	for _, c := range r.Conns {
		cookies[c.Conn] = c.Cookie
		k := connView{Record: c.Record, Input: c.Input, Read: c.Read, Started: c.Started, Batch: c.Batch, PDUs: make(map[uint16]PDU)}
		for _, p := range c.Unsent {
			k.Unsent = append(k.Unsent, fmt.Sprintf("%q %d", p.Bytes, p.Data))
		}
		for _, p := range c.PDUs {
			k.PDUs[p.Number] = p.PDU
		}
		v.Conns[c.Cookie] = k
	}
	for _, t := range r.Slots {
		s := slotView{t.Slot, cookies[t.Conn], t.Started}
		s.Conn = nil
		v.Slots[t.Number] = s
	}
	return v
}

// modelConn is a connection with its end in the kernel.
type modelConn struct {
	conn    *Conn
	open    bool // in the journal
	cookie  uint64
	birth   Position
	read    uint64
	written uint64
	started uint64 // as in the journal

	now, next ConnRecord
	input     Input
	inputNext *Input
	batch     BatchRecord
	pieces    []Piece // of the batch
	batchNext *BatchRecord
	piecesN   []Piece
	pdus      map[uint16]PDU // in force
	pdusNext  map[uint16]PDU
}

// model makes random transactions, and knows what is in force after each store. A mirror of the journal
// gets each store by itself, in parts first, as at a death in the midst of it.
type model struct {
	t       *testing.T
	rnd     *rand.Rand
	arena   *os.File
	j       *Journal
	mirror  *Journal
	s       *Session
	control control

	record, recordNext SessionRecord
	units, unitsNext   map[uint16][]uint64
	slots, slotsNext   map[uint16]slotView
	started            map[uint16]uint64
	conns              []*modelConn
	cookie             uint64
	blocks             map[int64]bool // in use
	free               []int64        // when the transaction is committed
	give               []uint16       // likewise

	crashIn int // stores
	held    *change
	behind  *change // the next commit
	checks  int
	takes   int // deaths of successors
	failed  string
}

// control says what is done wrong on purpose.
type control struct {
	noVoid bool
	early  func(m *model, off int64) bool // this store overtakes the one before
	late   func(m *model, off int64) bool // this one is overtaken by the next
	last   func(m *model, off int64) bool // this one is overtaken by the commit
}

type change struct {
	off  int64
	data []byte
}

type crash struct{}

func newModel(t *testing.T, seed uint64, c control) *model {
	m := &model{
		t: t, rnd: rand.New(rand.NewPCG(seed, 7)), control: c, arena: newFile(t, testArena),
		units: map[uint16][]uint64{}, unitsNext: map[uint16][]uint64{}, slots: map[uint16]slotView{}, slotsNext: map[uint16]slotView{},
		started: map[uint16]uint64{}, blocks: map[int64]bool{}, cookie: 100,
	}
	o := Options{Sessions: 1, Connections: 3, Units: 1, Arena: m.arena}
	m.j, m.mirror = newJournal(t, o), newJournal(t, o)
	var err error
	m.record = SessionRecord{ExpCmdSN: 1, MaxCmdSN: 32}
	m.recordNext = m.record
	if m.s, err = m.j.OpenSession([]byte("names"), &m.record); err != nil {
		t.Fatal(err)
	}
	copy(m.mirror.m, m.j.m)
	m.j.stored = m.hook
	m.crashIn = 1 << 30
	m.openConn()
	m.crashIn = 50
	return m
}

// hook is told of each store.
func (m *model) hook(off, n int64) {
	c := &change{off, slices.Clone(m.j.m[off : off+n])}
	switch {
	case m.control.last != nil && m.control.last(m, off):
		m.behind = c
		return
	case m.control.late != nil && m.control.late(m, off):
		m.held = c
		return
	case m.control.early == nil:
		m.apply(c)
		m.settle()
	case m.control.early(m, off):
		m.apply(c)
		m.settle()
	default:
		m.settle()
		m.held = c
	}
	if m.crashIn--; m.crashIn < 0 {
		m.settle()
		panic(crash{})
	}
}

// settle applies a store that was held back.
func (m *model) settle() {
	if c := m.held; c != nil {
		m.held = nil
		m.apply(c)
	}
}

// apply has a store take place in the mirror.
func (m *model) apply(c *change) {
	if n := len(c.data) / 8; n > 1 {
		for i := range n { // some of its words, none of them all
			if m.rnd.IntN(2) == 0 {
				copy(m.mirror.m[c.off+int64(i)*8:], c.data[i*8:i*8+8])
			}
		}
		m.check()
	}
	copy(m.mirror.m[c.off:], c.data)
	if len(c.data) == 8 {
		m.effect(c.off)
	}
	m.check()
	if b := m.behind; b != nil && isCommit(m, c.off) {
		m.behind = nil
		m.apply(b)
	}
}

// effect knows which store changes what.
func (m *model) effect(off int64) {
	if off == m.s.at+sessionCommit {
		m.record, m.units, m.slots = m.recordNext, maps.Clone(m.unitsNext), maps.Clone(m.slotsNext)
		for _, c := range m.conns {
			c.now, c.pdus = c.next, maps.Clone(c.pdusNext)
		}
		return
	}
	for n := range m.slotsNext {
		if off == m.s.slot(n)+slotStart {
			m.started[n] = le.Uint64(m.mirror.m[off:])
		}
	}
	for _, c := range m.conns {
		if c.conn == nil {
			// Nothing of it is in force before it is in the index.
			for i := range m.j.g.regions[ofConnection] {
				if w := m.j.g.word(ofConnection, i+1); off == w && m.j.load(w) != 0 {
					c.open = true
				}
			}
			continue
		}
		switch off {
		case c.conn.at + connInput:
			c.input = *c.inputNext
		case c.conn.at + connBatch:
			c.batch, c.pieces = *c.batchNext, c.piecesN
		case c.conn.at + connStart:
			c.started = le.Uint64(m.mirror.m[off:])
		case m.j.g.word(ofConnection, c.conn.n):
			c.open = false
		}
	}
}

// sockets are what the kernel says now.
func (m *model) sockets() map[uint64]Position {
	s := make(map[uint64]Position)
	for _, c := range m.conns {
		s[c.cookie] = Position{c.birth.Read + c.read, c.birth.Written + c.written}
	}
	return s
}

// view is what is to be in force.
func (m *model) view() view {
	v := view{Record: m.record, Units: m.units, Slots: make(map[uint16]slotView), Conns: make(map[uint64]connView)}
	for n, t := range m.slots {
		c := m.byCookie(t.Cookie)
		if t.Kind != Skipped && (c == nil || !c.open) || t.Queued && t.Out < c.head() {
			continue
		}
		t.Started = t.Kind == Command && !t.Queued && m.started[n] == t.Order+1
		v.Slots[n] = t
	}
	for _, c := range m.conns {
		if c.open {
			v.Conns[c.cookie] = c.view()
		}
	}
	return v
}

func (m *model) byCookie(cookie uint64) *modelConn {
	for _, c := range m.conns {
		if c.cookie == cookie {
			return c
		}
	}
	return nil
}

// head is the first response that is not with the kernel.
func (c *modelConn) head() uint64 {
	if c.written == c.batch.Start+c.batch.Total {
		return c.batch.NewHead
	}
	return c.batch.Head
}

func (c *modelConn) view() connView {
	v := connView{Record: c.now, Read: c.read, Started: c.started == c.now.Consumed+1, Batch: c.batch, PDUs: make(map[uint16]PDU)}
	if c.read > c.now.Consumed {
		v.Input = c.input
	}
	for n, p := range c.pdus {
		if p.Out >= c.head() {
			v.PDUs[n] = p
		}
	}
	skip := c.written - c.batch.Start
	for _, p := range c.pieces {
		n := uint64(len(p.Bytes)) + uint64(p.Data.Length)
		if skip >= n {
			skip -= n
			continue
		}
		p.skip(skip)
		skip = 0
		v.Unsent = append(v.Unsent, fmt.Sprintf("%q %d", p.Bytes, p.Data))
	}
	return v
}

// check compares what is in force in the mirror with the model.
func (m *model) check() {
	m.checks++
	if m.failed != "" {
		return
	}
	r, err := m.mirror.Recover(m.sockets())
	switch {
	case err != nil:
		m.failed = err.Error()
	case len(r.Sessions) != 1:
		m.failed = fmt.Sprint("the session is lost: ", r.Dropped)
	default:
		want, got := m.view(), sight(&r.Sessions[0])
		if !reflect.DeepEqual(want, got) {
			m.failed = "in force (-) and recovered (+):\n" + cmp.Diff(want, got)
		}
	}
}

// run makes so many transactions, with deaths between and in them, and returns what was wrong.
func (m *model) run(n int) string {
	for range n {
		if m.failed != "" {
			break
		}
		if m.died(m.step) {
			m.successor()
			m.crashIn = 20 + m.rnd.IntN(200)
		}
	}
	m.settle()
	return m.failed
}

func (m *model) died(f func()) (died bool) {
	defer func() {
		switch v := recover(); v.(type) {
		case nil:
		case crash:
			died = true
		default:
			panic(v)
		}
	}()
	f()
	return false
}

// successor goes on with the mirror.
func (m *model) successor() {
	dead := m.j
	m.j = &Journal{file: m.mirror.file, m: m.mirror.m, g: m.mirror.g, arena: m.mirror.arena}
	for k, n := range m.j.g.regions {
		m.j.free[k] = newPlaces(int(n))
	}
	m.mirror = &Journal{file: dead.file, m: dead.m, g: dead.g, arena: dead.arena}
	r, err := m.j.Recover(m.sockets())
	if err != nil || len(r.Sessions) != 1 {
		m.failed = fmt.Sprint("nothing to go on with: ", err)
		return
	}
	m.conns = slices.DeleteFunc(m.conns, func(c *modelConn) bool { return !c.open })
	m.recordNext, m.unitsNext, m.slotsNext = m.record, maps.Clone(m.units), map[uint16]slotView{}
	m.free, m.give = nil, nil
	s := &r.Sessions[0]
	m.s = s.Session
	for _, c := range s.Conns {
		k := m.byCookie(c.Cookie)
		k.conn, k.next, k.pdusNext, k.inputNext, k.batchNext = c.Conn, k.now, maps.Clone(k.view().PDUs), nil, nil
		k.pdus = maps.Clone(k.pdusNext)
	}
	m.slotsNext = maps.Clone(m.view().Slots)
	m.slots = maps.Clone(m.slotsNext)
	m.blocks = map[int64]bool{}
	m.eachExtent(func(e Extent) { m.blocks[e.Offset] = true })
	if m.control.noVoid {
		takeWithoutVoid(m.j, r)
	}
	copyInto(m.mirror.m, m.j.m)
	m.j.stored = m.hook
	m.check()
	if m.control.noVoid {
		return
	}
	m.crashIn = m.rnd.IntN(40) // it may die as well, while it takes the journal
	if m.died(func() {
		if err := m.j.Take(r); err != nil {
			m.failed = err.Error()
		}
	}) {
		m.takes++
		m.successor()
	}
}

// takeWithoutVoid takes the journal as [Journal.Take] does, but leaves tags as they are.
func takeWithoutVoid(j *Journal, r *Recovered) {
	tags := slices.Clone(j.m)
	if err := j.Take(r); err != nil {
		panic(err)
	}
	for i := range r.Sessions {
		s := &r.Sessions[i]
		copy(j.m[s.at:s.at+regionSize[ofSession]], tags[s.at:])
		for _, c := range s.Conns {
			copy(j.m[c.at:c.at+regionSize[ofConnection]], tags[c.at:])
		}
	}
}

// copyInto copies what differs, so that holes stay holes.
func copyInto(dst, src []byte) {
	for i := 0; i < len(src); i += pageSize {
		if a, b := dst[i:i+pageSize], src[i:i+pageSize]; string(a) != string(b) {
			copy(a, b)
		}
	}
}

// eachExtent calls f for what is in use of the arena.
func (m *model) eachExtent(f func(Extent)) {
	have := func(e Extent) {
		if e.Length > 0 {
			f(e)
		}
	}
	for _, t := range m.slotsNext {
		have(t.Data)
		have(t.In)
	}
	have(m.recordNext.TextIn)
	for _, c := range m.conns {
		for _, p := range c.pdusNext {
			have(p.Data)
		}
		have(c.input.Chunk)
		have(c.input.Bulk)
	}
}

// block takes a piece of the arena.
func (m *model) block() Extent {
	for off := int64(testBlock); ; off += testBlock {
		if !m.blocks[off] {
			m.blocks[off] = true
			return Extent{off, uint32(1 + m.rnd.IntN(testBlock))}
		}
	}
}

func (m *model) header() (h [48]byte) {
	for i := range h {
		h[i] = byte(m.rnd.Uint32())
	}
	return h
}

// commit ends a transaction.
func (m *model) commit() {
	m.s.PutRecord(&m.recordNext)
	m.s.Commit()
	m.settle()
	for _, off := range m.free {
		delete(m.blocks, off)
	}
	for _, n := range m.give {
		m.s.GiveSlot(n)
	}
	m.free, m.give = nil, nil
}
