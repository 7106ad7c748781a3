// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// carry takes a snapshot of d through CBOR.
func carry(t *testing.T, d *scsi.Device) scsi.DeviceState {
	t.Helper()
	b, err := cbor.Marshal(d.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s scsi.DeviceState
	if err := cbor.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// resume returns the host's other end on a device that d's state went to.
func (h *host) resume(t *testing.T, d *scsi.Device) *host {
	t.Helper()
	n, ok := d.Lookup(h.n.ID())
	if !ok {
		t.Fatalf("no nexus %v", h.n.ID())
	}
	return &host{t: t, dev: d, n: n, lun: h.lun, cmd: scsi.Command{Pool: h.cmd.Pool}}
}

func TestHandoffKeepsEverything(t *testing.T) {
	o := scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}}
	old := newDevice(t, scsi.DeviceOptions{})
	store := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	o.Store = store
	attach(t, old, 1, o)
	attach(t, old, 2, scsi.LogicalUnitOptions{})
	a, b := openHost(t, old, "a").settle(), openHost(t, old, "b").settle()
	a.selectPages(good, with(a.page(0x0a), 2, 4)) // D_SENSE; MODE PARAMETERS CHANGED pends for b
	a.write(0, fill(1, 1))
	a.prOut(good, 0, 0, 0, 11)
	a.prOut(good, 1, 5, 11, 0) // write exclusive, registrants only
	a.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0)
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Err: syscall.EIO})
	a.want("3/0c/00", rw10(0x35, 0, 0, 0), nil, 0)
	old.LogicalUnit(2).SetReadOnly(true)
	b.lun = scsi.MakeLUN(2)
	b.settle()
	b.want(good, []byte{0x16, 5: 0}, nil, 0)

	next := newDevice(t, scsi.DeviceOptions{})
	o.Store = storagetest.NewRAM(1 << 20)
	lu := attach(t, next, 1, o)
	attach(t, next, 2, scsi.LogicalUnitOptions{})
	state := carry(t, old)
	if err := next.Restore(state); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, carry(t, next)); diff != "" {
		t.Errorf("state changed on the way (-old +new):\n%s", diff)
	}
	a, b = a.resume(t, next), b.resume(t, next)
	a.expect(t)
	a.lun = scsi.MakeLUN(2)
	a.want("6/29/00", ready, nil, 0) // was pending, still is
	a.want("18", ready, nil, 0)
	b.want(good, ready, nil, 0)
	b.lun = scsi.MakeLUN(1)
	b.expect(t, "6/2a/01")
	b.want("18", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	a.lun = b.lun
	if r := a.want("3/0c/00", rw10(0x35, 0, 0, 0), nil, 0); r.sense[0] != 0x72 {
		t.Errorf("sense data % x", r.sense)
	}
	if info := lu.Info(); !info.PreventRemoval || !info.FlushFailed {
		t.Errorf("%+v", info)
	}
	if c := a.n.Counters(); c.Writes != 1 || c.WrittenBytes != 512 || c.Errors != 2 {
		t.Errorf("counters %+v", c)
	}
}

