// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

var (
	badField  = func(field int) *Sense { return &Sense{0x05, 0x26, 0x00, field} }
	badCDB    = func(field int) *Sense { return &Sense{0x05, 0x24, 0x00, field} }
	badLength = &Sense{0x05, 0x1a, 0x00, -1}
	full      = &Sense{0x05, 0x55, 0x04, -1}
)

// TestRegister goes through SPC-4 tables 67 and 68 without SPEC_I_PT. B is
// registered throughout.
func TestRegister(t *testing.T) {
	const registered, other = 7, 8
	tests := []struct {
		name        string
		action      uint8
		before      uint64 // A's key, zero for unregistered
		key, newKey uint64
		conflict    bool
		after       uint64
		counts      uint32
	}{
		{"new", actionRegister, 0, 0, other, false, other, 1},
		{"nothing", actionRegister, 0, 0, 0, false, 0, 0},
		{"new with a key", actionRegister, 0, registered, other, true, 0, 0},
		{"wrong key", actionRegister, registered, other, other, true, registered, 0},
		{"no key", actionRegister, registered, 0, other, true, registered, 0},
		{"change", actionRegister, registered, registered, other, false, other, 1},
		{"same again", actionRegister, registered, registered, registered, false, registered, 1},
		{"unregister", actionRegister, registered, registered, 0, false, 0, 1},
		{"unregister with a wrong key", actionRegister, registered, other, 0, true, registered, 0},
		{"ignore, new", actionRegisterAndIgnore, 0, registered, other, false, other, 1},
		{"ignore, nothing", actionRegisterAndIgnore, 0, registered, 0, false, 0, 0},
		{"ignore, change", actionRegisterAndIgnore, registered, 99, other, false, other, 1},
		{"ignore, unregister", actionRegisterAndIgnore, registered, 99, 0, false, 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusB, 1)
			want := map[Nexus]uint64{nexusB: 1}
			if test.before != 0 {
				register(t, l, nexusA, test.before)
			}
			if test.after != 0 {
				want[nexusA] = test.after
			}
			before := l.Generation()
			// SCOPE and TYPE are ignored.
			r := l.Out(nexusA, outCDB(test.action, 0xff, 24), basicList(test.key, test.newKey, 0))
			if test.conflict {
				conflicting(t, r)
			} else {
				good(t, r)
			}
			wantKeys(t, l, want)
			wantGeneration(t, l, before+test.counts)
		})
	}
}

// TestUnregisterHolder: what an unregistration does to a reservation (SPC-4
// 5.13.11.2.3), for each type.
func TestUnregisterHolder(t *testing.T) {
	for _, typ := range allTypes {
		t.Run(typ.String(), func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusA, 1)
			register(t, l, nexusB, 2)
			register(t, l, nexusC, 3)
			reserve(t, l, nexusA, 1, typ)

			good(t, out(l, nexusB, actionRegister, 0, basicList(2, 0, 0)))
			wantHeld(t, l, typ, holderOf(typ, nexusA))

			last := out(l, nexusA, actionRegister, 0, basicList(1, 0, 0))
			switch {
			case typ.allRegistrants():
				good(t, last)
				wantHeld(t, l, typ, Nexus{})
				good(t, out(l, nexusC, actionRegister, 0, basicList(3, 0, 0)))
			case typ.shared():
				good(t, last, released(nexusC))
			default:
				good(t, last)
			}
			wantHeld(t, l, 0, Nexus{})
			if l.Check(nexusB, Write) {
				t.Error("still a conflict")
			}
		})
	}
}

// TestChangeHolderKey: the reservation stays when its holder's key changes.
func TestChangeHolderKey(t *testing.T) {
	l := newLocal(t, Options{})
	register(t, l, nexusA, 1)
	reserve(t, l, nexusA, 1, ExclusiveAccess)
	good(t, out(l, nexusA, actionRegister, 0, basicList(1, 9, 0)))
	wantHeld(t, l, ExclusiveAccess, nexusA)
	got := l.In(nexusB, inCDB(actionReadReservation, 0xffff))
	if want := unhex(t, "0000000000000009"); !bytes.Equal(got.Data[8:16], want) {
		t.Errorf("key %x, want %x", got.Data[8:16], want)
	}
}

