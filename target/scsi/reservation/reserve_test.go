// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestReserve goes through SPC-4 5.13.9: each type while each type is held.
func TestReserve(t *testing.T) {
	for _, held := range allTypes {
		for _, wanted := range allTypes {
			t.Run(held.String()+" then "+wanted.String(), func(t *testing.T) {
				l := newLocal(t, Options{})
				register(t, l, nexusA, 1)
				register(t, l, nexusB, 2)
				reserve(t, l, nexusA, 1, held)
				own := out(l, nexusA, actionReserve, wanted, basicList(1, 0, 0))
				others := out(l, nexusB, actionReserve, wanted, basicList(2, 0, 0))
				if wanted == held {
					good(t, own)
				} else {
					conflicting(t, own)
				}
				if wanted == held && held.allRegistrants() {
					good(t, others)
				} else {
					conflicting(t, others)
				}
				wantHeld(t, l, held, holderOf(held, nexusA))
				wantGeneration(t, l, 2)
			})
		}
	}
}

// TestReserveForm: SCOPE and TYPE of RESERVE, and of a PREEMPT that reserves.
func TestReserveForm(t *testing.T) {
	for scopeType := range 256 {
		scope, typ := scopeType>>4, Type(scopeType&0x0f)
		l := newLocal(t, Options{})
		register(t, l, nexusA, 1)
		reserved := l.Out(nexusA, outCDB(actionReserve, uint8(scopeType), 24), basicList(1, 0, 0))
		p := newLocal(t, Options{})
		register(t, p, nexusA, 1)
		reserve(t, p, nexusA, 1, ExclusiveAccess)
		preempts := p.Out(nexusA, outCDB(actionPreempt, uint8(scopeType), 24), basicList(1, 1, 0))
		if scope == 0 && typ.valid() {
			good(t, reserved)
			good(t, preempts)
			wantHeld(t, l, typ, holderOf(typ, nexusA))
			wantHeld(t, p, typ, holderOf(typ, nexusA))
			continue
		}
		refused(t, reserved, badCDB(2))
		refused(t, preempts, badCDB(2))
		wantHeld(t, l, 0, Nexus{})
		wantHeld(t, p, ExclusiveAccess, nexusA)
	}
}

// TestKeyVerified: whoever is not registered, or gives a wrong key, gets
// nowhere with any action but the two that register.
func TestKeyVerified(t *testing.T) {
	for action := uint8(actionReserve); action <= actionRegisterAndMove; action++ {
		if action == actionRegisterAndIgnore {
			continue
		}
		l := newLocal(t, Options{})
		register(t, l, nexusA, 1)
		reserve(t, l, nexusA, 1, WriteExclusive)
		before := l.Snapshot()
		for n, key := range map[Nexus]uint64{nexusA: 2, nexusA2: 1, nexusB: 0} {
			params := basicList(key, 1, 0)
			if action == actionRegisterAndMove {
				params = moveList(key, 1, 0, 1, portID(nexusC))
			}
			conflicting(t, out(l, n, action, WriteExclusive, params))
		}
		if d := cmp.Diff(before, l.Snapshot()); d != "" {
			t.Errorf("action %d has changed something:\n%s", action, d)
		}
	}
}

// TestRelease goes through SPC-4 5.13.11.2.2 for each type.
func TestRelease(t *testing.T) {
	for _, typ := range allTypes {
		t.Run(typ.String(), func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusA, 1)
			register(t, l, nexusB, 2)
			register(t, l, nexusC, 3)
			good(t, out(l, nexusA, actionRelease, typ, basicList(1, 0, 0)))

			reserve(t, l, nexusA, 1, typ)
			for wrong := range Type(16) {
				if wrong != typ {
					refused(t, out(l, nexusA, actionRelease, wrong, basicList(1, 0, 0)), &Sense{0x05, 0x26, 0x04, -1})
				}
			}
			refused(t, out(l, nexusA, actionRelease, 0x10|typ, basicList(1, 0, 0)), &Sense{0x05, 0x26, 0x04, -1})
			wantHeld(t, l, typ, holderOf(typ, nexusA))

			others := out(l, nexusB, actionRelease, typ, basicList(2, 0, 0))
			if typ.allRegistrants() { // every registrant is a holder
				good(t, others, released(nexusA), released(nexusC))
				reserve(t, l, nexusA, 1, typ)
			} else {
				good(t, others)
			}
			wantHeld(t, l, typ, holderOf(typ, nexusA))

			own := out(l, nexusA, actionRelease, typ, basicList(1, 0, 0))
			if typ.shared() {
				good(t, own, released(nexusB), released(nexusC))
			} else {
				good(t, own)
			}
			wantHeld(t, l, 0, Nexus{})
			wantKeys(t, l, map[Nexus]uint64{nexusA: 1, nexusB: 2, nexusC: 3})
			wantGeneration(t, l, 3)
		})
	}
}

