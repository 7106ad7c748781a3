// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bulkState has much data in it.
type bulkState struct {
	Parts [][]byte `cbor:"1,keyasint"`
}

func (s *bulkState) Bulk() iter.Seq[*[]byte] {
	return func(yield func(*[]byte) bool) {
		for i := range s.Parts {
			if !yield(&s.Parts[i]) {
				return
			}
		}
	}
}

// parts makes data of these lengths.
func parts(lengths ...int) [][]byte {
	var list [][]byte
	for i, n := range lengths {
		list = append(list, bytes.Repeat([]byte{byte(i + 1)}, n))
	}
	return list
}

// bulkGiver gives a bulkState.
type bulkGiver struct {
	fakeGiver
	parts [][]byte
	snap  *Snapshot
}

func (g *bulkGiver) Snapshot(s *Snapshot) ([]int, error) {
	g.snap = s
	return nil, s.Put("bulk", &bulkState{append([][]byte(nil), g.parts...)})
}

// bulkTaker keeps copies of what it gets.
type bulkTaker struct{ parts [][]byte }

func (k *bulkTaker) Restore(s *Snapshot, _ []*os.File) error {
	var got bulkState
	err := s.Get("bulk", &got)
	for _, b := range got.Parts {
		k.parts = append(k.parts, bytes.Clone(b))
	}
	return err
}

func (k *bulkTaker) Start() {}

// move moves data to a successor that looks behind the snapshot, or to one as of before
// there was such data.
func move(t testing.TB, g *bulkGiver, apart bool) *bulkTaker {
	t.Helper()
	a, b := pair(t)
	defer a.Close()
	defer b.Close()
	k := new(bulkTaker)
	done := make(chan error, 1)
	go func() {
		if apart {
			_, err := Take(context.Background(), b, k, Hello{Version: "new"})
			done <- err
			return
		}
		done <- takeAsBefore(wire{b}, k)
	}()
	r := new(Report)
	err := Give(t.Context(), a, g, Options{Version: "old", Kill: func() { b.Close() }}, time.Now(), r)
	if taken := <-done; err != nil || taken != nil {
		t.Fatalf("Give: %v, the successor: %v", err, taken)
	}
	return k
}

// takeAsBefore is Take by a process without the feature.
func takeAsBefore(w wire, k *bulkTaker) error {
	if err := w.send(&message{Kind: kindHello, Hello: &Hello{Version: "before", Oldest: 1, Newest: Schema}}); err != nil {
		return err
	}
	s, _, err := w.receiveSnapshot()
	if err != nil {
		return err
	}
	defer s.release()
	if s.Extents != nil || len(s.mapped) > 0 {
		return fmt.Errorf("%d bytes and %v behind the snapshot", len(s.mapped), s.Extents)
	}
	if err := k.Restore(s, nil); err != nil {
		return err
	}
	for _, m := range []kind{kindPrepared, kindTaken, kindServing} {
		if err := w.send(&message{Kind: m}); err != nil {
			return err
		}
	}
	_, _, err = w.expect(kindCommit)
	return err
}

// Data long and short arrives as it was, whether it travels in the snapshot or behind it.
func TestBulk(t *testing.T) {
	want := parts(bulkAtLeast, 0, 7, bulkAtLeast-1, 3<<20+5, 1, bulkAtLeast+1)
	for _, apart := range []bool{false, true} {
		g := &bulkGiver{parts: want}
		k := move(t, g, apart)
		for i := range want {
			if !bytes.Equal(k.parts[i], want[i]) {
				t.Errorf("behind the snapshot %v: part %d of %d bytes arrived as %d others", apart, i, len(want[i]), len(k.parts[i]))
			}
		}
		behind, needs := int64(0), []string(nil)
		if apart {
			behind, needs = bulkAtLeast+3<<20+5+bulkAtLeast+1, []string{featureBulk}
		}
		if diff := cmp.Diff(needs, g.snap.Needs); g.snap.bulkSize != behind || diff != "" {
			t.Errorf("%d bytes behind the snapshot, want %d; needs:\n%s", g.snap.bulkSize, behind, diff)
		}
	}
}