func TestAllTargetPorts(t *testing.T) {
	l := newLocal(t, Options{})
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 5, flagAllPorts)))
	wantKeys(t, l, map[Nexus]uint64{nexusA: 5, nexusA2: 5})
	wantGeneration(t, l, 1)

	good(t, out(l, nexusA2, actionRegister, 0, basicList(5, 6, 0)))
	// On port 2 the key is not 5: the same request there would be a conflict.
	conflicting(t, out(l, nexusA, actionRegister, 0, basicList(5, 7, flagAllPorts)))
	wantKeys(t, l, map[Nexus]uint64{nexusA: 5, nexusA2: 6})

	good(t, out(l, nexusA, actionRegisterAndIgnore, 0, basicList(0, 7, flagAllPorts)))
	wantKeys(t, l, map[Nexus]uint64{nexusA: 7, nexusA2: 7})

	// A port without a registration is no conflict, and gets one.
	good(t, out(l, nexusA2, actionRegister, 0, basicList(7, 0, 0)))
	good(t, out(l, nexusA, actionRegister, 0, basicList(7, 8, flagAllPorts)))
	wantKeys(t, l, map[Nexus]uint64{nexusA: 8, nexusA2: 8})

	register(t, l, nexusB, 1)
	reserve(t, l, nexusA2, 8, WriteExclusiveRegistrantsOnly)
	good(t, out(l, nexusA, actionRegister, 0, basicList(8, 0, flagAllPorts)), released(nexusB))
	wantKeys(t, l, map[Nexus]uint64{nexusB: 1})
	wantHeld(t, l, 0, Nexus{})
}

func TestSpecifyInitiatorPorts(t *testing.T) {
	l := newLocal(t, Options{Nexuses: func() []Nexus { return []Nexus{nexusB, nexusB.onPort(2), nexusC} }})
	// Itself and a name twice are taken once; an ISID need not be open now.
	other := nexusB
	other.ISID[5] = 9
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 5, flagSpecPorts,
		portID(nexusA), portID(nexusC), portID(other), portID(nexusC))))
	wantKeys(t, l, map[Nexus]uint64{nexusA: 5, nexusC: 5, other: 5})
	wantGeneration(t, l, 1)

	// SPC-4 table 67: a registered sender, or a registered other, is an error.
	refused(t, out(l, nexusA, actionRegister, 0, basicList(5, 6, flagSpecPorts, portID(nexusB))), badField(20))
	refused(t, out(l, nexusB, actionRegister, 0, basicList(0, 6, flagSpecPorts, portID(nexusC))), badField(28))
	// Nothing to register: the list is ignored.
	good(t, out(l, nexusB, actionRegister, 0, basicList(0, 0, flagSpecPorts, portID(nexusC))))
	wantKeys(t, l, map[Nexus]uint64{nexusA: 5, nexusC: 5, other: 5})
	wantGeneration(t, l, 1)
}

// TestSpecifyInitiatorDevice: an iSCSI name alone stands for every initiator
// port of it that is logged in.
func TestSpecifyInitiatorDevice(t *testing.T) {
	second := nexusB
	second.ISID[5] = 9
	l := newLocal(t, Options{Nexuses: func() []Nexus {
		return []Nexus{nexusA, nexusB, nexusB.onPort(2), second.onPort(2)}
	}})
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 5, flagSpecPorts|flagAllPorts, deviceID(nexusB.Initiator))))
	wantKeys(t, l, map[Nexus]uint64{
		nexusA: 5, nexusA2: 5, nexusB: 5, nexusB.onPort(2): 5, second: 5, second.onPort(2): 5,
	})
	refused(t, out(l, nexusC, actionRegister, 0, basicList(0, 5, flagSpecPorts, deviceID("iqn.unknown"))), badField(28))
}

