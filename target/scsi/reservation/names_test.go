// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

// hostileName draws names of all kinds, among them what no initiator should have.
func hostileName() *rapid.Generator[string] {
	ends := []string{"", " ", ",", "\x00", "\x1b", "\u2003", "\u0085", "\xff\xfe", "\u202e", "ü", "/", ",i,0x400001"}
	return rapid.OneOf(
		rapid.Custom(func(t *rapid.T) string {
			return "iqn.2024-01.org.example:" + rapid.StringMatching("[a-c]?").Draw(t, "a") + rapid.SampledFrom(ends).Draw(t, "end")
		}),
		rapid.String(),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) }),
		rapid.Custom(func(t *rapid.T) string {
			return string(slices.Repeat([]byte("n"), rapid.IntRange(iscsiname.MaxLen-1, iscsiname.MaxLen+1).Draw(t, "length")))
		}),
	)
}

// encoded compares snapshots by what they are on the wire.
var encoded = cmp.Transformer("encoded", func(s Snapshot) []byte { return must(encoder.Marshal(s)) })

// TestWrittenCanBeRead: whoever registers, with whatever name, what is on the disk afterwards is
// the last state that a command has ended with GOOD for, and a name that login admits is
// never refused.
func TestWrittenCanBeRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &memoryDisk{files: map[string][]byte{}}
		l := open(Options{File: "d/lun"}, m.disk())
		for range rapid.IntRange(1, 8).Draw(t, "commands") {
			n := Nexus{Initiator: hostileName().Draw(t, "name"), TargetPort: 1}
			r := out(l, n, actionRegisterAndIgnore, 0, basicList(0, rapid.Uint64Range(0, 3).Draw(t, "key"), flagAPTPL))
			if legal := iscsiname.Check(n.Initiator) == nil; legal && r.Sense != nil {
				t.Fatalf("%q was refused: %v, %v", n.Initiator, r.Sense, r.Err)
			}
			again := whole(t, open(Options{File: "d/lun"}, m.disk()))
			if d := cmp.Diff(persistent(l), persistent(again), encoded); d != "" {
				t.Fatalf("on disk (-want +got):\n%s", d)
			}
		}
	})
}

// TestRestoreWithoutNames: what an earlier version let nexuses without a proper name hold keeps
// nothing else from being restored.
func TestRestoreWithoutNames(t *testing.T) {
	bad := Nexus{Initiator: "iqn.a b", TargetPort: 1}
	for name, c := range map[string]struct{ in, want Snapshot }{
		"registration":    {Snapshot{Registrations: registeredAs(nexusA, bad), APTPL: true}, Snapshot{Registrations: registeredAs(nexusA), APTPL: true}},
		"holder":          {Snapshot{Registrations: registeredAs(bad, nexusA), Type: WriteExclusive, Holder: &bad}, Snapshot{Registrations: registeredAs(nexusA)}},
		"all registrants": {Snapshot{Registrations: registeredAs(bad), Type: WriteExclusiveAllRegistrants}, Snapshot{}},
		"SPC-2":           {Snapshot{Reserved: &bad}, Snapshot{}},
		"others":          {Snapshot{Registrations: registeredAs(bad, nexusB), Type: ExclusiveAccess, Holder: &nexusB}, Snapshot{Registrations: registeredAs(nexusB), Type: ExclusiveAccess, Holder: &nexusB}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memoryDisk{files: map[string][]byte{}}
			l := open(Options{File: "d/lun"}, m.disk())
			if err := l.Restore(c.in); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, l.Snapshot(), encoded); d != "" {
				t.Errorf("restored (-want +got):\n%s", d)
			}
			checkDisk(t, m, l)
		})
	}
}
