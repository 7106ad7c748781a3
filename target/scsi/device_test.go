// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
)

var ready = []byte{0, 5: 0}

// attentions takes the unit attentions that are pending for h.
func (h *host) attentions() []string {
	var out []string
	for range 16 {
		r := h.do(ready, nil, 0)
		if r.status == scsi.Good {
			return out
		}
		out = append(out, r.String())
	}
	h.t.Fatalf("unit attentions without end: %v", out)
	return nil
}

func (h *host) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := h.attentions(); !slices.Equal(got, want) {
		t.Errorf("unit attentions %v, want %v", got, want)
	}
}

func TestUnitAttentionOfANewNexus(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	attach(t, d, 2, scsi.LogicalUnitOptions{})
	h := openHost(t, d, "a")
	for range 2 { // neither INQUIRY nor REPORT LUNS reports or clears it
		h.want(good, inquiry(0xff, 255), nil, 255)
		h.want(good, []byte{0xa0, 9: 255, 11: 0}, nil, 255)
	}
	h.want("6/29/00", rw10(0x28, 0, 0, 1), nil, 512)
	h.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	h.lun = scsi.MakeLUN(2)
	if b := h.want(good, []byte{3, 4: 255, 5: 0}, nil, 255).data; b[2] != 6 || b[12] != 0x29 {
		t.Errorf("REQUEST SENSE: % x", b)
	}
	if b := h.want(good, []byte{3, 1, 4: 255, 5: 0}, nil, 255).data; b[0] != 0x72 || b[1] != 0 {
		t.Errorf("REQUEST SENSE again, in descriptor format: % x", b)
	}
	h.expect(t)
}

func TestAttachAndDetach(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, d, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, d, "a").settle()
	second := attach(t, d, 2, scsi.LogicalUnitOptions{})
	h.expect(t, "6/3f/0e")
	h.lun = scsi.MakeLUN(2)
	// REPORTED LUNS DATA HAS CHANGED was said once for the whole device. Until h has
	// asked what it is, a command may be meant for another disk that was LUN 2.
	h.want("5/25/00", ready, nil, 0)
	h.want(good, inquiry(0, 96), nil, 96)
	h.expect(t)

	if err := d.Attach(1, second); err == nil {
		t.Error("two units on one number")
	}
	if err := d.Attach(3, second); err == nil {
		t.Error("one unit on two numbers")
	}
	if err := d.Attach(scsi.MaxLUN+1, lu); err == nil {
		t.Error("a number beyond the highest")
	}
	if _, err := d.Detach(9); err == nil {
		t.Error("detached what is not there")
	}

	var c scsi.Command
	c.Pool = h.cmd.Pool
	h.prepare(&c, rw10(0x2a, 0, 0, 1), 512, 0)
	if got, err := d.Detach(2); err != nil || got != second {
		t.Fatalf("%v, %v", got, err)
	}
	c.Out = fill(1, 1)
	h.n.Execute(t.Context(), &c)
	if r := h.finish(&c); r.String() != "5/25/00" {
		t.Errorf("a command that waited: %v", r)
	}
	h.want("5/25/00", ready, nil, 0)
	h.lun = scsi.MakeLUN(1)
	h.want(good, []byte{0xa0, 9: 255, 11: 0}, nil, 255)
	h.expect(t) // REPORT LUNS has told already
	if units := d.LogicalUnits(); len(units) != 1 || units[0].Number != 1 || units[0].Unit != lu || d.LogicalUnit(1) != lu || d.LogicalUnit(2) != nil {
		t.Errorf("%v", units)
	}
	if err := d.Attach(5, second); err != nil {
		t.Error(err)
	}
	if second.Info().Serial != scsi.DefaultIdentity(targetName, 5).Serial {
		t.Errorf("serial number %q", second.Info().Serial)
	}
}

func TestResets(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
	attach(t, d, 2, scsi.LogicalUnitOptions{})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	h.want(good, []byte{0x16, 5: 0}, nil, 0)
	h.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0)
	other.want("18", ready, nil, 0)
	if !d.LogicalUnitReset(other.lun, other.n) {
		t.Fatal("no such logical unit")
	}
	h.expect(t, "6/29/03")
	other.expect(t, "6/29/03")
	if d.LogicalUnit(1).Info().PreventRemoval {
		t.Error("removal is still prevented")
	}
	d.TargetReset(nil, true)
	h.lun = scsi.MakeLUN(2)
	h.expect(t, "6/29/00") // of the nexus itself, pending still, covers the reset
	other.expect(t, "6/29/01")
	d.TargetReset(h.n, false)
	other.expect(t, "6/29/03")
	if d.LogicalUnitReset(scsi.MakeLUN(9), nil) || d.LogicalUnitReset(0xc101<<48, nil) {
		t.Error("reset of what is not there")
	}
}

