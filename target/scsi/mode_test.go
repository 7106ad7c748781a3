// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"syscall"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func modeSense(page, sub byte) []byte { return []byte{0x1a, 8, page, sub, 255, 0} }

// page returns a mode page with its header.
func (h *host) page(code byte) []byte {
	h.t.Helper()
	return h.want(good, modeSense(code, 0), nil, 255).data[4:]
}

// selectPages sends mode pages with MODE SELECT (6).
func (h *host) selectPages(want string, pages ...[]byte) {
	h.t.Helper()
	list := slices.Concat(append([][]byte{make([]byte, 4)}, pages...)...)
	h.want(want, []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, 0)
}

// with returns p with bits changed in one byte.
func with(p []byte, at int, xor byte) []byte {
	p = bytes.Clone(p)
	p[at] ^= xor
	return p
}

func TestModeSense(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{})
	b := h.want(good, []byte{0x1a, 0, 0x3f, 0, 255, 0}, nil, 255).data
	if int(b[0]) != len(b)-1 || b[2] != 0x10 || b[3] != 8 || binary.BigEndian.Uint32(b[4:]) != 2048 || binary.BigEndian.Uint32(b[8:]) != 512 {
		t.Errorf("header and block descriptor % x", b[:12])
	}
	var codes []byte
	for p := b[12:]; len(p) > 0; p = p[2+p[1]:] {
		codes = append(codes, p[0])
	}
	if !bytes.Equal(codes, []byte{1, 2, 8, 0x0a, 0x1c}) {
		t.Errorf("pages % x", codes)
	}
	if p := h.page(8); len(p) != 20 || p[2] != 4 {
		t.Errorf("caching page % x", p)
	}
	if p := h.page(0x48); p[2] != 4 { // changeable values
		t.Errorf("changeable bits of the caching page % x", p)
	}
	if p := h.page(0x4a); len(p) != 12 || p[2] != 4 || p[4] != 8 || p[8] != 0 {
		t.Errorf("changeable bits of the control page % x", p)
	}
	if p := h.page(0x0a); p[2] != 0x20 || p[3] != 0x10 || p[5] != 0x40 || p[8] != 0xff {
		t.Errorf("control page % x", p)
	}
	h.want("5/39/00", modeSense(0xc8, 0), nil, 255)
	h.want("5/24/00", modeSense(0x05, 0), nil, 255)
	h.want("5/24/00", modeSense(0x08, 1), nil, 255)
	h.want("5/24/00", modeSense(0x3f, 1), nil, 255)
	h.want(good, modeSense(0x3f, 0xff), nil, 255)
	long := h.want(good, []byte{0x5a, 0x10, 8, 0, 0, 0, 0, 1, 0, 0}, nil, 255).data
	if int(binary.BigEndian.Uint16(long)) != len(long)-2 || long[4] != 1 || long[7] != 16 || binary.BigEndian.Uint64(long[8:]) != 2048 {
		t.Errorf("MODE SENSE (10) % x", long)
	}
	lu.SetReadOnly(true)
	if b := h.want(good, modeSense(8, 0), nil, 255).data; b[2] != 0x90 {
		t.Errorf("device-specific parameter of a protected disk %02x", b[2])
	}
}

func TestModeSelect(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, d, 1, scsi.LogicalUnitOptions{})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	control, caching := h.page(0x0a), h.page(8)

	h.selectPages(good, with(control, 2, 4)) // D_SENSE
	if r := h.want("5/20/00", []byte{0xff, 15: 0}, nil, 0); r.sense[0] != 0x72 {
		t.Errorf("sense data % x", r.sense)
	}
	other.want("6/2a/01", []byte{0, 5: 0}, nil, 0)
	other.want(good, []byte{0, 5: 0}, nil, 0)
	h.want(good, []byte{0, 5: 0}, nil, 0)
	if r := h.want("5/21/00", rw16(0x88, 0, 1<<40, 1), nil, 512); !bytes.Equal(r.sense[8:20], []byte{0, 10, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0}) {
		t.Errorf("information descriptor % x", r.sense)
	}
	if r := h.want("5/24/00", rw16(0x88, 0x20, 0, 1), nil, 512); !bytes.Equal(r.sense[8:], []byte{2, 6, 0, 0, 0xcf, 0, 1, 0}) {
		t.Errorf("field pointer descriptor % x", r.sense)
	}
	h.selectPages(good, control)

	h.selectPages(good, with(control, 4, 8)) // SWP
	h.want("7/27/02", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	h.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	h.selectPages(good, control)
	h.want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)

	h.selectPages(good, with(caching, 2, 4), control) // WCE off
	if lu.Info().WriteCache {
		t.Error("the cache is still on")
	}
	other.settle()
	h.selectPages(good, with(caching, 2, 4)) // the same again changes nothing
	other.want(good, []byte{0, 5: 0}, nil, 0)
	if !h.dev.LogicalUnitReset(h.lun, h.n) || !lu.Info().WriteCache {
		t.Error("a reset does not bring the default back")
	}
}