// TestOutForm goes through what is wrong with a command whatever the state is.
func TestOutForm(t *testing.T) {
	id := portID(nexusB)
	cut := func(b []byte, n int) []byte { return b[:n] }
	edit := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	spec := basicList(0, 1, flagSpecPorts, id, id)
	move := moveList(1, 2, 0, 2, id)
	tests := []struct {
		name   string
		action uint8
		params []byte
		length int // of the CDB, -1 for that of params
		want   *Sense
	}{
		{"REPLACE LOST RESERVATION", 8, basicList(0, 1, 0), -1, badCDB(1)},
		{"reserved action", 0x1f, basicList(0, 1, 0), -1, badCDB(1)},
		{"nothing", actionRegister, nil, -1, badLength},
		{"23 bytes", actionRegister, cut(basicList(0, 1, 0), 23), -1, badLength},
		{"25 bytes", actionRegister, append(basicList(0, 1, 0), 0), -1, badLength},
		{"less than announced", actionRegister, basicList(0, 1, 0), 25, badLength},
		{"much less than announced", actionRegister, basicList(0, 1, 0), 0xffffffff, badLength},
		{"MOVE of 23 bytes", actionRegisterAndMove, cut(move, 23), -1, badLength},
		{"more than anybody needs", actionRegister, make([]byte, MaxParameterList+1), -1, badLength},
		{"APTPL", actionRegister, basicList(0, 1, flagAPTPL), -1, badField(20)},
		{"APTPL, ignoring", actionRegisterAndIgnore, basicList(0, 1, flagAPTPL), -1, badField(20)},
		{"APTPL of MOVE", actionRegisterAndMove, moveList(1, 2, flagAPTPL, 2, id), -1, badField(17)},
		{"SPEC_I_PT, ignoring", actionRegisterAndIgnore, spec, -1, badField(20)},
		{"SPEC_I_PT, RESERVE", actionReserve, spec, -1, badField(20)},
		{"SPEC_I_PT, CLEAR", actionClear, spec, -1, badField(20)},
		{"SPEC_I_PT, no list", actionRegister, cut(spec, 24), -1, badLength},
		{"SPEC_I_PT, half a length", actionRegister, cut(spec, 27), -1, badLength},
		{"SPEC_I_PT, half a TransportID", actionRegister, cut(spec, 40), -1, badLength},
		{"SPEC_I_PT, TransportID cut by the length", actionRegister, edit(spec, 27, spec[27]-4), -1, badLength},
		{"SPEC_I_PT, length beyond the list", actionRegister, edit(spec, 24, 0xff), -1, badLength},
		{"SPEC_I_PT, wrong protocol", actionRegister, edit(spec, 28, 0x46), -1, badField(28)},
		{"SPEC_I_PT, reserved format", actionRegister, edit(spec, 28, 0x85), -1, badField(28)},
		{"SPEC_I_PT, odd length", actionRegister, edit(spec, 31, spec[31]-1), -1, badField(30)},
		{"SPEC_I_PT, short TransportID", actionRegister, edit(spec, 31, 16), -1, badField(30)},
		{"SPEC_I_PT, no name", actionRegister, edit(spec, 32, 0), -1, badField(32)},
		{"SPEC_I_PT, name with a space", actionRegister, edit(spec, 32, ' '), -1, badField(32)},
		{"SPEC_I_PT, name not UTF-8", actionRegister, edit(spec, 32, 0xff), -1, badField(32)},
		{"SPEC_I_PT, no separator", actionRegister, edit(spec, 32+25, '.'), -1, badField(32)},
		{"SPEC_I_PT, ISID not hexadecimal", actionRegister, edit(spec, 32+30, 'g'), -1, badField(32)},
		{"SPEC_I_PT, ISID too short", actionRegister, edit(spec, 32+40, 0), -1, badField(32)},
		{"MOVE, TransportID beyond the list", actionRegisterAndMove, edit(move, 23, move[23]+4), -1, badLength},
		{"MOVE, no TransportID", actionRegisterAndMove, moveList(1, 2, 0, 2, nil), -1, badLength},
		{"MOVE, two TransportIDs", actionRegisterAndMove, moveList(1, 2, 0, 2, append(bytes.Clone(id), id...)), -1, badField(20)},
		{"MOVE, wrong protocol", actionRegisterAndMove, edit(move, 24, 0x46), -1, badField(24)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLocal(t, Options{})
			if test.length < 0 {
				test.length = len(test.params)
			}
			refused(t, l.Out(nexusA, outCDB(test.action, 0, test.length), test.params), test.want)
			wantKeys(t, l, map[Nexus]uint64{})
			wantGeneration(t, l, 0)
		})
	}
}

