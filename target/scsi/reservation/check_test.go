// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"fmt"
	"sync"
	"testing"
)

// TestCheckPersistent goes through SPC-4 5.13.1's table: who may do what under
// each type. A holds, B is registered, C is not.
func TestCheckPersistent(t *testing.T) {
	type verdict struct{ read, write, legacy bool } // true is a conflict
	none := verdict{}
	tests := []struct {
		typ      Type
		holder   verdict
		other    verdict
		stranger verdict
	}{
		{typ: WriteExclusive, holder: none, other: verdict{false, true, true}, stranger: verdict{false, true, true}},
		{typ: ExclusiveAccess, holder: none, other: verdict{true, true, true}, stranger: verdict{true, true, true}},
		{typ: WriteExclusiveRegistrantsOnly, holder: none, other: none, stranger: verdict{false, true, true}},
		{typ: ExclusiveAccessRegistrantsOnly, holder: none, other: none, stranger: verdict{true, true, true}},
		{typ: WriteExclusiveAllRegistrants, holder: none, other: none, stranger: verdict{false, true, true}},
		{typ: ExclusiveAccessAllRegistrants, holder: none, other: none, stranger: verdict{true, true, true}},
	}
	for _, test := range tests {
		t.Run(test.typ.String(), func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusA, 1)
			register(t, l, nexusB, 2)
			reserve(t, l, nexusA, 1, test.typ)
			for n, want := range map[Nexus]verdict{nexusA: test.holder, nexusB: test.other, nexusC: test.stranger} {
				for a, want := range map[Access]bool{
					Read: want.read, Write: want.write, Access(200): want.write,
					Reserve: want.legacy, Release: want.legacy,
					Probe: false, Always: false, PRIn: false, PROut: false,
				} {
					if got := l.Check(n, a); got != want {
						t.Errorf("Check(%v, %d) = %t, want %t", n, a, got, want)
					}
				}
				if l.Reserve(n) != want.legacy || l.Release(n) != want.legacy {
					t.Errorf("RESERVE and RELEASE of %v: want conflict %t", n, want.legacy)
				}
			}
			wantHeld(t, l, test.typ, holderOf(test.typ, nexusA))
			if l.Snapshot().Reserved != nil {
				t.Error("RESERVE by a registrant has established a reservation")
			}
		})
	}
}

// TestCheckRegisteredOnly: registrations without a reservation keep nobody
// from the medium, but rule SPC-2's commands out for everybody (SPC-2 5.5.1).
func TestCheckRegisteredOnly(t *testing.T) {
	l := newLocal(t, Options{})
	register(t, l, nexusA, 1)
	for _, n := range []Nexus{nexusA, nexusB} {
		for a, want := range map[Access]bool{
			Read: false, Write: false, Probe: false, Always: false,
			PRIn: false, PROut: false, Reserve: true, Release: true,
		} {
			if got := l.Check(n, a); got != want {
				t.Errorf("Check(%v, %d) = %t, want %t", n, a, got, want)
			}
		}
		if !l.Reserve(n) || !l.Release(n) {
			t.Errorf("RESERVE or RELEASE of %v is GOOD", n)
		}
	}
}

// TestCheckSPC2 goes through SPC-2 5.5.1's table. A holds.
func TestCheckSPC2(t *testing.T) {
	l := newLocal(t, Options{})
	for range 2 { // again by the holder is GOOD too
		if l.Reserve(nexusA) {
			t.Fatal("RESERVE is not GOOD")
		}
	}
	if !l.Reserve(nexusB) {
		t.Fatal("RESERVE by another is GOOD")
	}
	for a, want := range map[Access]struct{ holder, other bool }{
		Read:    {false, true},
		Write:   {false, true},
		Probe:   {false, true},
		Reserve: {false, true},
		Release: {false, false},
		Always:  {false, false},
		PRIn:    {true, true},
		PROut:   {true, true},
	} {
		if l.Check(nexusA, a) != want.holder {
			t.Errorf("Check(holder, %d) = %t", a, !want.holder)
		}
		if l.Check(nexusB, a) != want.other {
			t.Errorf("Check(other, %d) = %t", a, !want.other)
		}
	}
	for _, n := range []Nexus{nexusA, nexusB} {
		conflicting(t, l.In(n, inCDB(actionReadKeys, 100)))
		conflicting(t, out(l, n, actionRegister, 0, basicList(0, 1, 0)))
	}
	if l.Release(nexusB) || !l.Check(nexusB, Read) {
		t.Error("RELEASE by another is not GOOD, or has released")
	}
	if l.Release(nexusA) || l.Check(nexusB, Write) {
		t.Error("RELEASE by the holder is not GOOD, or has not released")
	}
}