func TestNexusLossReleases(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	for _, codes := range [][2]byte{{0x16, 0x17}, {0x56, 0x57}} {
		cdb := func(code byte) []byte { return []byte{code, 9: 0} }
		h.want(good, cdb(codes[0]), nil, 0)
		h.want(good, cdb(codes[0]), nil, 0)
		other.want("18", cdb(codes[0]), nil, 0)
		other.want("18", rw10(0x28, 0, 0, 1), nil, 512)
		other.want(good, cdb(codes[1]), nil, 0)
		other.want(good, inquiry(0xff, 255), nil, 255)
		h.want(good, rw10(0x28, 0, 0, 1), nil, 512)
		h.want(good, cdb(codes[1]), nil, 0)
		other.want(good, ready, nil, 0)
		h.want("5/24/00", []byte{codes[0], 0x10, 9: 0}, nil, 0)
	}
	h.want(good, []byte{0x16, 5: 0}, nil, 0)
	h.n.Close()
	other.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	h.n.Close()

	again := d.Open(hostID("b")) // reinstatement: takes the place of the old one
	if got, ok := d.Lookup(hostID("b")); !ok || got != again {
		t.Error("the device does not know the new nexus")
	}
	other.n.Close()
	if _, ok := d.Lookup(hostID("b")); !ok {
		t.Error("closing the old nexus took the new one away")
	}
	if _, ok := d.Lookup(hostID("a")); ok {
		t.Error("a closed nexus is still known")
	}
}

// prOut is a PERSISTENT RESERVE OUT with its parameter list.
func prOut(action, kind byte, key, serviceKey uint64) (cdb, list []byte) {
	list = make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], serviceKey)
	return []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, list
}

func (h *host) prOut(want string, action, kind byte, key, serviceKey uint64) {
	h.t.Helper()
	cdb, list := prOut(action, kind, key, serviceKey)
	h.want(want, cdb, list, 0)
}

// TestReservationIsTold: who holds what is told to people as it is to initiators.
func TestReservationIsTold(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, d, 1, scsi.LogicalUnitOptions{})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	told := func(want *scsi.Reservation) {
		t.Helper()
		if diff := cmp.Diff(want, lu.Reservation()); diff != "" {
			t.Errorf("-want +told:\n%s", diff)
		}
	}
	told(nil)
	h.want(good, []byte{0x16, 5: 0}, nil, 0)
	told(&scsi.Reservation{Type: "SPC-2", Holder: "iqn.2000-01.org.example:a,i,0x800000000001"})
	h.want(good, []byte{0x17, 5: 0}, nil, 0)
	told(nil)
	h.prOut(good, 0, 0, 0, 11)
	other.prOut(good, 0, 0, 0, 22)
	told(&scsi.Reservation{Type: "none", Registrations: 2})
	other.prOut(good, 1, 5, 22, 0)
	told(&scsi.Reservation{Type: "Write Exclusive - Registrants Only", Holder: "iqn.2000-01.org.example:b,i,0x800000000001", Registrations: 2})
	other.prOut(good, 2, 5, 22, 0)
	h.settle().prOut(good, 1, 8, 11, 0) // the release was told
	told(&scsi.Reservation{Type: "Exclusive Access - All Registrants", Registrations: 2})
}

func TestPersistentReservations(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	h.prOut(good, 0, 0, 0, 11)
	other.prOut(good, 0, 0, 0, 22)
	h.prOut(good, 1, 1, 11, 0) // write exclusive
	other.want("18", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	other.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	h.want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	other.want("18", []byte{0x1b, 5: 0}, nil, 0)       // stop
	other.want(good, []byte{0x1b, 4: 1, 5: 0}, nil, 0) // start
	other.want("18", []byte{0x1e, 4: 1, 5: 0}, nil, 0) // prevent
	other.want(good, []byte{0x1e, 4: 0, 5: 0}, nil, 0) // allow
	other.prOut("18", 1, 1, 22, 0)
	if b := h.want(good, []byte{0x5e, 0, 7: 1, 9: 0}, nil, 256).data; binary.BigEndian.Uint32(b[4:]) != 16 {
		t.Errorf("READ KEYS: % x", b)
	}
	h.want("5/24/00", []byte{0x5e, 9, 7: 1, 9: 0}, nil, 256)
	h.want("5/1a/00", []byte{0x5f, 0, 5: 0, 6: 1, 9: 0}, nil, 0)

	h.n.Close() // the reservation stays
	other.want("18", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	h = openHost(t, d, "a")
	h.expect(t, "6/29/00")
	h.want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)

	h.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0)
	other.prOut(good, 5, 3, 22, 11) // PREEMPT AND ABORT, exclusive access
	if got := other.cmd.Preempted; !slices.Equal(got, []scsi.NexusID{hostID("a")}) {
		t.Errorf("the tasks of %v are to be aborted", got)
	}
	if d.LogicalUnit(1).Info().PreventRemoval {
		t.Error("the preempted nexus still prevents removal")
	}
	h.expect(t, "6/2a/05")
	h.want("18", rw10(0x28, 0, 0, 1), nil, 512)
	other.prOut(good, 3, 0, 22, 0) // CLEAR
	h.want(good, rw10(0x28, 0, 0, 1), nil, 512)
}

