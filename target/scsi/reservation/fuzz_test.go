// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzOut sends any parameter list with any service action, to a state with
// every kind of registration. Whatever comes of it, the state stays one that a
// successor takes, a refusal changes nothing, and what is answered fits.
func FuzzOut(f *testing.F) {
	for action := range uint8(9) {
		f.Add(action, uint8(ExclusiveAccess), uint32(24), basicList(1, 2, 0))
	}
	spec := basicList(0, 5, flagSpecPorts|flagAllPorts, portID(nexusC), deviceID(nexusB.Initiator))
	f.Add(uint8(actionRegister), uint8(0), uint32(len(spec)), spec)
	move := moveList(1, 5, flagUnregister, 2, portID(nexusB))
	f.Add(uint8(actionRegisterAndMove), uint8(0), uint32(len(move)), move)
	f.Fuzz(func(t *testing.T, action, scopeType uint8, length uint32, params []byte) {
		for _, from := range []Nexus{nexusA, nexusC} {
			l := newLocal(t, Options{Nexuses: func() []Nexus { return []Nexus{nexusA, nexusB, nexusC} }})
			register(t, l, nexusA, 1)
			register(t, l, nexusB, 2)
			reserve(t, l, nexusA, 1, WriteExclusive)
			before := l.Snapshot()
			cdb := outCDB(action, scopeType, 0)
			cdb[5], cdb[6], cdb[7], cdb[8] = byte(length>>24), byte(length>>16), byte(length>>8), byte(length)
			r := l.Out(from, cdb, params)
			after := l.Snapshot()
			if r.Conflict || r.Sense != nil {
				if d := cmp.Diff(before, after); d != "" {
					t.Fatalf("refused, but (-before +after):\n%s", d)
				}
				if r.Conflict && r.Sense != nil || r.Attention != nil || r.Abort != nil {
					t.Fatalf("refused with %+v", r)
				}
				if r.Sense != nil && r.Sense.ASC == 0x26 && r.Sense.Field >= len(params) {
					t.Fatalf("field %d of %d bytes", r.Sense.Field, len(params))
				}
			}
			if err := newLocal(t, Options{}).Restore(after); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzFile loads any file, and any payload with the right frame around it. Whatever comes of it, the
// logical unit serves, and what it keeps from then on can be read.
func FuzzFile(f *testing.F) {
	for _, s := range []Snapshot{
		{Registrations: registeredAs(nexusA, nexusB), Type: ExclusiveAccess, Holder: &nexusB, APTPL: true, Unit: "30"},
		{Registrations: registeredAs(nexusC), Type: WriteExclusiveAllRegistrants, APTPL: true},
	} {
		payload := must(encoder.Marshal(s))
		f.Add(true, payload)
		f.Add(false, frame(payload))
	}
	f.Fuzz(func(t *testing.T, framed bool, b []byte) {
		if framed {
			b = frame(b)
		}
		m := &memoryDisk{files: map[string][]byte{"d/lun": b}}
		l := open(Options{File: "d/lun", Ports: func() []uint16 { return []uint16{1, 2} }}, m.disk())
		before := l.Snapshot()
		if err := before.validate(); err != nil || l.Damage() != nil && len(before.Registrations) > 0 {
			t.Fatalf("loaded in spite of %v: %+v, %v", l.Damage(), before, err)
		}
		if l.Check(nexusA, Always) {
			t.Fatal("INQUIRY conflicts")
		}
		if r := out(l, nexusA, actionRegisterAndIgnore, 0, basicList(0, 7, flagAPTPL)); r.Sense != nil && len(before.Registrations) < MaxRegistrations {
			t.Fatalf("no registration any more: %+v, %v", r.Sense, r.Err)
		}
		again := open(l.options, m.disk())
		if d := cmp.Diff(persistent(l), persistent(again), encoded); d != "" || persistent(l).APTPL && again.Damage() != nil {
			t.Fatalf("on disk (-want +got), %v:\n%s", again.Damage(), d)
		}
	})
}