func TestModeSelectIsCheckedWhole(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{})
	control, caching := h.page(0x0a), h.page(8)
	h.selectPages("5/26/00", with(caching, 2, 4), with(control, 3, 0x10)) // not changeable
	h.selectPages("5/26/00", with(caching, 2, 4), with(control, 1, 1))    // wrong length
	h.selectPages("5/26/00", with(caching, 2, 4), []byte{5, 2, 0, 0})     // no such page
	h.selectPages("5/26/00", with(caching, 2, 4), []byte{0x48, 1, 0, 0})
	h.selectPages("5/26/00", []byte{0x3f, 0})
	h.selectPages("5/1a/00", with(caching, 2, 4), control[:5])
	h.selectPages("5/1a/00", with(caching, 2, 4), control[:1])
	if !lu.Info().WriteCache {
		t.Error("a refused parameter list took effect")
	}
	h.want(good, []byte{0x15, 0x10, 0, 0, 0, 0}, nil, 0)
	h.want("5/1a/00", []byte{0x15, 0x10, 0, 0, 3, 0}, make([]byte, 3), 0)
	h.want("5/24/00", []byte{0x15, 0x11, 0, 0, 4, 0}, make([]byte, 4), 0) // SP
	h.want("5/24/00", []byte{0x15, 0x00, 0, 0, 4, 0}, make([]byte, 4), 0) // PF
	sel := func(want string, descriptor ...byte) {
		t.Helper()
		list := append([]byte{0, 0, 0, byte(len(descriptor))}, descriptor...)
		h.want(want, []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}, list, 0)
	}
	sel(good, 0, 0, 8, 0, 0, 0, 2, 0)
	sel(good, 0, 0, 0, 0, 0, 0, 2, 0)
	sel("5/26/00", 0, 0, 8, 0, 0, 0, 4, 0)
	sel("5/26/00", 0, 0, 9, 0, 0, 0, 2, 0)
	sel("5/26/00", 1, 2, 3)
	h.want("5/1a/00", []byte{0x15, 0x10, 0, 0, 6, 0}, []byte{0, 0, 0, 8, 0, 0}, 0)
	long := make([]byte, 24)
	long[4], long[7] = 1, 16
	binary.BigEndian.PutUint64(long[8:], 2048)
	binary.BigEndian.PutUint32(long[20:], 512)
	h.want(good, []byte{0x55, 0x10, 8: 24, 9: 0}, long, 0)
	h.want(good, []byte{0x55, 0x10, 8: 44, 9: 0}, append(long, caching...), 0)
}

func TestCacheIsFlushedWhenItGoesOff(t *testing.T) {
	h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
	caching := h.page(8)
	h.selectPages(good, with(caching, 2, 4))
	if n := len(store.Calls(storagetest.Flush)); n != 1 {
		t.Errorf("%d flushes", n)
	}
	h.selectPages(good, caching)
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Err: syscall.EIO})
	h.selectPages("3/0c/00", with(caching, 2, 4))
	if !lu.Info().WriteCache {
		t.Error("a refused change took effect")
	}
}

