// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The pending unit attentions are those of a queue kept for each logical unit,
// whatever happens.
func TestAttentionsAreQueues(t *testing.T) {
	codes := []uint16{ascPowerOnOrReset, ascBusDeviceReset, ascReportedLUNsChanged, ascModeParametersChanged}
	rapid.Check(t, func(t *rapid.T) {
		var got attentions
		got.init(ascPowerOnOrReset, nil)
		attachments, want := make(map[uint16]*attachment), make(map[uint16][]uint16)
		for u := range uint16(4) {
			u *= 60 // bits in several words
			attachments[u] = &attachment{number: u}
			want[u] = []uint16{ascPowerOnOrReset}
		}
		pick := func() *attachment {
			return attachments[rapid.SampledFrom([]uint16{0, 60, 120, 180}).Draw(t, "unit")]
		}
		code := func() uint16 { return rapid.SampledFrom(codes).Draw(t, "code") }
		t.Repeat(map[string]func(*rapid.T){
			"raise": func(*rapid.T) {
				a, c := pick(), code()
				got.raise(a, c)
				want[a.number] = addAttention(slices.Clone(want[a.number]), c)
			},
			"raise everywhere": func(*rapid.T) {
				c := code()
				got.raiseAll(attachments, c)
				for u := range want {
					want[u] = addAttention(slices.Clone(want[u]), c)
				}
			},
			"take": func(t *rapid.T) {
				a := pick()
				c, ok := got.take(a)
				if q := want[a.number]; ok != (len(q) > 0) || ok && c != q[0] {
					t.Fatalf("took %#x, %v of %#x", c, ok, q)
				} else if ok {
					want[a.number] = slices.Clone(q[1:])
				}
			},
			"drop": func(*rapid.T) {
				c := code()
				got.dropAll(c)
				for u, q := range want {
					want[u] = slices.DeleteFunc(slices.Clone(q), func(other uint16) bool { return other == c })
				}
			},
			"replace": func(*rapid.T) {
				a, q := pick(), rapid.SliceOfDistinct(rapid.SampledFrom(codes), rapid.ID[uint16]).Draw(t, "queue")
				got.replace(a.number, q)
				want[a.number] = q
			},
			"detach": func(*rapid.T) {
				a := pick()
				a.gone.Store(true)
				got.replace(a.number, nil)
				got.raise(a, ascModeParametersChanged) // by a command that is late
				if c, ok := got.take(a); ok {
					t.Fatalf("took %#x of a logical unit that is gone", c)
				}
				attachments[a.number], want[a.number] = &attachment{number: a.number}, nil
			},
			"": func(t *rapid.T) {
				for u, q := range want {
					if l := got.list(u); !slices.Equal(l, q) {
						t.Fatalf("LUN %d has %#x pending, want %#x", u, l, q)
					}
					if len(q) > 0 && !got.pending(u) {
						t.Fatalf("LUN %d has %#x pending and looks quiet", u, q)
					}
				}
			},
		})
	})
}

// What nearly every logical unit has for a nexus takes no memory.
func TestQuietUnitsTakeNoMemory(t *testing.T) {
	var a attentions
	a.init(ascPowerOnOrReset, nil)
	for u := range uint16(1000) {
		a.take(&attachment{number: u})
	}
	if len(a.own) != 0 {
		t.Errorf("%d queues of logical units without anything pending", len(a.own))
	}
}

// A nexus prevents removals until it is closed or the logical unit is detached.
func TestPreventEnds(t *testing.T) {
	d, err := NewDevice(DeviceOptions{Name: "iqn.2026-11.local.test:prevent"})
	if err != nil {
		t.Fatal(err)
	}
	attach := func() *attachment {
		t.Helper()
		lu, err := NewController(LogicalUnitOptions{})
		if err == nil {
			err = d.Attach(0, lu)
		}
		if err != nil {
			t.Fatal(err)
		}
		return d.attachment(0)
	}
	first := attach()
	a, b := d.Open(NexusID{Initiator: "a"}), d.Open(NexusID{Initiator: "b"})
	defer b.Close()
	for _, nx := range []*Nexus{a, b, a} { // twice is as once
		nx.setPrevent(first, true)
	}
	a.Close()
	a.setPrevent(first, true) // by a command that is late
	if n := first.prevents.Load(); n != 1 {
		t.Errorf("%d nexuses prevent removal, want 1", n)
	}
	if _, err := d.Detach(0); err != nil {
		t.Fatal(err)
	}
	second := attach()
	b.setPrevent(first, true)
	if first.removalPrevented() || second.removalPrevented() || b.prevents(second) {
		t.Error("removal is prevented after the logical unit was detached")
	}
}
