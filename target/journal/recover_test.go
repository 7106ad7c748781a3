// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/target/mem"
)

// A successor finds what is in force, changes nothing until it takes the journal, and goes on from there.
func TestRecover(t *testing.T) {
	m := newSample(t)
	before := slices.Clone(m.j.m)
	j, err := m.again(t)
	if err != nil {
		t.Fatal(err)
	}
	got, r := recovered(t, j, m.sockets)
	same(t, "sample", inSample(), got)
	if !bytes.Equal(before, m.j.m) {
		t.Error("reading has changed the journal")
	}
	if _, err := j.OpenSession(nil, &SessionRecord{}); err == nil || !strings.Contains(err.Error(), "take it first") {
		t.Errorf("a session is opened in another process's journal: %v", err)
	}
	if err := j.Take(r); err != nil {
		t.Fatal(err)
	}
	if err := j.Take(r); err == nil {
		t.Error("the journal is taken twice")
	}
	got, _ = recovered(t, j, m.sockets)
	same(t, "taken", inSample(), got)

	s := r.Sessions[0]
	if n, ok := s.TakeSlot(); !ok || n != 5 {
		t.Errorf("the first free slot is %d", n)
	}
	if n, ok := s.Conns[0].TakePlace(); !ok || n != 2 {
		t.Errorf("the first free place is %d", n)
	}
	if _, err := j.OpenSession(nil, &SessionRecord{}); err == nil || !strings.Contains(err.Error(), "all 2 regions of kind session are in use") {
		t.Errorf("a third session of two: %v", err)
	}
	if err := errors.Join(r.Sessions[1].Conns[0].Close(), r.Sessions[1].Session.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := j.OpenSession([]byte("third"), &SessionRecord{}); err != nil {
		t.Error(err)
	}
	if got, _ := recovered(t, j, m.sockets); len(got.Sessions) != 4 || got.Sessions[2] != "third" {
		t.Errorf("after one session has ended and another begun: %v", got.Sessions)
	}
}

// What can't be used of any journal is refused, with the reason.
func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		change func(m *sample)
		reseal bool
		want   string

		foreign bool
	}{
		{func(m *sample) { m.j.m[0] = 'x' }, true, "is no journal", false},
		{func(m *sample) { m.j.m[8] = 2 }, true, "its layout is 2, and 1 is known", true},
		{func(m *sample) { m.j.m[16] = 4 }, true, "it has features 0x4", true},
		{func(m *sample) { m.j.m[24]++ }, true, "of the boot", true},
		{func(m *sample) { m.j.m[24]++ }, false, "its checksum is wrong", false},
		{func(m *sample) { m.j.m[12]++ }, true, "its checksum is wrong", false},
		{func(m *sample) { m.j.m[52] = 1 }, true, "pages have", false},
		{func(m *sample) { m.j.m[40]++ }, true, "and its header says", false},
		{func(m *sample) { m.j.m[43] = 0xff }, true, "regions of kind session", false},
		{func(m *sample) { m.j.m[56]++ }, true, "belongs to the arena with inode", false},
		{func(m *sample) { m.j.m[64]++ }, true, "belongs to the arena with inode", false},
		{func(m *sample) { m.j.store(atCommitted, 7) }, true, "", false}, // [Journal.Recover] says so
	} {
		m := newSample(t)
		c.change(m)
		if c.reseal {
			m.seal()
		}
		switch _, err := m.again(t); {
		case c.want == "":
			if err != nil {
				t.Error(err)
			}
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("wanted %q: %v", c.want, err)
		case errors.Is(err, ErrForeign) != c.foreign:
			t.Errorf("the journal is sound for another reader: %v", err)
		}
	}
	m := newSample(t)
	fd, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "unsealed")
	defer f.Close()
	if _, err := Open(f, m.arena); err == nil || !strings.Contains(err.Error(), "must be sealed") {
		t.Errorf("an unsealed file: %v", err)
	}
	if _, err := Open(m.j.file, newFile(t, testArena)); err == nil || !strings.Contains(err.Error(), "belongs to the arena with inode") {
		t.Errorf("another arena of the same size: %v", err)
	}
	if _, err := New(Options{Sessions: 1, Connections: 0, Units: 1, Arena: m.arena}); err == nil || !strings.Contains(err.Error(), "0 regions of kind connection") {
		t.Errorf("a journal without connections: %v", err)
	}
}

// damage is a word of the sample with another value.
type damage struct {
	name string
	off  func(m *sample) int64
	v    uint64
	want string
}