// TestRegistrationLimit fills a logical unit up by every way there is.
func TestRegistrationLimit(t *testing.T) {
	l := newLocal(t, Options{})
	many := func(i int) Nexus {
		name := fmt.Sprintf("iqn.2024-01.org.example:many-%d", i/maxOfInitiator)
		return Nexus{Initiator: name, ISID: [6]byte{4: byte(i >> 8), 5: byte(i)}, TargetPort: 1}
	}
	for i := range MaxRegistrations - 2 {
		register(t, l, many(i), 1)
	}
	refused(t, out(l, many(0), actionRegister, 0, basicList(1, 1, flagAllPorts)), full) // its initiator has its share
	good(t, out(l, many(0), actionRegisterAndIgnore, 0, basicList(0, 2, 0)))
	register(t, l, nexusA, 1)
	refused(t, out(l, nexusB, actionRegister, 0, basicList(0, 1, flagAllPorts)), full)
	register(t, l, nexusB, 2)
	before := l.Snapshot()
	refused(t, out(l, nexusC, actionRegisterAndIgnore, 0, basicList(0, 3, 0)), full)
	reserve(t, l, nexusA, 1, ExclusiveAccess)
	refused(t, out(l, nexusA, actionRegisterAndMove, 0, moveList(1, 3, 0, 1, portID(nexusC))), full)
	wantHeld(t, l, ExclusiveAccess, nexusA)
	if n := len(keys(l)); n != MaxRegistrations || l.Generation() != before.Generation {
		t.Errorf("%d registrations, generation %d, want %d", n, l.Generation(), before.Generation)
	}
	// One goes, one comes.
	good(t, out(l, nexusA, actionRegisterAndMove, 0, moveList(1, 3, flagUnregister, 1, portID(nexusC))))
	wantHeld(t, l, ExclusiveAccess, nexusC)
	if err := newLocal(t, Options{}).Restore(l.Snapshot()); err != nil {
		t.Error(err)
	}
}

// TestRegistrationShares: neither one name nor those that somebody registers for others take the
// room of who registers itself.
func TestRegistrationShares(t *testing.T) {
	l := newLocal(t, Options{})
	var ids [][]byte
	for i := range maxWithOthers {
		ids = append(ids, portID(Nexus{Initiator: fmt.Sprintf("iqn.2024-01.org.example:other-%d", i), TargetPort: 1}))
	}
	refused(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagSpecPorts, ids...)), full)
	good(t, out(l, nexusA, actionRegister, 0, basicList(0, 1, flagSpecPorts, ids[1:]...)))
	refused(t, out(l, nexusB, actionRegister, 0, basicList(0, 1, flagSpecPorts, ids[0])), full)
	for i := range maxOfInitiator {
		register(t, l, Nexus{Initiator: nexusB.Initiator, ISID: [6]byte{4: byte(i >> 8), 5: byte(i)}, TargetPort: 1}, 2)
	}
	refused(t, out(l, nexusB, actionRegister, 0, basicList(0, 2, 0)), full)
	register(t, l, nexusC, 3)
}

