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