// Each invariant that does not hold drops its session, with the reason, and no other.
func TestRecoverDrops(t *testing.T) {
	session := func(at int64) func(*sample) int64 { return func(m *sample) int64 { return m.s[0].at + at } }
	conn := func(at int64) func(*sample) int64 { return func(m *sample) int64 { return m.c[0].at + at } }
	slot := func(n uint16, at int64) func(*sample) int64 {
		return func(m *sample) int64 { return m.s[0].slot(n) + slotFirst + at }
	}
	const record = connRecords + 64 // the second version is in force
	const batch = connBatches       // number 2
	for _, d := range []damage{
		{"transactions", session(sessionCommit), most, "transactions"},
		{"no transaction", session(sessionCommit), 0, "no version"},
		{"static", session(sessionStatic + 8), 1, "wrong checksum"},
		{"length of static", session(sessionStatic), 1 << 31, "wrong checksum"},
		{"slots in use", session(sessionSlots), Slots + 1, "slots were in use"},
		{"text outside", func(m *sample) int64 {
			at, _ := m.j.inForce(m.s[0].at+sessionRecords, m.s[0].at+sessionRecords+128, m.j.load(m.s[0].at+sessionCommit))
			return at + 72
		}, testArena, "not in the arena"},
		{"row", session(sessionRows + 8), 0x2900 | 300<<32, "300 words"},
		{"code twice", session(sessionRows + 2*rowHead + 8), 0x2900 | 1<<32, "a set of logical units"},
		{"kind", slot(1, 56), 77 | 1<<32, "request of kind 77"},
		{"data outside", slot(1, 88), 1 << 40, "not in the arena"},
		{"negative data", slot(1, 88), 0, "not in the arena"},
		{"R2Ts", slot(1, 136), 9 << 32, "9 R2Ts"},
		{"sense", slot(2, 136), 253<<16 | queuedFlag<<48, "253 bytes of sense"},
		{"answer of nobody", slot(3, 136), queuedFlag << 48, "without a connection"},
		{"place in the queue", slot(2, 80), 5, "place 5 in a queue"},
		{"same place in the queue", slot(2, 80), 1, "place 1 in a queue"},
		{"response that is missing", slot(2, 56), 0, "1 of 2 responses are missing"},
		{"same buffer", slot(1, 88), 65536 + 1, "two owners"},
		{"batch", conn(connBatch), 9, "batch 9"},
		{"number of the batch", conn(connBatch), most + 1, "are not there"},
		{"input", conn(connInput), 0, "input 0"},
		{"consumed", conn(record + 8), 400 + maxAhead + 1, "have had their effect"},
		{"much consumed", conn(record + 8), most, "too large"},
		{"tail", conn(record + 16), 0, "has the responses from"},
		{"long queue", conn(record + 16), 1 << 40, "responses are queued"},
		{"input begins later", conn(connInputs + 40), 200, "not in its buffers"},
		{"bulk begins later", conn(connInputs + 48), 5000, "not in its buffers"},
		{"written before", conn(batch + 8), 61, "bytes are written"},
		{"written behind", conn(batch + 16), 59, "bytes are written"},
		{"total of the batch", conn(batch + 16), 166, "and its pieces"},
		{"pieces", conn(batch + 40), 10 | 193<<32, "has 193 pieces"},
		{"part", conn(batch + 40), 10 | 4<<32 | 1<<48, "slot 1 are encoded"},
		{"piece outside", conn(batch + batchPieces + 16), 1 << 50, "in no buffer"},
		{"piece of another", conn(batch + batchPieces + 16), 8192 + 1, "in no buffer"},
		{"piece of the header", conn(batch + batchPieces), inJournal, "not the session's"},
		{"piece of the end", conn(batch + batchPieces), 1<<64 - 1, "not the session's"},
		{"empty piece", conn(batch + batchPieces + 8), 0, "it has 0 bytes"},
		{"places in use", conn(connPDUs), Places + 1, "places for PDUs"},
		{"data of a PDU", conn(connPlaces + 64), 1 << 62, "not in the arena"},
	} {
		t.Run(d.name, func(t *testing.T) {
			m := newSample(t)
			m.j.at(d.off(m)).Store(d.v)
			j, err := m.again(t)
			if err != nil {
				t.Fatal(err)
			}
			r, err := j.Recover(m.sockets)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Sessions) != 1 || string(r.Sessions[0].Static) != "second session" {
				t.Fatalf("%d sessions go on, and %v", len(r.Sessions), r.Dropped)
			}
			if len(r.Dropped) != 1 || !strings.Contains(r.Dropped[0].Error(), d.want) || !strings.Contains(r.Dropped[0].Error(), "region 1 is dropped") {
				t.Errorf("wanted %q: %v", d.want, r.Dropped)
			}
			if err := j.Take(r); err != nil {
				t.Fatal(err)
			}
			if r, err = j.Recover(m.sockets); err != nil || len(r.Sessions) != 1 || len(r.Dropped) != 0 {
				t.Errorf("what was dropped is there again: %v %v", r.Dropped, err)
			}
		})
	}
}

