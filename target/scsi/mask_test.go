// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"testing"

	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

var reportLUNs = []byte{0xa0, 8: 1, 11: 0}

// onLUN is the host as it sends to another logical unit.
func (h *host) onLUN(n uint16) *host {
	return &host{t: h.t, dev: h.dev, n: h.n, lun: scsi.MakeLUN(n), cmd: scsi.Command{Pool: new(mem.Pool)}}
}

// openMasked is openHost for one that does not see some logical units.
func openMasked(t tb, d *scsi.Device, name string, masked ...uint16) *host {
	return &host{t: t, dev: d, n: d.Open(hostID(name), masked...), lun: scsi.MakeLUN(1), cmd: scsi.Command{Pool: new(mem.Pool)}}
}

// luns is the answer to REPORT LUNS sent to LUN 0.
func (h *host) luns() []byte {
	h.t.Helper()
	r := h.onLUN(0).do(reportLUNs, nil, 256)
	if r.status != scsi.Good {
		h.t.Fatalf("REPORT LUNS: %v", r)
	}
	var list []byte
	for b := r.data[8:]; len(b) >= 8; b = b[8:] {
		list = append(list, b[1])
	}
	return list
}

// TestMaskedAsAbsent compares a logical unit that is masked with one that is
// not there, by every operation code.
func TestMaskedAsAbsent(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	for _, n := range []uint16{1, 2, 70} {
		attach(t, d, n, scsi.LogicalUnitOptions{})
	}
	h := openMasked(t, d, "a", 2, 70).settle()
	masked, absent := h.onLUN(2), h.onLUN(3)
	for op := range 256 {
		cdb := make([]byte, 16)
		cdb[0], cdb[4], cdb[13] = byte(op), 0xff, 0xff
		got, want := masked.do(cdb, nil, 255), absent.do(cdb, nil, 255)
		if got.String() != want.String() || !bytes.Equal(got.data, want.data) {
			t.Errorf("operation %#02x: %v %x, and of a LUN that is not there %v %x", op, got, got.data, want, want.data)
		}
	}
	if r := masked.do([]byte{0x12, 4: 255, 5: 0}, nil, 255); len(r.data) == 0 || r.data[0] != 0x7f {
		t.Errorf("INQUIRY data %x", r.data)
	}
	masked.want("5/25/00", rw10(0x28, 0, 0, 1), nil, 512)
	h.onLUN(70).want("5/25/00", rw10(0x28, 0, 0, 1), nil, 512)
	if got := h.luns(); !bytes.Equal(got, []byte{1}) {
		t.Errorf("REPORT LUNS %v", got)
	}
	if h.n.Sees(2) || h.n.Sees(3) || !h.n.Sees(1) || d.LogicalUnitReset(scsi.MakeLUN(2), h.n) {
		t.Error("the masked logical unit is seen")
	}
	other := openHost(t, d, "b").onLUN(2).settle()
	if got := other.luns(); !bytes.Equal(got, []byte{1, 2, 70}) {
		t.Errorf("REPORT LUNS of another %v", got)
	}
	other.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	other.onLUN(1).settle()
	// A reset of the target is one of what its sender sees.
	other.want(good, []byte{0x16, 5: 0}, nil, 0)
	d.TargetReset(h.n, false)
	other.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	third := openHost(t, d, "c").onLUN(2)
	third.want("6/29/00", ready, nil, 0)
	third.want("18", rw10(0x28, 0, 0, 1), nil, 512)
	other.onLUN(1).want("6/29/03", rw10(0x28, 0, 0, 1), nil, 512)
}

// TestMaskedZero is a masked LUN 0, which REPORT LUNS works on.
func TestMaskedZero(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 0, scsi.LogicalUnitOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	h := openMasked(t, d, "a", 0).settle()
	if got := h.luns(); !bytes.Equal(got, []byte{1}) {
		t.Errorf("REPORT LUNS %v", got)
	}
	h.onLUN(0).want("5/25/00", rw10(0x28, 0, 0, 1), nil, 512)
}

// TestMask changes what a nexus sees while it is open.
func TestMask(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	attach(t, d, 2, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
	h := openHost(t, d, "a").settle()
	two, other := h.onLUN(2).settle(), openHost(t, d, "b").onLUN(2).settle()
	h.n.Mask(nil)
	h.want(good, ready, nil, 0) // nothing has changed

	two.want(good, []byte{0x16, 5: 0}, nil, 0)       // RESERVE (6)
	two.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0) // PREVENT
	other.want("18", rw10(0x28, 0, 0, 1), nil, 512)  // reserved
	h.n.Mask([]uint16{2})
	h.want("6/3f/0e", ready, nil, 0)
	h.want(good, ready, nil, 0)
	two.want("5/25/00", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	other.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	if i := d.LogicalUnit(2).Info(); i.PreventRemoval {
		t.Error("removal is still prevented by a nexus that does not see it")
	}

	h.n.Mask([]uint16{1, 9})
	if got := h.luns(); !bytes.Equal(got, []byte{2}) {
		t.Errorf("REPORT LUNS %v", got)
	}
	h.want("5/25/00", ready, nil, 0)
	two.want("5/25/00", rw10(0x2a, 0, 0, 1), fill(1, 1), 0) // it has not asked what that is
	two.want(good, inquiry(0, 96), nil, 96)
	two.settle().want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
}

// TestMaskUnderway masks a logical unit while a command to it waits.
func TestMaskUnderway(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	c := &scsi.Command{LUN: scsi.MakeLUN(1), Pool: new(mem.Pool)}
	copy(c.CDB[:], rw10(0x2a, 0, 0, 1))
	h.n.Prepare(c)
	if c.Done() {
		t.Fatalf("%02x", c.Status)
	}
	c.Out = fill(1, 1)
	h.n.Mask([]uint16{1})
	h.n.Execute(t.Context(), c)
	if c.Status != scsi.CheckCondition {
		t.Errorf("status %02x of a command to a logical unit that was masked", c.Status)
	}
}

// TestMaskRestored takes a mask to another device and changes it there.
func TestMaskRestored(t *testing.T) {
	build := func() *scsi.Device {
		d := newDevice(t, scsi.DeviceOptions{})
		for _, n := range []uint16{1, 2, 3} {
			attach(t, d, n, scsi.LogicalUnitOptions{})
		}
		return d
	}
	old := build()
	openMasked(t, old, "a", 2, 3).settle()
	s := old.Snapshot()
	if n := s.Nexuses[0]; len(n.Masked) != 2 || len(n.Units) != 0 {
		t.Errorf("the snapshot has %+v", n)
	}
	d := build()
	if err := d.Restore(s); err != nil {
		t.Fatal(err)
	}
	nx, _ := d.Lookup(hostID("a"))
	h := &host{t: t, dev: d, n: nx, lun: scsi.MakeLUN(1), cmd: scsi.Command{Pool: new(mem.Pool)}}
	h.want(good, ready, nil, 0)
	nx.Mask([]uint16{2, 3})
	h.want(good, ready, nil, 0)
	h.onLUN(3).want("5/25/00", ready, nil, 0)
	nx.Mask([]uint16{2})
	h.want("6/3f/0e", ready, nil, 0)
	if got := h.luns(); !bytes.Equal(got, []byte{1, 3}) {
		t.Errorf("REPORT LUNS %v", got)
	}
}