// Nothing is taken from where the memory has none, and nothing is left over.
func TestBulkDamage(t *testing.T) {
	const size = 100
	for _, c := range []struct {
		extents []Extent
		want    string
	}{
		{[]Extent{{0, 0, size}, {2, size, 0}}, ""},
		{[]Extent{{0, 0, size + 1}}, "bulk data at 0+101, of 100"},
		{[]Extent{{1, size + 1, 0}}, "bulk data at 101+0"},
		{[]Extent{{1, -1, 2}}, "bulk data at -1+2"},
		{[]Extent{{1, 1, -1}}, "bulk data at 1+-1"},
		{[]Extent{{1, 1, 1<<63 - 1}}, "bulk data at 1+"},
		{[]Extent{{3, 0, 1}}, "no place 3"},
		{[]Extent{{1, 0, 1}, {1, 0, 1}}, "no place 1"},
		{[]Extent{{2, 0, 1}, {1, 0, 1}}, "no place 1"},
		{[]Extent{{-1, 0, 1}}, "no place -1"},
	} {
		s := &Snapshot{Schema: Schema}
		if err := s.Put("bulk", &bulkState{parts(1, 2, 3)}); err != nil {
			t.Fatal(err)
		}
		s.Extents, s.mapped = map[string][]Extent{"bulk": c.extents}, make([]byte, size)
		err := s.Get("bulk", new(bulkState))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.extents, err, c.want)
		}
	}
	s := &Snapshot{Extents: map[string][]Extent{"test": {{0, 0, 0}}}}
	if err := s.Put("test", testState()); err != nil {
		t.Fatal(err)
	}
	if err := s.Get("test", new(state)); err == nil {
		t.Error("a state without places takes bulk data")
	}
}

// A memfd that is shorter than its message says is not mapped.
func TestShortMemory(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "short")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(99); err != nil {
		t.Fatal(err)
	}
	if _, err := mapMemory(f, 100); err == nil {
		t.Error("100 of 99 bytes are mapped")
	}
}

func BenchmarkHandoff(b *testing.B) {
	for _, n := range []int{4 << 10, 16 << 10, 64 << 10, 1 << 20} {
		for _, apart := range []bool{false, true} {
			b.Run(fmt.Sprintf("16 MiB in parts of %d KiB/behind the snapshot %v", n>>10, apart), func(b *testing.B) {
				g := &bulkGiver{}
				for range 16 << 20 / n {
					g.parts = append(g.parts, bytes.Repeat([]byte{7}, n))
				}
				b.SetBytes(16 << 20)
				for b.Loop() {
					move(b, g, apart)
				}
			})
		}
	}
}

// crowded is a giver that has no room.
type crowded struct {
	fakeGiver
	follows bool
}

func (g *crowded) Room(follows bool) error {
	g.follows = follows
	return errors.New("it would take too much")
}

// TestNoRoom: nothing is frozen for an upgrade that there is no memory for.
func TestNoRoom(t *testing.T) {
	a, b := pair(t)
	hello := &Hello{Oldest: 1, Newest: Schema, Features: []string{featureRest}}
	if err := (wire{b}).send(&message{Kind: kindHello, Hello: hello}); err != nil {
		t.Fatal(err)
	}
	g := new(crowded)
	err := Give(t.Context(), a, g, Options{}, time.Now(), new(Report))
	if err == nil || err.Error() != "before the freeze: it would take too much" || len(g.calls) > 0 || !g.follows {
		t.Errorf("%v, calls %v, data follows: %v", err, g.calls, g.follows)
	}
}

// restGiver has something follow.
type restGiver struct {
	fakeGiver
	data []byte
}

func (g *restGiver) Snapshot(s *Snapshot) ([]int, error) {
	if s.TakesRest() {
		s.Follow(func(w io.Writer) error {
			_, err := w.Write(g.data)
			return err
		})
	}
	return g.fakeGiver.Snapshot(s)
}

// restTaker reads what follows when it has taken over.
type restTaker struct {
	fakeTaker
	rest *os.File
	got  chan []byte
}

func (k *restTaker) Restore(s *Snapshot, files []*os.File) error {
	k.rest = s.Rest()
	return k.fakeTaker.Restore(s, files)
}

func (k *restTaker) Start() {
	k.fakeTaker.Start()
	go func() {
		b, _ := io.ReadAll(k.rest)
		k.rest.Close()
		k.got <- b
	}()
}

// TestRest: what follows comes after SERVING, however much it is.
func TestRest(t *testing.T) {
	a, b := pair(t)
	g, k := &restGiver{data: bytes.Repeat([]byte("rest"), 3<<20)}, &restTaker{got: make(chan []byte, 1)}
	taken := make(chan error, 1)
	go func() {
		_, err := Take(t.Context(), b, k, Hello{})
		taken <- err
	}()
	r := new(Report)
	err := Give(t.Context(), a, g, Options{}, time.Now(), r)
	if got := <-k.got; err != nil || <-taken != nil || !bytes.Equal(got, g.data) {
		t.Fatalf("%v, %d bytes of %d", err, len(got), len(g.data))
	}
	if last := r.Phases[len(r.Phases)-1].Name; last != "rest" || r.Bytes > 1<<20 || r.Pause == 0 {
		t.Errorf("report %+v", r)
	}
}
