// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// TestShares: what an initiator moves is counted by logical unit over its sessions, and over
// a handoff, but for a logical unit that is another one then.
func TestShares(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	attach(t, d, 2, scsi.LogicalUnitOptions{})
	a, b := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	a.write(0, fill(1, 2))
	a.read(0, 1)
	a.lun = scsi.MakeLUN(2)
	a.settle().read(0, 3)
	a.n.Close()
	a = openHost(t, d, "a").settle()
	a.read(0, 1)
	b.write(0, fill(1, 1))
	nameA, nameB := hostID("a").Initiator, hostID("b").Initiator
	want := []scsi.Share{
		{Initiator: nameA, LUN: 1, Reads: 2, Writes: 1, ReadBytes: 1024, WrittenBytes: 1024},
		{Initiator: nameA, LUN: 2, Reads: 1, ReadBytes: 1536},
		{Initiator: nameB, LUN: 1, Writes: 1, WrittenBytes: 512},
	}
	if diff := cmp.Diff(want, d.Shares()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	next := newDevice(t, scsi.DeviceOptions{})
	attach(t, next, 1, scsi.LogicalUnitOptions{})
	attach(t, next, 2, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Serial: "another"}})
	if err := next.Restore(carry(t, d)); err != nil {
		t.Fatal(err)
	}
	b.resume(t, next).settle().read(0, 1)
	want[2].Reads, want[2].ReadBytes = 1, 512
	if diff := cmp.Diff([]scsi.Share{want[0], want[2]}, next.Shares()); diff != "" {
		t.Errorf("in the successor (-want +got):\n%s", diff)
	}
}

// TestSharesAreBounded: names are the initiators' choice, and cost no more than the bound whatever
// they are, in all devices together and over handoffs.
func TestSharesAreBounded(t *testing.T) {
	limit := new(scsi.ShareLimit)
	first, second := newDevice(t, scsi.DeviceOptions{Shares: limit}), newDevice(t, scsi.DeviceOptions{Shares: limit})
	for _, d := range []*scsi.Device{first, second} {
		attach(t, d, 1, scsi.LogicalUnitOptions{})
	}
	const beyond = 3
	for i := range scsi.MaxShares {
		h := openHost(t, first, fmt.Sprint(i)).settle()
		h.read(0, 1)
		h.n.Close()
	}
	for i := range beyond {
		h := openHost(t, second, fmt.Sprint(i)).settle()
		h.read(0, 1)
		h.n.Close()
	}
	if n := len(first.Shares()); n != scsi.MaxShares {
		t.Errorf("%d rows, want %d", n, scsi.MaxShares)
	}
	want := []scsi.Share{{Reads: beyond, ReadBytes: beyond * 512}}
	if diff := cmp.Diff(want, second.Shares()); diff != "" {
		t.Errorf("beyond the bound (-want +got):\n%s", diff)
	}
	next := newDevice(t, scsi.DeviceOptions{})
	attach(t, next, 1, scsi.LogicalUnitOptions{})
	if err := next.Restore(carry(t, second)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, next.Shares()); diff != "" {
		t.Errorf("in the successor (-want +got):\n%s", diff)
	}
}