// A connection whose socket is closed is over, with its requests; its session goes on. What the kernel can't have counted
// drops the session.
func TestRecoverSockets(t *testing.T) {
	for _, c := range []struct {
		sockets  map[uint64]Position
		sessions int
		dropped  string
	}{
		{map[uint64]Position{8: {0, 0}}, 2, "its socket is closed"},
		{map[uint64]Position{7: {999, 560}, 8: {0, 0}}, 1, "the kernel has counted"},
		{map[uint64]Position{7: {1400, 666}, 8: {0, 0}}, 1, "bytes are written"},
		{map[uint64]Position{7: {6000, 560}, 8: {0, 0}}, 1, "not in its buffers"},
	} {
		m := newSample(t)
		j, err := m.again(t)
		if err != nil {
			t.Fatal(err)
		}
		r, err := j.Recover(c.sockets)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Sessions) != c.sessions || len(r.Dropped) != 1 || !strings.Contains(r.Dropped[0].Error(), c.dropped) {
			t.Errorf("%v: %d sessions, dropped %v", c.sockets, len(r.Sessions), r.Dropped)
		}
		if s := r.Sessions[0]; c.sessions == 2 && (len(s.Conns) != 0 || len(s.Slots) != 1) {
			t.Errorf("%d connections and %d requests are left of a session without sockets", len(s.Conns), len(s.Slots))
		}
	}
}