func TestAReservationStopsACommandThatWaited(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	h.prepare(&h.cmd, rw10(0x2a, 0, 0, 1), 512, 0)
	other.want(good, []byte{0x16, 5: 0}, nil, 0)
	h.cmd.Out = fill(1, 1)
	if !h.n.TryExecute(&h.cmd) {
		t.Fatal("not executed")
	}
	if r := h.finish(&h.cmd); r.String() != "18" {
		t.Errorf("%v, want a reservation conflict", r)
	}
}

func TestReservationsPersistThroughPowerLoss(t *testing.T) {
	dir := t.TempDir()
	start := func() *host {
		d := newDevice(t, scsi.DeviceOptions{StateDir: dir})
		attach(t, d, 1, scsi.LogicalUnitOptions{})
		return openHost(t, d, "a").settle()
	}
	h := start()
	cdb, list := prOut(0, 0, 0, 11)
	list[20] = 1 // APTPL
	h.want(good, cdb, list, 0)
	h.prOut(good, 1, 3, 11, 0)
	h = start()
	openHost(t, h.dev, "b").settle().want("18", rw10(0x28, 0, 0, 1), nil, 512)
	h.want(good, rw10(0x28, 0, 0, 1), nil, 512)
}

func TestNamesOfANexus(t *testing.T) {
	id := scsi.NexusID{Initiator: "iqn.x", ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, TargetPort: 7}
	if got := id.InitiatorPort(); got != "iqn.x,i,0x800102030405" {
		t.Error(got)
	}
	if got := id.String(); got != "iqn.x,i,0x800102030405->7" {
		t.Error(got)
	}
	var none *scsi.Nexus
	if none.String() != "none" {
		t.Error(none.String())
	}
	d := newDevice(t, scsi.DeviceOptions{})
	if n := d.Open(id); n.ID() != id || n.String() != id.String() {
		t.Error(n)
	}
}

// Everything that a transport and an operator may do at once, for the race
// detector.
func TestConcurrentUse(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, d, 1, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
	var wg sync.WaitGroup
	var errs [4]error
	for i := range errs {
		wg.Go(func() {
			for round := range 30 {
				h := openHost(t, d, string(rune('a'+i)))
				for _, cdb := range [][]byte{ready, ready, rw10(0x28, 0, 0, 8), rw10(0x2a, 0, 0, 8), rw16(0x8b, 0, 0, 8),
					rw10(0x41, 8, 0, 8), {0x1a, 8, 0x3f, 0, 255, 0}, inquiry(0x83, 255), {0xa0, 9: 255, 11: 0}} {
					if r := h.do(cdb, fill(1, 8), 4096); r.status == scsi.Busy {
						errs[i] = errors.New(r.String())
					}
				}
				if round%8 == 0 {
					d.LogicalUnitReset(h.lun, h.n)
				}
				h.n.Close()
			}
		})
	}
	wg.Go(func() {
		for range 30 {
			lu.Info()
			d.Snapshot()
			lu.SetReadOnly(false)
			other, err := scsi.NewController(scsi.LogicalUnitOptions{Log: quiet})
			if err == nil {
				err = d.Attach(0, other)
			}
			if err == nil {
				_, err = d.Detach(0)
			}
			if err != nil {
				errs[0] = err
			}
		}
	})
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Error(err)
	}
}

// TestResetNexuses resets a target for one nexus: what others hold and have set stays.
func TestResetNexuses(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
	attach(t, d, 2, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	h.lun, other.lun = scsi.MakeLUN(2), scsi.MakeLUN(2)
	h.settle()
	other.settle()
	other.want(good, []byte{0x16, 5: 0}, nil, 0)
	other.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0)
	h.lun, other.lun = scsi.MakeLUN(1), scsi.MakeLUN(1)
	h.want(good, []byte{0x16, 5: 0}, nil, 0)
	h.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0)
	d.ResetNexuses(h.n, true, func(id scsi.NexusID) bool { return id == h.n.ID() })
	h.expect(t, "6/29/01")
	other.want(good, ready, nil, 0) // no unit attention, and no reservation any more
	h.lun, other.lun = scsi.MakeLUN(2), scsi.MakeLUN(2)
	h.want("6/29/01", ready, nil, 0)
	h.want("18", ready, nil, 0)
	other.want(good, ready, nil, 0)
	if d.LogicalUnit(1).Info().PreventRemoval || !d.LogicalUnit(2).Info().PreventRemoval {
		t.Error("removal is prevented where it was not, or allowed to who has not")
	}
}