// TestClockIsSet: when blocks were last moved is as long ago as it was, though the clock has been
// set. A process that knows no stamps tells wall time alone.
func TestClockIsSet(t *testing.T) {
	old := newDevice(t, scsi.DeviceOptions{})
	attach(t, old, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, old, "a").settle()
	h.write(0, fill(1, 1))
	for _, tt := range []struct {
		what string
		set  func(seconds *int64, stamp *boottime.Stamp)
		min  time.Duration
	}{
		{"onwards", func(s *int64, _ *boottime.Stamp) { *s -= 7200 }, 0},
		{"back", func(s *int64, _ *boottime.Stamp) { *s += 7200 }, 0},
		{"an older process", func(s *int64, stamp *boottime.Stamp) { *s, *stamp = *s-7200, 0 }, 2 * time.Hour},
	} {
		state := carry(t, old)
		u, n := &state.Units[0], &state.Nexuses[0]
		tt.set(&u.LastIO, &u.LastIOStamp)
		tt.set(&n.LastIO, &n.LastIOStamp)
		next := newDevice(t, scsi.DeviceOptions{})
		attach(t, next, 1, scsi.LogicalUnitOptions{})
		if err := next.Restore(state); err != nil {
			t.Fatal(err)
		}
		for what, at := range map[string]time.Time{"state": u.LastUse(), "unit": next.LogicalUnit(1).LastIO(), "nexus": h.resume(t, next).n.LastIO()} {
			if age := time.Since(at); age < tt.min || age > tt.min+time.Hour {
				t.Errorf("%s: last use of the %s was %v ago", tt.what, what, age)
			}
		}
	}
}

func TestHandoffToAnotherConfiguration(t *testing.T) {
	build := func(size int64, cache bool, luns ...uint16) *scsi.Device {
		d := newDevice(t, scsi.DeviceOptions{})
		for _, n := range luns {
			attach(t, d, n, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(size), UnitOptions: scsi.UnitOptions{WriteCache: &cache}})
		}
		return d
	}
	for _, c := range []struct {
		name string
		next *scsi.Device
		want []string
	}{
		{"same", build(1<<20, true, 1, 2), nil},
		{"added", build(1<<20, true, 1, 2, 3), []string{"6/3f/0e"}},
		{"removed", build(1<<20, true, 1), []string{"6/3f/0e"}},
		{"exchanged", build(1<<20, true, 1, 3), []string{"6/3f/0e"}},
		{"resized", build(2<<20, true, 1, 2), []string{"6/2a/09"}},
		{"cache off", build(1<<20, false, 1, 2), []string{"6/2a/01"}},
	} {
		old := build(1<<20, true, 1, 2)
		h := openHost(t, old, "a").settle()
		h.lun = scsi.MakeLUN(2)
		h.settle()
		h.lun = scsi.MakeLUN(1)
		state := carry(t, old)
		if kept := state.Nexuses[0].Units; len(kept) > 0 {
			t.Errorf("%s: %+v for a nexus with nothing pending", c.name, kept)
		}
		if err := c.next.Restore(state); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := h.resume(t, c.next).attentions(); !cmp.Equal(got, c.want) {
			t.Errorf("%s: unit attentions %v, want %v", c.name, got, c.want)
		}
		if newcomer := openHost(t, c.next, "b").attentions(); !cmp.Equal(newcomer, []string{"6/29/00"}) {
			t.Errorf("%s: a new nexus hears %v", c.name, newcomer)
		}
	}
}

func TestHandoffKeepsAnInitiatorsChoiceOfCache(t *testing.T) {
	old := newDevice(t, scsi.DeviceOptions{})
	attach(t, old, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, old, "a").settle()
	h.selectPages(good, with(h.page(8), 2, 4))
	next := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, next, 1, scsi.LogicalUnitOptions{})
	if err := next.Restore(carry(t, old)); err != nil {
		t.Fatal(err)
	}
	if lu.Info().WriteCache {
		t.Error("the cache is on again")
	}
	h.resume(t, next).expect(t)
}

func TestRestoreRefuses(t *testing.T) {
	old := newDevice(t, scsi.DeviceOptions{})
	attach(t, old, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, old, "a").settle()
	state := carry(t, old)
	if err := old.Restore(state); err == nil {
		t.Error("restored over open nexuses")
	}
	twice := state
	twice.Nexuses = append(twice.Nexuses, twice.Nexuses[0])
	next := newDevice(t, scsi.DeviceOptions{})
	if err := next.Restore(twice); err == nil || !strings.Contains(err.Error(), h.n.String()) {
		t.Errorf("one nexus twice: %v", err)
	}
	bad := carry(t, old)
	bad.Units[0].Reservations.Type = 200
	next = newDevice(t, scsi.DeviceOptions{})
	attach(t, next, 1, scsi.LogicalUnitOptions{})
	if err := next.Restore(bad); err == nil {
		t.Error("impossible reservations were restored")
	}
}