// TestSPC2Ends shows what ends an SPC-2 reservation and leaves a persistent
// one.
func TestSPC2Ends(t *testing.T) {
	ends := map[string]struct {
		do   func(l *Local)
		ends bool
	}{
		"the holder's nexus is lost": {func(l *Local) { l.NexusLost(nexusA) }, true},
		"another nexus is lost":      {func(l *Local) { l.NexusLost(nexusA2) }, false},
		"logical unit reset":         {func(l *Local) { l.Reset() }, true},
	}
	for name, test := range ends {
		t.Run(name, func(t *testing.T) {
			l := newLocal(t, Options{})
			l.Reserve(nexusA)
			test.do(l)
			if held := l.Check(nexusB, Read); held == test.ends {
				t.Errorf("held afterwards: %t", held)
			}
			p := newLocal(t, Options{})
			register(t, p, nexusA, 1)
			reserve(t, p, nexusA, 1, ExclusiveAccess)
			test.do(p)
			wantHeld(t, p, ExclusiveAccess, nexusA)
		})
	}
}

// TestCheckAllocates: Check is called for every command.
func TestCheckAllocates(t *testing.T) {
	l := newLocal(t, Options{})
	check := func() { l.Check(nexusB, Write) }
	if n := testing.AllocsPerRun(100, check); n != 0 {
		t.Errorf("%v allocations with nothing reserved", n)
	}
	register(t, l, nexusA, 1)
	reserve(t, l, nexusA, 1, WriteExclusiveAllRegistrants)
	if n := testing.AllocsPerRun(100, check); n != 0 {
		t.Errorf("%v allocations with a reservation", n)
	}
}

// TestConcurrent changes the state while others look: Check sees one state or
// the other, never a mixture. B is registered throughout.
func TestConcurrent(t *testing.T) {
	l := newLocal(t, Options{})
	register(t, l, nexusB, 2)
	stop := make(chan struct{})
	var lookers sync.WaitGroup
	for range 2 {
		lookers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if l.Check(nexusB, Write) || !l.Check(nexusC, Reserve) {
					t.Error("a conflict where there is none, or none where there is one")
					return
				}
				l.In(nexusC, inCDB(actionReadFullStatus, 0xffff))
				l.Snapshot()
			}
		})
	}
	for range 200 {
		register(t, l, nexusA, 1)
		reserve(t, l, nexusA, 1, ExclusiveAccessRegistrantsOnly)
		good(t, out(l, nexusB, actionPreempt, WriteExclusiveAllRegistrants, basicList(2, 1, 0)), gone(nexusA))
		good(t, out(l, nexusB, actionRelease, WriteExclusiveAllRegistrants, basicList(2, 0, 0)))
	}
	close(stop)
	lookers.Wait()
}

func BenchmarkCheck(b *testing.B) {
	for _, registered := range []int{0, 1, 32} {
		b.Run(fmt.Sprintf("registered=%d", registered), func(b *testing.B) {
			l := newLocal(b, Options{})
			for i := range registered {
				register(b, l, nexusA.onPort(uint16(i)), 1)
			}
			if registered > 0 {
				reserve(b, l, nexusA.onPort(0), 1, WriteExclusiveAllRegistrants)
			}
			b.ReportAllocs()
			for b.Loop() {
				l.Check(nexusA, Write)
			}
		})
	}
}
