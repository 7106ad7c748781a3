// SPDX-License-Identifier: Apache-2.0

package power

import (
	"math/rand/v2"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testBlock = 512

// blockOf returns a block with a stamp.
func blockOf(m *model, lba int) []byte {
	b := make([]byte, testBlock)
	m.stamp(b, lba)
	return b
}

// after returns the verdict of a power cut that leaves this in block 3.
func after(m *model, b []byte) verdict {
	var v verdict
	m.compare(&v, b, 3, true)
	return v
}

// TestModel: what a block may hold after a power cut.
func TestModel(t *testing.T) {
	zeros := make([]byte, testBlock)
	var first, second []byte
	history := map[string]struct {
		do             func(m *model)
		old, mid, last int // how many failures there are with zeros, first, second
	}{
		"answered": {func(m *model) {
			m.begin(first, 3)
			m.end(3, 1, false)
		}, 0, 0, 1},
		"not answered": {func(m *model) { m.begin(first, 3) }, 0, 0, 1},
		"durable": {func(m *model) {
			m.begin(first, 3)
			m.end(3, 1, true)
		}, 1, 0, 1},
		"flushed, then another": {func(m *model) {
			m.begin(first, 3)
			m.end(3, 1, false)
			m.flushed(m.flushing())
			m.begin(second, 3)
			m.end(3, 1, false)
		}, 1, 0, 0},
		"answered after the flush began": {func(m *model) {
			m.begin(first, 3)
			until := m.flushing()
			m.end(3, 1, false)
			m.flushed(until)
		}, 0, 0, 1},
		"not answered, and a flush": {func(m *model) {
			m.begin(first, 3)
			m.flushed(m.flushing())
		}, 0, 0, 1},
		"both flushed": {func(m *model) {
			m.begin(first, 3)
			m.end(3, 1, false)
			m.begin(second, 3)
			m.end(3, 1, false)
			m.flushed(m.flushing())
		}, 1, 1, 0},
	}
	for name, tc := range history {
		for content, want := range []int{tc.old, tc.mid, tc.last} {
			m := newModel(1, testBlock, 16*testBlock)
			first, second = blockOf(m, 3), blockOf(m, 3)
			tc.do(m)
			v := after(m, [][]byte{zeros, first, second}[content])
			if v.failed != want {
				t.Errorf("%s, then content %d: %d failures, want %d: %q", name, content, v.failed, want, v.failures)
			}
			if v := after(m, [][]byte{zeros, first, second}[content]); v.failed != 0 || v.unsure != 0 {
				t.Errorf("%s: what was found once is not what is promised: %+v", name, v)
			}
		}
	}
}

// TestTorn: a block that is half of two writes is no block of either.
func TestTorn(t *testing.T) {
	m := newModel(1, testBlock, 16*testBlock)
	a, b := blockOf(m, 3), blockOf(m, 3)
	m.begin(a, 3)
	m.begin(b, 3)
	torn := append(a[:256:256], b[256:]...)
	if v := after(m, torn); v.failed != 1 || !strings.Contains(v.failures[0], "not wholly") {
		t.Errorf("%+v", v)
	}
}

// TestAgain: what a process that was killed has left is flushed by the next one.
func TestAgain(t *testing.T) {
	m := newModel(1, testBlock, 16*testBlock)
	a := blockOf(m, 3)
	m.begin(a, 3)
	var v verdict
	m.compare(&v, a, 3, false)
	if v.failed != 0 {
		t.Fatalf("%+v", v)
	}
	m.flushed(m.flushing())
	if v := after(m, make([]byte, testBlock)); v.failed != 1 {
		t.Errorf("a block that was seen and flushed may be lost: %+v", v)
	}
}

// TestDisk: a flush is kept, and nothing else need be.
func TestDisk(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	d, err := newDisk(1<<20, testBlock)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	put := func(value byte, off int64) {
		t.Helper()
		b := make([]byte, testBlock)
		b[0] = value
		if err := d.write(b, off); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, value byte, off int64) {
		t.Helper()
		b := make([]byte, testBlock)
		if err := d.read(b, off); err != nil || b[0] != value {
			t.Errorf("%s: %d, %v, want %d", what, b[0], err, value)
		}
	}
	put(1, 0)
	if err := d.flush(); err != nil {
		t.Fatal(err)
	}
	put(2, 0)
	put(3, 4096)
	want("before the cut", 2, 0)
	if lost := d.cut(random, 0); lost != 2 {
		t.Errorf("%d sectors are lost, want 2", lost)
	}
	want("flushed", 1, 0)
	want("not flushed", 0, 4096)
	put(4, 0)
	if lost := d.cut(random, 100); lost != 0 {
		t.Errorf("%d sectors are lost of a disk that keeps all", lost)
	}
	want("kept", 4, 0)
	d.fail(true)
	if d.flush() == nil || d.write(make([]byte, testBlock), 0) == nil {
		t.Error("a broken disk takes what it is given")
	}
	d.fail(false)
	if d.write(make([]byte, testBlock), 1<<20) == nil || d.write(make([]byte, 8), 0) == nil || d.read(make([]byte, 8), -8) == nil {
		t.Error("a disk has more than its size")
	}
}