// TestMove goes through SPC-4 table 70 and 5.13.8.
func TestMove(t *testing.T) {
	to := func(n Nexus) []byte { return portID(n) }
	tests := []struct {
		name     string
		typ      Type
		from     Nexus
		params   []byte
		conflict bool
		want     *Sense
		keys     map[Nexus]uint64
		holder   Nexus
	}{
		{name: "to a new nexus", typ: WriteExclusive, from: nexusA, params: moveList(1, 5, 0, 1, to(nexusC)),
			keys: map[Nexus]uint64{nexusA: 1, nexusB: 2, nexusC: 5}, holder: nexusC},
		{name: "to a registered nexus", typ: ExclusiveAccessRegistrantsOnly, from: nexusA, params: moveList(1, 5, 0, 1, to(nexusB)),
			keys: map[Nexus]uint64{nexusA: 1, nexusB: 5}, holder: nexusB},
		{name: "to another port", typ: ExclusiveAccess, from: nexusA, params: moveList(1, 5, 0, 2, to(nexusB)),
			keys: map[Nexus]uint64{nexusA: 1, nexusB: 2, nexusB.onPort(2): 5}, holder: nexusB.onPort(2)},
		{name: "and unregister", typ: WriteExclusiveRegistrantsOnly, from: nexusA, params: moveList(1, 5, flagUnregister, 1, to(nexusC)),
			keys: map[Nexus]uint64{nexusB: 2, nexusC: 5}, holder: nexusC},
		{name: "to a device with one port", typ: WriteExclusive, from: nexusA, params: moveList(1, 5, 0, 1, deviceID(nexusB.Initiator)),
			keys: map[Nexus]uint64{nexusA: 1, nexusB: 5}, holder: nexusB},
		{name: "from a stranger", typ: WriteExclusive, from: nexusC, params: moveList(0, 5, 0, 1, to(nexusB)), conflict: true},
		{name: "with a wrong key", typ: WriteExclusive, from: nexusA, params: moveList(9, 5, 0, 1, to(nexusB)), conflict: true},
		{name: "from another", typ: WriteExclusive, from: nexusB, params: moveList(2, 5, 0, 1, to(nexusC)), conflict: true},
		{name: "of all registrants", typ: WriteExclusiveAllRegistrants, from: nexusA, params: moveList(1, 5, 0, 1, to(nexusC)), conflict: true},
		{name: "of nothing", from: nexusA, params: moveList(1, 5, 0, 1, to(nexusC)), want: badCDB(1)},
		{name: "without a key", typ: WriteExclusive, from: nexusA, params: moveList(1, 0, 0, 1, to(nexusC)), want: badField(8)},
		{name: "to itself", typ: WriteExclusive, from: nexusA, params: moveList(1, 5, 0, 2, to(nexusA)), want: badField(24)},
		{name: "to a device with two ports", typ: WriteExclusive, from: nexusA, params: moveList(1, 5, 0, 1, deviceID(nexusC.Initiator)), want: badField(24)},
		{name: "to an unknown port", typ: WriteExclusive, from: nexusA, params: moveList(1, 5, 0, 3, to(nexusC)), want: badField(18)},
	}
	second := nexusC
	second.ISID[5]--
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := newLocal(t, Options{Nexuses: func() []Nexus { return []Nexus{nexusB, nexusB.onPort(2), nexusC, second} }})
			register(t, l, nexusA, 1)
			register(t, l, nexusB, 2)
			if test.typ != 0 {
				reserve(t, l, nexusA, 1, test.typ)
			}
			r := out(l, test.from, actionRegisterAndMove, 0xf, test.params)
			switch {
			case test.conflict:
				conflicting(t, r)
			case test.want != nil:
				refused(t, r, test.want)
			default:
				good(t, r)
				wantKeys(t, l, test.keys)
				wantHeld(t, l, test.typ, test.holder)
				wantGeneration(t, l, 3)
				return
			}
			wantKeys(t, l, map[Nexus]uint64{nexusA: 1, nexusB: 2})
			wantHeld(t, l, test.typ, map[bool]Nexus{true: holderOf(test.typ, nexusA)}[test.typ != 0])
			wantGeneration(t, l, 2)
		})
	}
}

func TestTransportIDRoundTrip(t *testing.T) {
	for _, length := range []int{1, 2, 3, 4, 18, 19, 20, iscsiname.MaxLen} {
		n := Nexus{Initiator: string(bytes.Repeat([]byte{'x'}, length)), ISID: [6]byte{1, 2, 3, 0xab, 0xcd, 0xef}}
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			b := portID(n)
			id, used, sense := decodeTransportID(append(bytes.Clone(b), 1, 2, 3), 0)
			if sense != nil || used != len(b) || len(b)%4 != 0 || len(b) < minTransportID || len(b) > maxTransportID {
				t.Fatalf("%d of %d bytes, sense %+v", used, len(b), sense)
			}
			if want := (transportID{n.Initiator, n.ISID, true}); id != want {
				t.Errorf("%+v, want %+v", id, want)
			}
		})
	}
	if _, _, sense := decodeTransportID(portID(Nexus{Initiator: string(bytes.Repeat([]byte{'x'}, iscsiname.MaxLen+1))}), 0); sense == nil {
		t.Error("a name that is too long is taken")
	}
}
