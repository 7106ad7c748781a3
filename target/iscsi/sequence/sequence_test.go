// SPDX-License-Identifier: Apache-2.0

package sequence_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
)

// window is the type under test, its requests being numbers of arrival.
type window = sequence.Window[int]

// model numbers commands without bounds, so that nothing in it wraps.
type model struct {
	exp, max uint64
	waiting  map[uint64]sequence.Waiting[int]
	arrivals int
}

// admit is RFC 7143 4.2.2.1 read word by word.
func (m *model) admit(sn uint64) sequence.Turn {
	_, there := m.waiting[sn]
	switch {
	case sn < m.exp || sn > m.max || there:
		return sequence.Never
	case sn > m.exp:
		return sequence.Later
	}
	m.exp++
	return sequence.Now
}

func (m *model) list() []sequence.Waiting[int] {
	list := []sequence.Waiting[int]{}
	for _, sn := range slices.Sorted(maps.Keys(m.waiting)) {
		list = append(list, m.waiting[sn])
	}
	return list
}

func (m *model) check(t *rapid.T, w *window) {
	exp, max := w.Numbers()
	if exp != uint32(m.exp) || max != uint32(m.max) {
		t.Fatalf("Numbers() = %d, %d, want %d, %d", exp, max, uint32(m.exp), uint32(m.max))
	}
	if d := cmp.Diff(m.list(), append([]sequence.Waiting[int]{}, slices.Collect(w.All())...)); d != "" || w.Len() != len(m.waiting) {
		t.Fatalf("%d requests wait, of the model %d: %s", w.Len(), len(m.waiting), d)
	}
}

// keep holds the request with a number that is to come later, or skips it.
func (m *model) keep(w *window, sn uint64, skip bool) {
	q := sequence.Waiting[int]{CmdSN: uint32(sn), Skip: skip}
	if skip {
		w.Skip(uint32(sn))
	} else {
		m.arrivals++
		q.Request = m.arrivals
		w.Keep(uint32(sn), q.Request)
	}
	m.waiting[sn] = q
}

// Whatever comes in whatever order, the window does what a model does that
// knows no wrapping and no sorting.
func TestWindowIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{waiting: make(map[uint64]sequence.Waiting[int])}
		m.exp = 1<<32 + rapid.SampledFrom([]uint64{0, 7, 1<<31 - 4, 1<<32 - 5}).Draw(t, "first")
		m.max = m.exp - 1
		w := new(window)
		w.Start(uint32(m.exp))
		near := func(t *rapid.T) uint64 { return m.exp + rapid.Uint64Range(0, 14).Draw(t, "number") - 3 }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.check(t, w) },
			"admit": func(t *rapid.T) {
				sn := near(t)
				want := m.admit(sn)
				if got := w.Admit(false, uint32(sn)); got != want {
					t.Fatalf("Admit(%d) = %d, want %d", uint32(sn), got, want)
				}
				if want == sequence.Later {
					m.keep(w, sn, rapid.Bool().Draw(t, "skip"))
				}
			},
			"immediate": func(t *rapid.T) {
				if got := w.Admit(true, uint32(near(t))); got != sequence.Now {
					t.Fatalf("Admit() of an immediate request = %d", got)
				}
			},
			"skip": func(t *rapid.T) {
				sn := near(t)
				_, there := m.waiting[sn]
				want := sn >= m.exp && sn <= m.max && !there
				if got := w.Expects(uint32(sn)); got != want {
					t.Fatalf("Expects(%d) = %v", uint32(sn), got)
				}
				if want {
					m.keep(w, sn, true)
				}
			},
			"next": func(t *rapid.T) {
				want, there := m.waiting[m.exp]
				got, ok := w.Next()
				if ok != there || got != want {
					t.Fatalf("Next() = %+v, %v, want %+v, %v", got, ok, want, there)
				}
				if there {
					delete(m.waiting, m.exp)
					m.exp++
				}
			},
			"open": func(t *rapid.T) {
				room := rapid.IntRange(0, 12).Draw(t, "room")
				w.Open(room)
				m.max = max(m.max, m.exp+uint64(room)-1)
			},
			"drop": func(t *rapid.T) {
				odd := func(r int) bool { return r%2 == 1 }
				w.Drop(odd)
				maps.DeleteFunc(m.waiting, func(_ uint64, q sequence.Waiting[int]) bool { return !q.Skip && odd(q.Request) })
			},
			"move": func(t *rapid.T) {
				if _, ready := m.waiting[m.exp]; ready {
					t.Skip("its owner would have handled it")
				}
				exp, max := w.Numbers()
				moved := new(window)
				if err := moved.Restore(exp, max, w.LastTag(), slices.Collect(w.All())); err != nil {
					t.Fatal(err)
				}
				if w.NewTag() != moved.NewTag() {
					t.Fatal("the tags go on differently")
				}
				w = moved
			},
		})
	})
}

func TestRestoreRefuses(t *testing.T) {
	type waiting = []sequence.Waiting[int]
	for name, list := range map[string]waiting{
		"its turn has come": {{CmdSN: 5}},
		"before the window": {{CmdSN: 4}},
		"behind the window": {{CmdSN: 6}, {CmdSN: 21}},
		"out of order":      {{CmdSN: 8}, {CmdSN: 7}},
		"twice":             {{CmdSN: 7}, {CmdSN: 7, Skip: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := new(window).Restore(5, 20, 0, list); err == nil {
				t.Error("Restore() has no error")
			}
		})
	}
}

func TestTagsLeaveOutTheReserved(t *testing.T) {
	w := new(window)
	if err := w.Restore(1, 1, pdu.ReservedTag-2, nil); err != nil {
		t.Fatal(err)
	}
	got := []uint32{w.NewTag(), w.NewTag(), w.NewTag()}
	if d := cmp.Diff([]uint32{pdu.ReservedTag - 1, 0, 1}, got); d != "" {
		t.Error(d)
	}
}