// TestClear goes through SPC-4 5.13.11.2.7 for each type, and none.
func TestClear(t *testing.T) {
	for _, typ := range append(allTypes, 0) {
		t.Run(typ.String(), func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusA, 1)
			register(t, l, nexusB, 2)
			register(t, l, nexusC, 3)
			if typ != 0 {
				reserve(t, l, nexusA, 1, typ)
			}
			// Anybody registered may clear. SCOPE and TYPE are ignored.
			good(t, out(l, nexusB, actionClear, 0xff, basicList(2, 77, 0)), preempted(nexusA), preempted(nexusC))
			wantKeys(t, l, map[Nexus]uint64{})
			wantHeld(t, l, 0, Nexus{})
			wantGeneration(t, l, 4)
			if l.Check(nexusC, Write) {
				t.Error("still a conflict")
			}
		})
	}
}

// TestPreempt goes through SPC-4 table 72 and what follows it. A (key 1)
// holds; B (key 2) and C (key 3) are registered, as is A's initiator port on
// port 2 with C's key.
func TestPreempt(t *testing.T) {
	all := map[Nexus]uint64{nexusA: 1, nexusB: 2, nexusC: 3, nexusA2: 3}
	tests := []struct {
		name     string
		held     Type
		from     Nexus
		newKey   uint64
		typ      Type
		conflict bool
		want     *Sense
		keys     map[Nexus]uint64
		after    Type
		holder   Nexus
		told     []Attention
		abort    []Nexus
	}{
		{name: "the holder, type changed", held: WriteExclusive, from: nexusB, newKey: 1, typ: ExclusiveAccess,
			keys: map[Nexus]uint64{nexusB: 2, nexusC: 3, nexusA2: 3}, after: ExclusiveAccess, holder: nexusB,
			told: []Attention{released(nexusC), released(nexusA2), gone(nexusA)}, abort: []Nexus{nexusA}},
		{name: "the holder, same type", held: ExclusiveAccessRegistrantsOnly, from: nexusB, newKey: 1, typ: ExclusiveAccessRegistrantsOnly,
			keys: map[Nexus]uint64{nexusB: 2, nexusC: 3, nexusA2: 3}, after: ExclusiveAccessRegistrantsOnly, holder: nexusB,
			told: []Attention{gone(nexusA)}, abort: []Nexus{nexusA}},
		{name: "the holder, now of all registrants", held: WriteExclusive, from: nexusB, newKey: 1, typ: WriteExclusiveAllRegistrants,
			keys: map[Nexus]uint64{nexusB: 2, nexusC: 3, nexusA2: 3}, after: WriteExclusiveAllRegistrants,
			told: []Attention{released(nexusC), released(nexusA2), gone(nexusA)}, abort: []Nexus{nexusA}},
		{name: "itself", held: WriteExclusive, from: nexusA, newKey: 1, typ: ExclusiveAccessRegistrantsOnly,
			keys: all, after: ExclusiveAccessRegistrantsOnly, holder: nexusA,
			told: []Attention{released(nexusB), released(nexusC), released(nexusA2)}},
		{name: "others", held: WriteExclusive, from: nexusA, newKey: 3, typ: 0xf,
			keys: map[Nexus]uint64{nexusA: 1, nexusB: 2}, after: WriteExclusive, holder: nexusA,
			told: []Attention{gone(nexusC), gone(nexusA2)}, abort: []Nexus{nexusC, nexusA2}},
		{name: "others, by another", held: WriteExclusive, from: nexusB, newKey: 3, typ: 0xf,
			keys: map[Nexus]uint64{nexusA: 1, nexusB: 2}, after: WriteExclusive, holder: nexusA,
			told: []Attention{gone(nexusC), gone(nexusA2)}, abort: []Nexus{nexusC, nexusA2}},
		{name: "its own key, not holding", held: WriteExclusive, from: nexusC, newKey: 3, typ: WriteExclusive,
			keys: map[Nexus]uint64{nexusA: 1, nexusB: 2}, after: WriteExclusive, holder: nexusA,
			told: []Attention{gone(nexusA2)}, abort: []Nexus{nexusA2}},
		{name: "nobody", held: WriteExclusive, from: nexusB, newKey: 9, typ: WriteExclusive, conflict: true},
		{name: "key zero", held: WriteExclusive, from: nexusB, newKey: 0, typ: WriteExclusive, want: badField(8)},
		{name: "no reservation", from: nexusB, newKey: 1, typ: ExclusiveAccess,
			keys: map[Nexus]uint64{nexusB: 2, nexusC: 3, nexusA2: 3},
			told: []Attention{gone(nexusA)}, abort: []Nexus{nexusA}},
		{name: "no reservation, key zero", from: nexusB, newKey: 0, typ: ExclusiveAccess, want: badField(8)},
		{name: "all registrants", held: WriteExclusiveAllRegistrants, from: nexusB, newKey: 0, typ: ExclusiveAccess,
			keys: map[Nexus]uint64{nexusB: 2}, after: ExclusiveAccess, holder: nexusB,
			told: []Attention{gone(nexusA), gone(nexusC), gone(nexusA2)}, abort: []Nexus{nexusA, nexusC, nexusA2}},
		{name: "one of all registrants", held: ExclusiveAccessAllRegistrants, from: nexusB, newKey: 1, typ: WriteExclusive,
			keys: map[Nexus]uint64{nexusB: 2, nexusC: 3, nexusA2: 3}, after: ExclusiveAccessAllRegistrants,
			told: []Attention{gone(nexusA)}, abort: []Nexus{nexusA}},
		{name: "itself of all registrants", held: ExclusiveAccessAllRegistrants, from: nexusB, newKey: 2, typ: WriteExclusive,
			keys: map[Nexus]uint64{nexusA: 1, nexusC: 3, nexusA2: 3}, after: ExclusiveAccessAllRegistrants},
	}
	for _, test := range tests {
		for _, action := range []uint8{actionPreempt, actionPreemptAndAbort} {
			t.Run(test.name, func(t *testing.T) {
				l := newLocal(t, Options{})
				for _, n := range []Nexus{nexusA, nexusB, nexusC, nexusA2} {
					register(t, l, n, all[n])
				}
				if test.held != 0 {
					reserve(t, l, nexusA, 1, test.held)
				}
				r := out(l, test.from, action, test.typ, basicList(all[test.from], test.newKey, 0))
				if test.conflict || test.want != nil {
					if test.conflict {
						conflicting(t, r)
					} else {
						refused(t, r, test.want)
					}
					wantKeys(t, l, all)
					wantGeneration(t, l, 4)
					return
				}
				good(t, r, test.told...)
				var abort []Nexus
				if action == actionPreemptAndAbort {
					abort = test.abort
				}
				if d := cmp.Diff(abort, r.Abort, cmpopts.EquateEmpty()); d != "" {
					t.Errorf("to abort (-want +got):\n%s", d)
				}
				wantKeys(t, l, test.keys)
				wantHeld(t, l, test.after, test.holder)
				wantGeneration(t, l, 5)
			})
		}
	}
}

// TestPreemptLastOfAllRegistrants: with its last registrant an all registrants
// reservation goes too.
func TestPreemptLastOfAllRegistrants(t *testing.T) {
	l := newLocal(t, Options{})
	register(t, l, nexusA, 1)
	reserve(t, l, nexusA, 1, ExclusiveAccessAllRegistrants)
	good(t, out(l, nexusA, actionPreempt, ExclusiveAccess, basicList(1, 1, 0)))
	wantKeys(t, l, map[Nexus]uint64{})
	wantHeld(t, l, 0, Nexus{})
}

// TestGenerationWraps: PRGENERATION is 32 bits and goes on at zero.
func TestGenerationWraps(t *testing.T) {
	l := newLocal(t, Options{})
	if err := l.Restore(Snapshot{Generation: 0xffffffff}); err != nil {
		t.Fatal(err)
	}
	register(t, l, nexusA, 1)
	wantGeneration(t, l, 0)
}