// At each store of a control transaction the state of a logical unit is the old one, or the new one is in the redo record
// or in its place.
func TestControlTransactions(t *testing.T) {
	m := newSample(t)
	m.j.EndControl()
	m.j.stored = nil
	old, states := "as configured", 0
	before, rnd := slices.Clone(m.j.m), rand.New(rand.NewPCG(1, 2))
	for i, next := range []string{"reserved", strings.Repeat("long ", 200), "free"} {
		var kinds []string
		m.j.stored = func(off, n int64) {
			states++
			after := slices.Clone(m.j.m[off : off+n])
			for range 8 { // some of its words, as at a death in its midst
				for at := int64(0); n > 8 && at+8 <= n; at += 8 {
					from := after[at:]
					if rnd.IntN(2) == 0 {
						from = before[off+at:]
					}
					copy(m.j.m[off+at:off+at+8], from)
				}
				kinds = append(kinds, m.stateOf(t, old, next))
			}
			copy(m.j.m[off:], after)
			copy(before[off:], after)
			kinds = append(kinds, m.stateOf(t, old, next))
		}
		lsn, err := m.j.BeginControl([]byte(next), Extent{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.j.BeginControl(nil, Extent{}); err == nil || !strings.Contains(err.Error(), "under way") {
			t.Errorf("two at a time: %v", err)
		}
		for range 2 { // the second time as a successor that does not know of the first
			if err := m.u.Put(&State{LSN: lsn, Body: []byte(next)}); err != nil {
				t.Fatal(err)
			}
		}
		m.j.EndControl()
		if got := slices.Compact(kinds); !slices.Equal(got, []string{"old", "redo", "new"}) {
			t.Errorf("transaction %d went through %v", i, got)
		}
		old = next
	}
	if err := m.u.Put(&State{LSN: 9, Body: make([]byte, unitVersion)}); err == nil || !strings.Contains(err.Error(), "needs a buffer of its own") {
		t.Errorf("a long state: %v", err)
	}
	if states < 12 {
		t.Errorf("only %d stores", states)
	}
}

// stateOf says where the state of the logical unit is.
func (m *sample) stateOf(t *testing.T, old, next string) string {
	t.Helper()
	stored := m.j.stored
	m.j.stored = nil
	defer func() { m.j.stored = stored }()
	r, err := m.j.Recover(m.sockets)
	switch {
	case err != nil || len(r.Units) != 1:
		t.Errorf("the unit is lost: %v", err)
		return "lost"
	case r.Redo != nil && string(r.Redo.Body) == next:
		return "redo"
	case r.Redo == nil && string(r.Units[0].State.Body) == next:
		return "new"
	case r.Redo == nil && string(r.Units[0].State.Body) == old:
		return "old"
	}
	return "wrong"
}

// A damaged control area, or a unit that is damaged without a redo record, is no state to go on with.
func TestControlDamaged(t *testing.T) {
	m := newSample(t)
	m.j.m[redoAt(2)+stateHead]++
	if _, err := m.j.Recover(m.sockets); err == nil || !strings.Contains(err.Error(), "control transaction 2 is damaged") {
		t.Errorf("a damaged redo record: %v", err)
	}
	m.j.EndControl()
	m.j.m[m.u.at+unitFirst+stateHead]++
	if r, err := m.j.Recover(m.sockets); err != nil || len(r.Units) != 0 || len(r.Dropped) != 1 || !strings.Contains(r.Dropped[0].Error(), "its state has a wrong checksum") {
		t.Errorf("a damaged unit: %v", err)
	}
	m.j.store(atApplied, 0)
	if _, err := m.j.Recover(m.sockets); err == nil || !strings.Contains(err.Error(), "control area") {
		t.Errorf("a transaction is missing: %v", err)
	}
}

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(descriptor.Number(f), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// An idle session that has had commands, pings and unit attentions has 20 KiB at most, or 24 with many logical units, also after a
// successor has read it, and gives it back.
func TestIdleSession(t *testing.T) {
	testIdleSession(t, 2, 20<<10)
	testIdleSession(t, 16, 24<<10)
}

func testIdleSession(t *testing.T, words int, most int64) {
	const n = 50
	arena := newFile(t, testArena)
	j := newJournal(t, Options{Sessions: 1024, Connections: 4096, Units: 1024, Arena: arena})
	var beds []*bed
	for i := range n {
		b := &bed{}
		var err error
		if b.s, err = j.OpenSession(make([]byte, 1000), &b.record); err != nil {
			t.Fatal(err)
		}
		b.s.PutUnits(0x2900, make([]uint64, words))
		if b.c, err = b.s.OpenConn(make([]byte, 200), &Birth{Cookie: uint64(i)}, &b.conn); err != nil {
			t.Fatal(err)
		}
		b.slot = Slot{Kind: Command, Conn: b.c, Queued: true, Sense: make([]byte, 18)}
		for range 100 {
			b.read()
			b.flush()
			b.s.PutUnits(0x2900, make([]uint64, words))
			p, _ := b.c.TakePlace()
			b.s.PutPDU(b.c, p, &PDU{Out: b.conn.OutTail})
			b.conn.OutTail++
			b.s.PutConn(b.c, &b.conn)
			b.s.Commit()
			b.batch.NewHead++
			b.flush()
			b.c.GivePlace(p)
		}
		beds = append(beds, b)
	}
	sockets := make(map[uint64]Position)
	for i, b := range beds {
		sockets[uint64(i)] = Position{b.conn.Consumed, b.batch.Start + b.batch.Total}
	}
	if r, err := j.Recover(sockets); err != nil || len(r.Sessions) != n {
		t.Errorf("%v: dropped %v", err, r.Dropped)
	}
	const fixed = 16 * pageSize // header, control area and index
	if got := blocks(t, j.file) - fixed; got > n*most {
		t.Errorf("a session has %d bytes", got/n)
	}
	for _, b := range beds {
		if err := errors.Join(b.c.Close(), b.s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if got := blocks(t, j.file); got > fixed {
		t.Errorf("%d bytes are left when all sessions have ended", got)
	}
}

// What a journal names of an arena can be claimed by a successor, and has the bytes that were there.
func TestArena(t *testing.T) {
	arena, err := mem.NewArena(mem.ArenaOptions{Size: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	buf := arena.Pool().Get(5000)
	copy(buf.B, "write data")
	at, ok := buf.Offset()
	if !ok {
		t.Fatal("the buffer is not in the arena")
	}
	j := newJournal(t, Options{Sessions: 1, Connections: 1, Units: 1, Arena: arena.File()})
	if _, err := j.OpenSession(nil, &SessionRecord{TextIn: Extent{at, 5000}}); err != nil {
		t.Fatal(err)
	}
	r, err := j.Recover(nil)
	if err != nil || len(r.Sessions) != 1 {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(uintptr(descriptor.Number(arena.File())), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	next, err := mem.AdoptArena(os.NewFile(uintptr(fd), "arena"), mem.ArenaOptions{Size: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	e := r.Sessions[0].Record.TextIn
	claimed, err := next.Claim(e.Offset, int(e.Length), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Settle(); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(claimed.B, []byte("write data")) {
		t.Errorf("the claimed buffer begins with %q", claimed.B[:10])
	}
	claimed.Release()
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	buf.Release()
	if err := arena.Close(); err != nil {
		t.Error(err)
	}
}
