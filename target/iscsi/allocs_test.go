// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"io"
	"runtime"
	"testing"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// steady sends the same 4 KiB command over and over, one at a time, and
// allocates nothing itself.
type steady struct {
	raw    *raw
	pdu    []byte
	answer []byte
	cmdSN  uint32
}

func newSteady(r *rig, write bool) *steady {
	c := r.raw()
	c.login("ImmediateData=Yes")
	s := &steady{raw: c, cmdSN: 2}
	if write {
		s.pdu = encode(write10(7, 0, 64, 8, 4096), pattern(4096, 1))
		s.answer = make([]byte, pdu.BHSLen)
	} else {
		s.pdu = encode(read10(7, 0, 64, 8), nil)
		s.answer = make([]byte, pdu.BHSLen+4096)
	}
	return s
}

func (s *steady) once(t testing.TB) {
	h := (*pdu.BHS)(s.pdu)
	h[24], h[25], h[26], h[27] = byte(s.cmdSN>>24), byte(s.cmdSN>>16), byte(s.cmdSN>>8), byte(s.cmdSN)
	s.cmdSN++
	if _, err := s.raw.c.Write(s.pdu); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s.raw.c, s.answer); err != nil {
		t.Fatal(err)
	}
	if a := (*pdu.BHS)(s.answer); a[3] != 0 {
		t.Fatalf("status %#x", a[3])
	}
}

// TestNoAllocations counts what the whole process allocates while commands of
// 4 KiB run: nothing for a command, a little for the runtime's own needs.
func TestNoAllocations(t *testing.T) {
	const rounds = 4000
	for name, write := range map[string]bool{"read": false, "write": true} {
		t.Run(name, func(t *testing.T) {
			s := newSteady(newRig(t, Limits{}, Auth{}), write)
			for range 200 {
				s.once(t)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range rounds {
				s.once(t)
			}
			runtime.ReadMemStats(&after)
			if per := float64(after.Mallocs-before.Mallocs) / rounds; per > allowedAllocs {
				t.Errorf("%.3f allocations a command", per)
			}
		})
	}
}

func benchmark(b *testing.B, write bool) {
	t := new(testing.T)
	r := newRig(t, Limits{}, Auth{})
	defer r.close()
	s := newSteady(r, write)
	b.ReportAllocs()
	b.SetBytes(4096)
	for b.Loop() {
		s.once(b)
	}
}

func BenchmarkRead4K(b *testing.B)  { benchmark(b, false) }
func BenchmarkWrite4K(b *testing.B) { benchmark(b, true) }
