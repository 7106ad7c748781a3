// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"hash/crc32"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

var update = flag.Bool("update", false, "write testdata/layout1.txt anew, for a new layout alone")

// sample is a journal with something of everything.
type sample struct {
	j       *Journal
	arena   *os.File
	sockets map[uint64]Position
	s       [2]*Session
	c       [2]*Conn
	u       *Unit
}

func newSample(t testing.TB) *sample {
	a := newFile(t, testArena)
	m := &sample{
		arena: a, j: newJournal(t, Options{Sessions: 2, Connections: 3, Units: 2, Arena: a}),
		sockets: map[uint64]Position{7: {1000 + 400, 500 + 60}, 8: {0, 0}},
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	for i, name := range []string{"first session", "second session"} {
		m.s[i], err = m.j.OpenSession([]byte(name), &SessionRecord{ExpCmdSN: 1, MaxCmdSN: 32, TextIn: Extent{Offset: int64(i * 8192), Length: 10}})
		must(err)
		b := Birth{Cookie: uint64(7 + i), StatSN: 9}
		if i == 0 {
			b.Read, b.Written = 1000, 500
		}
		m.c[i], err = m.s[i].OpenConn([]byte("address of the "+name), &b, &ConnRecord{})
		must(err)
	}
	m.u, err = m.j.OpenUnit([]byte("a disk"), &State{LSN: m.j.LSN(), Body: []byte("as configured"), Data: Extent{1 << 20, 300}})
	must(err)
	m.j.SetLastTSIH(2)
	m.requests(t)
	m.batch()
	_, err = m.j.BeginControl([]byte("reserve it"), Extent{})
	must(err)
	return m
}

// requests are those of the first session.
func (m *sample) requests(t testing.TB) {
	s, c := m.s[0], m.c[0]
	c.PutInput(&Input{Chunk: Extent{65536, 4096}, Bulk: Extent{131072, 200}, BulkFrom: 240})
	for _, r := range []Slot{
		{Kind: Command, State: 2, Conn: c, Order: 3, Data: Extent{4096, 4096}, Received: 4096, R2Ts: []R2T{{1, 2, 3, 4}}, Asked: 1, R2TSN: 1, Progress: 512},
		{Kind: Command, Conn: c, Order: 4, Queued: true, Out: 0, In: Extent{12288, 100}, InLength: 100, Status: 2, Sense: []byte("seventy")},
		{Kind: Skipped, Header: [48]byte{1, 2}},
		{Kind: Management, Conn: c, Flags: 1, Status: 5, Order: 6},
	} {
		n, ok := s.TakeSlot()
		if !ok {
			t.Fatal("no slot")
		}
		s.PutSlot(n, &r)
	}
	n, _ := c.TakePlace()
	s.PutPDU(c, n, &PDU{Out: 1, Header: [48]byte{0x20}, Data: Extent{20480, 8}, Status: true})
	s.PutUnits(0x2900, []uint64{0, 5})
	s.PutUnits(Prevented, []uint64{2})
	s.PutConn(c, &ConnRecord{Consumed: 192, OutTail: 2, Flags: 1})
	s.PutRecord(&SessionRecord{ExpCmdSN: 5, MaxCmdSN: 36, LastTTT: 1, Flags: 2, Arrivals: 5, Leave: 77, LSN: 1, TextITT: 3, TextTTT: 4, TextOut: Extent{0, 6}})
	s.Commit()
	s.Start(1, 3)
	c.Start(192)
	s.PutRecord(&SessionRecord{ExpCmdSN: 99}) // not committed
}

// batch is the response of slot 2, of which 60 bytes are with the kernel.
func (m *sample) batch() {
	s, c := m.s[0], m.c[0]
	b := c.NextBatch()
	copy(b.Header(0)[:], bytes.Repeat([]byte{0x25}, 52))
	copy(b.Tail(0)[:], "tail")
	b.AddHeader(0, 52)
	b.AddData(Extent{12288, 100})
	b.AddTail(0, 4)
	b.AddSense(s, 2, len(s.SenseSegment(2)))
	c.CommitBatch(&BatchRecord{Total: 52 + 100 + 4 + 9, NewHead: 1, StatSN: 10})
}

// again opens the sample as a successor does.
func (m *sample) again(t testing.TB) (*Journal, error) {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", descriptor.Number(m.j.file)), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	j, err := Open(f, m.arena)
	if err != nil {
		f.Close()
		return nil, err
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j, nil
}

// seal makes the header's checksum right.
func (m *sample) seal() {
	le.PutUint32(m.j.m[headerLen:], crc32.Checksum(m.j.m[:headerLen], castagnoli))
}

// plain is what was recovered, in a form that can be compared.
type plain struct {
	LastTSIH uint16
	Redo     *State
	Sessions []any
	Units    []any
	Dropped  int
}

func recovered(t testing.TB, j *Journal, sockets map[uint64]Position) (plain, *Recovered) {
	t.Helper()
	r, err := j.Recover(sockets)
	if err != nil {
		t.Fatal(err)
	}
	p := plain{LastTSIH: r.LastTSIH, Redo: r.Redo, Dropped: len(r.Dropped)}
	for i := range r.Sessions {
		p.Sessions = append(p.Sessions, string(r.Sessions[i].Static), sight(&r.Sessions[i]))
	}
	for _, u := range r.Units {
		p.Units = append(p.Units, string(u.Static), u.State)
	}
	return p, r
}

// inSample is what is in force in the sample.
func inSample() plain {
	first := view{
		Record: SessionRecord{ExpCmdSN: 5, MaxCmdSN: 36, LastTTT: 1, Flags: 2, Arrivals: 5, Leave: 77, LSN: 1, TextITT: 3, TextTTT: 4, TextOut: Extent{0, 6}},
		Units:  map[uint16][]uint64{0x2900: {0, 5}, Prevented: {2}},
		Slots: map[uint16]slotView{
			1: {Slot{Kind: Command, State: 2, Order: 3, Data: Extent{4096, 4096}, Received: 4096, R2Ts: []R2T{{1, 2, 3, 4}}, Asked: 1, R2TSN: 1, Progress: 512}, 7, true},
			2: {Slot{Kind: Command, Order: 4, Queued: true, In: Extent{12288, 100}, InLength: 100, Status: 2, Sense: []byte("seventy")}, 7, false},
			3: {Slot{Kind: Skipped, Header: [48]byte{1, 2}}, 0, false},
			4: {Slot{Kind: Management, Flags: 1, Status: 5, Order: 6}, 7, false},
		},
		Conns: map[uint64]connView{7: {
			Record: ConnRecord{Consumed: 192, OutTail: 2, Flags: 1}, Read: 400, Started: true,
			Input: Input{Chunk: Extent{65536, 4096}, Bulk: Extent{131072, 200}, BulkFrom: 240},
			Batch: BatchRecord{Total: 165, NewHead: 1, StatSN: 10},
			Unsent: []string{
				fmt.Sprintf("%q %d", []byte(nil), Extent{12296, 92}), fmt.Sprintf("%q %d", "tail", Extent{}),
				fmt.Sprintf("%q %d", "\x00\x07seventy", Extent{}),
			},
			PDUs: map[uint16]PDU{1: {Out: 1, Header: [48]byte{0x20}, Data: Extent{20480, 8}, Status: true}},
		}},
	}
	second := view{
		Record: SessionRecord{ExpCmdSN: 1, MaxCmdSN: 32, TextIn: Extent{8192, 10}}, Units: map[uint16][]uint64{}, Slots: map[uint16]slotView{},
		Conns: map[uint64]connView{8: {Batch: BatchRecord{StatSN: 9}, PDUs: map[uint16]PDU{}}},
	}
	return plain{
		LastTSIH: 2, Redo: &State{LSN: 2, Body: []byte("reserve it")}, Sessions: []any{"first session", first, "second session", second},
		Units: []any{"a disk", State{LSN: 1, Body: []byte("as configured"), Data: Extent{1 << 20, 300}}},
	}
}

// same compares, and says how they differ.
func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s, in force (-) and recovered (+):\n%s", what, cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })))
	}
}