func TestSettleAndReprepare(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, d, "a") // with a unit attention pending
	c := &h.cmd
	c.LUN, c.OutExpected = h.lun, 512
	copy(c.CDB[:], rw10(0x2a, 0, 0, 1))
	h.n.Reprepare(c)
	if c.Done() || c.Length != 512 || c.Direction != scsi.DataOut {
		t.Fatalf("done %t, length %d", c.Done(), c.Length)
	}
	if lba, blocks, ok := c.LBA(); lba != 0 || blocks != 1 || !ok {
		t.Errorf("addresses %d, %d, %t", lba, blocks, ok)
	}
	c.Out = fill(1, 1)
	h.n.Execute(t.Context(), c)
	if r := h.finish(c); r.String() != good {
		t.Error(r)
	}
	c.Settle(scsi.TaskAborted, nil)
	if c.Status != scsi.TaskAborted || !c.Done() || len(c.Sense) != 0 {
		t.Errorf("status %02x", uint8(c.Status))
	}
	c.Abort(scsi.DataPhaseError)
	if r := h.finish(c); r.String() != "b/4b/00" {
		t.Error(r)
	}
}

// Snapshots in testdata were written by earlier releases and must restore
// forever. A new schema adds a file; none is ever changed.
func TestSnapshotsOfEarlierReleases(t *testing.T) {
	files, err := filepath.Glob("testdata/device-*.cbor")
	if err != nil || len(files) == 0 {
		t.Fatalf("no snapshots: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var state scsi.DeviceState
		if err := cbor.Unmarshal(b, &state); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		d := newDevice(t, scsi.DeviceOptions{})
		attach(t, d, 1, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
		attach(t, d, 2, scsi.LogicalUnitOptions{})
		if err := d.Restore(state); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n, ok := d.Lookup(hostID("b"))
		if !ok || len(d.LogicalUnits()) != 2 {
			t.Fatalf("%s: nexus b is gone", name)
		}
		h := &host{t: t, dev: d, n: n, lun: scsi.MakeLUN(1), cmd: scsi.Command{Pool: new(mem.Pool)}}
		h.expect(t, "6/2a/01")
		h.want("18", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
		if info, c := d.LogicalUnit(1).Info(), d.LogicalUnit(1).Counters(); !info.PreventRemoval || !info.FlushFailed || c.WrittenBytes != 512 {
			t.Errorf("%s: %+v, %+v", name, info, c)
		}
	}
}

// TestAbortedStatusIsNew has a process go before that did not tell its mode pages: TAS was 0 then, unless the
// configuration has the page. Initiators are told that it is 1, once.
func TestAbortedStatusIsNew(t *testing.T) {
	control := []scsi.ModePage{{Page: 0x0a, Data: []byte{0x20, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0}}}
	for _, tt := range []struct {
		what  string
		pages []scsi.ModePage
		told  bool // the pages, by the process before
		want  []string
	}{
		{"not told", nil, false, []string{"6/2a/01"}},
		{"not told, and configured", control, false, nil},
		{"told", nil, true, nil},
	} {
		t.Run(tt.what, func(t *testing.T) {
			o := scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{ModePages: tt.pages}}
			old, next := newDevice(t, scsi.DeviceOptions{}), newDevice(t, scsi.DeviceOptions{})
			attach(t, old, 1, o)
			attach(t, next, 1, o)
			h := openHost(t, old, "a").settle()
			state := carry(t, old)
			if !tt.told {
				state.Units[0].ModePages = nil
			}
			if err := next.Restore(state); err != nil {
				t.Fatal(err)
			}
			h.resume(t, next).expect(t, tt.want...)
		})
	}
}