func TestConfiguredModePages(t *testing.T) {
	caching := make([]byte, 18)
	caching[0], caching[8] = 0x10, 0x80 // DISC, and WCE clear
	h, _ := newHost(t, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{DescriptorSense: true, ModePages: []scsi.ModePage{
		{Page: 0, Data: []byte{1, 2}}, {Page: 8, Data: caching}, {Page: 0x19, Subpage: 1, Data: []byte{3, 4, 5}},
	}}})
	if p := h.page(8); p[2] != 0x14 || p[10] != 0x80 {
		t.Errorf("caching page % x", p)
	}
	b := h.want(good, modeSense(0x3f, 0xff), nil, 255).data
	if !bytes.HasSuffix(b, []byte{0x59, 1, 0, 3, 3, 4, 5, 0x1c, 10, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2}) {
		t.Errorf("all pages and subpages % x", b)
	}
	if b := h.want(good, modeSense(0x3f, 0), nil, 255).data; bytes.Contains(b, []byte{0x59, 1, 0, 3}) {
		t.Error("a subpage among the pages")
	}
	sub := h.want(good, modeSense(0x19, 1), nil, 255).data[4:]
	h.selectPages(good, sub)
	h.selectPages("5/26/00", with(sub, 5, 1))
	h.selectPages("5/26/00", with(sub, 2, 1))
	if p := h.page(0x0a); p[2] != 0x24 {
		t.Errorf("control page % x", p)
	}
}

func TestWriteProtection(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{BlockOptions: storage.BlockOptions{ReadOnly: true}})
	compare, both := compareAndWrite(0, fill(0, 1), fill(1, 1))
	refused := func(want string) {
		t.Helper()
		for _, cdb := range [][]byte{rw10(0x2a, 0, 0, 1), rw16(0x8a, 0, 0, 0), rw10(0x2e, 0, 0, 1), rw10(0x41, 0, 0, 1),
			rw16(0x8b, 0, 0, 1), unmapCDB(0), {0x0a, 4: 1, 5: 0}} {
			h.want(want, cdb, fill(1, 1), 0)
		}
		h.want(want, compare, both, 0)
	}
	refused("7/27/00")
	h.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	h.want(good, rw10(0x35, 0, 0, 0), nil, 0)
	lu.SetReadOnly(false)
	h.write(0, fill(1, 1))
	if lu.Info().ReadOnly {
		t.Error("Info says that it is protected")
	}
}

func TestStartStopAndPrevention(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, d, 1, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Removable: true}})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	start := func(how byte) []byte { return []byte{0x1b, 0, 0, 0, how, 0} }
	ready := []byte{0, 5: 0}
	for _, how := range []byte{0, 1, 4, 0x12, 0x30, 0xf2, 3} {
		h.want(good, start(how), nil, 0)
		h.want(good, ready, nil, 0)
	}
	h.want(good, start(2), nil, 0)
	other.want("2/3a/00", ready, nil, 0)
	other.want("2/3a/00", rw10(0x28, 0, 0, 1), nil, 512)
	if b := other.want(good, []byte{3, 4: 255, 5: 0}, nil, 255).data; b[2] != 2 || b[12] != 0x3a {
		t.Errorf("REQUEST SENSE: % x", b)
	}
	if lu.Info().Online {
		t.Error("Info says that the medium is there")
	}
	h.want(good, start(3), nil, 0)
	h.want(good, ready, nil, 0)
	other.want("6/28/00", ready, nil, 0)

	other.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0)
	if !lu.Info().PreventRemoval {
		t.Error("Info says nothing of the prevention")
	}
	h.want("5/53/02", start(2), nil, 0)
	h.want("5/24/00", []byte{0x1e, 4: 2, 5: 0}, nil, 0)
	other.n.Close()
	h.want(good, start(2), nil, 0)
	h.want(good, []byte{0x1e, 4: 1, 5: 0}, nil, 0)
	h.want("5/53/02", start(3), nil, 0)
	h.want(good, []byte{0x1e, 4: 0, 5: 0}, nil, 0)
	h.want(good, start(3), nil, 0)

	fixed, _ := newHost(t, scsi.LogicalUnitOptions{})
	fixed.want("5/24/00", start(2), nil, 0)
	fixed.want("5/24/00", start(3), nil, 0)
	fixed.want(good, start(0), nil, 0)
}

func TestOfflineUnit(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	lu, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: storagetest.NewRAM(1 << 20), UnitOptions: scsi.UnitOptions{Offline: true}, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Attach(1, lu); err != nil {
		t.Fatal(err)
	}
	h := openHost(t, d, "a")
	h.want("6/29/00", []byte{0, 5: 0}, nil, 0)
	h.want("2/04/03", []byte{0, 5: 0}, nil, 0)
	h.want("2/04/03", rw10(0x28, 0, 0, 1), nil, 512)
	h.want(good, inquiry(0xff, 255), nil, 255)
}