// A journal of this layout is in testdata, as its words that are not 0. It is written as before, and read as before.
func TestGolden(t *testing.T) {
	const name = "testdata/layout1.txt"
	m := newSample(t)
	clear(m.j.m[24:40]) // boot ID, and the arena's inode
	clear(m.j.m[56:64])
	m.seal()
	var b strings.Builder
	for off := 0; off < len(m.j.m); off += 8 {
		if w := m.j.m[off : off+8]; le.Uint64(w) != 0 {
			fmt.Fprintf(&b, "%07x %x\n", off, w)
		}
	}
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); d != "" {
		t.Errorf("the layout differs from %s: count layoutNumber up, or mend it:\n%s", name, d)
	}
	clear(m.j.m)
	for lines := bufio.NewScanner(bytes.NewReader(want)); lines.Scan(); {
		var off int
		var word string
		if n, err := fmt.Sscanf(lines.Text(), "%x %s", &off, &word); n != 2 || err != nil {
			t.Fatal(err)
		}
		if _, err := hex.Decode(m.j.m[off:off+8], []byte(word)); err != nil {
			t.Fatal(err)
		}
	}
	var h header
	if err := h.of(m.arena); err != nil {
		t.Fatal(err)
	}
	h.regions = m.j.g.regions
	h.encode(m.j.m)
	j, err := m.again(t)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := recovered(t, j, m.sockets)
	same(t, name, inSample(), got)
}
