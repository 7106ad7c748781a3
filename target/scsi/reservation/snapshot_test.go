// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

// registeredAs returns registrations with key 1.
func registeredAs(all ...Nexus) (r []Registration) {
	for _, n := range all {
		r = append(r, Registration{n, 1})
	}
	return r
}

func TestSnapshotRoundTrip(t *testing.T) {
	for name, s := range map[string]Snapshot{
		"empty":           {},
		"SPC-2":           {Reserved: &nexusA, Generation: 9},
		"registered":      {Registrations: registeredAs(nexusA, nexusA2), Generation: 0xffffffff},
		"held":            {Registrations: registeredAs(nexusA, nexusB), Type: ExclusiveAccess, Holder: &nexusB, Generation: 3},
		"all registrants": {Registrations: registeredAs(nexusC), Type: WriteExclusiveAllRegistrants},
		"kept":            {Registrations: registeredAs(nexusC), APTPL: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := cbor.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var read Snapshot
			if err := cbor.Unmarshal(b, &read); err != nil {
				t.Fatal(err)
			}
			o := Options{File: t.TempDir() + "/lun"}
			l := newLocal(t, o)
			if err := l.Restore(read); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(s, l.Snapshot()); d != "" {
				t.Errorf("snapshot (-want +got):\n%s", d)
			}
			if d := cmp.Diff(persistent(l), persistent(newLocal(t, o))); d != "" {
				t.Errorf("after a power loss (-want +got):\n%s", d)
			}
		})
	}
}

// TestRestoreReplaces: nothing of what was there before stays.
func TestRestoreReplaces(t *testing.T) {
	l := newLocal(t, Options{})
	l.Reserve(nexusA)
	if err := l.Restore(Snapshot{}); err != nil {
		t.Fatal(err)
	}
	if l.Check(nexusB, Write) {
		t.Error("the SPC-2 reservation of before is still there")
	}
	register(t, l, nexusA, 1)
	reserve(t, l, nexusA, 1, ExclusiveAccess)
	if err := l.Restore(Snapshot{Reserved: &nexusB}); err != nil {
		t.Fatal(err)
	}
	if l.Check(nexusB, Read) || !l.Check(nexusA, Read) {
		t.Error("conflicts are not those of the snapshot")
	}
}

// TestRestoreFailureKeepsFile: a successor that has loaded an older file, and
// fails to restore, leaves what its predecessor has written since.
func TestRestoreFailureKeepsFile(t *testing.T) {
	m := &memoryDisk{files: map[string][]byte{}}
	predecessor := prepared(t, m)
	successor := whole(t, open(Options{File: "d/lun"}, m.disk()))
	register(t, predecessor, nexusB, 2)
	good(t, out(predecessor, nexusB, actionRegister, 0, basicList(2, 3, flagAPTPL)))
	other := predecessor.Snapshot()
	other.Type, other.Holder = WriteExclusive, &nexusB
	fails := true
	successor.file.disk.syncDir = func(string) error {
		if fails {
			fails = false
			return errDisk
		}
		return nil
	}
	if err := successor.Restore(other); err == nil {
		t.Fatal("restored on a disk that has failed")
	}
	checkDisk(t, m, predecessor)
	wantKeys(t, successor, map[Nexus]uint64{nexusA: 1})
	if err := successor.Restore(predecessor.Snapshot()); err != nil {
		t.Fatal(err)
	}
	checkDisk(t, m, predecessor)
	wantKeys(t, successor, map[Nexus]uint64{nexusA: 1, nexusB: 3})
}

func TestRestoreRefuses(t *testing.T) {
	many := make([]Nexus, MaxRegistrations+1)
	for i := range many {
		many[i] = nexusA.onPort(uint16(i))
	}
	for name, s := range map[string]Snapshot{
		"too many":                     {Registrations: registeredAs(many...)},
		"twice":                        {Registrations: registeredAs(nexusA, nexusA)},
		"no key":                       {Registrations: []Registration{{nexusA, 0}}},
		"reserved type":                {Registrations: registeredAs(nexusA), Type: 2, Holder: &nexusA},
		"no holder":                    {Registrations: registeredAs(nexusA), Type: WriteExclusive},
		"no type":                      {Registrations: registeredAs(nexusA), Holder: &nexusA},
		"unregistered holder":          {Registrations: registeredAs(nexusA), Type: WriteExclusive, Holder: &nexusB},
		"one holder of all":            {Registrations: registeredAs(nexusA), Type: WriteExclusiveAllRegistrants, Holder: &nexusA},
		"all registrants of none":      {Type: WriteExclusiveAllRegistrants},
		"SPC-2 and registrations":      {Registrations: registeredAs(nexusA), Reserved: &nexusA},
		"APTPL with nowhere to put it": {APTPL: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLocal(t, Options{})
			register(t, l, nexusB, 7)
			if err := l.Restore(s); err == nil {
				t.Fatal("restored")
			}
			wantKeys(t, l, map[Nexus]uint64{nexusB: 7})
		})
	}
}
