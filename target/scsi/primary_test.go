// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func inquiry(page byte, allocation int) []byte {
	evpd := byte(1)
	if page == 0xff {
		evpd, page = 0, 0
	}
	return []byte{0x12, evpd, page, byte(allocation >> 8), byte(allocation), 0}
}

func TestStandardInquiry(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{Vendor: "ACME", Product: "Disk", Revision: "7", Removable: true}})
	b := h.want(good, inquiry(0xff, 255), nil, 255).data
	if len(b) != 96 || int(b[4]) != len(b)-5 {
		t.Fatalf("%d bytes, additional length %d", len(b), b[4])
	}
	if b[0] != 0 || b[1] != 0x80 || b[2] != 6 || b[3]&0x0f != 2 || b[5]&0x30 != 0x10 || b[7]&2 == 0 {
		t.Errorf("% x", b[:8])
	}
	if got := string(b[8:36]); got != "ACME    Disk            7   " {
		t.Errorf("identification %q", got)
	}
	if !bytes.Equal(b[58:66], []byte{0x00, 0xa0, 0x04, 0x60, 0x04, 0xc0, 0x09, 0x60}) {
		t.Errorf("version descriptors % x", b[58:74])
	}
	r := h.want(good, inquiry(0xff, 5), nil, 255)
	if len(r.data) != 5 {
		t.Errorf("allocation length 5: %d bytes", len(r.data))
	}
	h.want("5/24/00", []byte{0x12, 0, 0x80, 0, 255, 0}, nil, 255) // page code without EVPD
	h.want("5/24/00", []byte{0x12, 2, 0, 0, 255, 0}, nil, 255)    // CMDDT
	h.want("5/24/00", inquiry(0xb9, 255), nil, 255)
}

// designators returns the Device Identification page's, as "type/association:
// content".
func designators(t *testing.T, b []byte) []string {
	t.Helper()
	var out []string
	for b = b[4:]; len(b) >= 4; {
		n := int(b[3])
		if len(b) < 4+n {
			t.Fatalf("designator cut off: % x", b)
		}
		text := hex.EncodeToString(b[4 : 4+n])
		if b[0]&0x0f != 1 {
			text = strings.TrimRight(string(b[4:4+n]), "\x00")
		}
		out = append(out, string('0'+rune(b[1]&0x0f))+"/"+string('0'+rune(b[1]>>4&3))+":"+text)
		b = b[4+n:]
	}
	return out
}

func TestVitalProductData(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(1 << 30)})
	page := func(code byte) []byte {
		t.Helper()
		b := h.want(good, inquiry(code, 4096), nil, 4096).data
		if b[1] != code || int(binary.BigEndian.Uint16(b[2:])) != len(b)-4 {
			t.Fatalf("page %02x: header % x for %d bytes", code, b[:4], len(b))
		}
		return b
	}
	if b := page(0); !bytes.Equal(b[4:], []byte{0, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2}) {
		t.Errorf("supported pages % x", b[4:])
	}
	id := scsi.DefaultIdentity(targetName, 1)
	if b := page(0x80); string(b[4:]) != id.Serial {
		t.Errorf("serial number %q", b[4:])
	}
	info := lu.Info()
	if info.SCSIID != "IET     "+id.Serial || info.Serial != id.Serial || len(info.NAA) != 16 || info.NAA != "3"+id.Serial[1:] {
		t.Errorf("identity: %+v", info)
	}
	want := []string{"1/0:" + id.SCSIID, "3/0:" + info.NAA, "4/1:00000001", "5/1:00000001",
		"8/1:" + targetName + ",t,0x0001", "8/2:" + targetName}
	if got := designators(t, page(0x83)); !slices.Equal(got, want) {
		t.Errorf("designators %q, want %q", got, want)
	}
	if b := page(0x86); len(b) != 64 || b[5] != 7 || b[6] != 1 {
		t.Errorf("extended INQUIRY data % x", b)
	}
	b := page(0xb0)
	be := binary.BigEndian
	if len(b) != 64 || b[4] != 1 || b[5] != 255 || be.Uint16(b[6:]) != 8 || be.Uint32(b[8:]) != scsi.MaxTransfer/512 ||
		be.Uint32(b[12:]) != 2048 || be.Uint32(b[20:]) != 1<<20 || be.Uint32(b[24:]) != 256 || be.Uint32(b[28:]) != 8 || be.Uint64(b[36:]) != 32768 {
		t.Errorf("block limits % x", b)
	}
	if b := page(0xb1); len(b) != 64 || b[5] != 1 {
		t.Errorf("block device characteristics % x", b)
	}
	if b := page(0xb2); len(b) != 8 || b[5] != 0xe4 || b[6] != 2 {
		t.Errorf("logical block provisioning % x", b)
	}
}

func TestIdentityIsStableAndOverridable(t *testing.T) {
	_, one := newHost(t, scsi.LogicalUnitOptions{})
	_, again := newHost(t, scsi.LogicalUnitOptions{})
	if one.Info().NAA != again.Info().NAA {
		t.Error("another NAA designator after a restart")
	}
	h, lu := newHost(t, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{SCSIID: "mine", Serial: "42", NAA: "60323334353637383930616263646566"}})
	if info := lu.Info(); info.SCSIID != "mine" || info.Serial != "42" || !strings.HasPrefix(info.NAA, "6032") {
		t.Errorf("%+v", info)
	}
	if d := designators(t, h.want(good, inquiry(0x83, 4096), nil, 4096).data); d[0] != "1/0:mine" || len(d[1]) != 4+32 {
		t.Errorf("%q", d)
	}
	for name, o := range map[string]scsi.LogicalUnitOptions{
		"NAA":      {UnitOptions: scsi.UnitOptions{NAA: strings.Repeat("3", 18)}},
		"vendor":   {UnitOptions: scsi.UnitOptions{Vendor: "much too long"}},
		"SCSI ID":  {UnitOptions: scsi.UnitOptions{SCSIID: strings.Repeat("i", 37)}},
		"serial":   {UnitOptions: scsi.UnitOptions{Serial: "a\nb"}},
		"exponent": {UnitOptions: scsi.UnitOptions{PhysicalBlockExponent: new(16)}},
		"aligned":  {UnitOptions: scsi.UnitOptions{LowestAlignedLBA: 0x4000}},
		"rotation": {UnitOptions: scsi.UnitOptions{RotationRate: new(2)}},
		"block":    {BlockOptions: storage.BlockOptions{BlockSize: 1024}},
		"page":     {UnitOptions: scsi.UnitOptions{ModePages: []scsi.ModePage{{Page: 0x3f, Data: []byte{1}}}}},
		"no page":  {UnitOptions: scsi.UnitOptions{ModePages: []scsi.ModePage{{Page: 2}}}},
		"twice":    {UnitOptions: scsi.UnitOptions{ModePages: []scsi.ModePage{{Page: 2, Data: []byte{1}}, {Page: 2, Data: []byte{2}}}}},
		"small":    {Store: storagetest.NewRAM(511)},
	} {
		if o.Store == nil {
			o.Store = storagetest.NewRAM(1 << 20)
		}
		if _, err := scsi.NewLogicalUnit(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{}); err == nil {
		t.Error("a disk without a store was accepted")
	}
	if _, err := scsi.NewDevice(scsi.DeviceOptions{}); err == nil {
		t.Error("a device without a name was accepted")
	}
}

func TestController(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	lu, err := scsi.NewController(scsi.LogicalUnitOptions{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Attach(0, lu); err != nil {
		t.Fatal(err)
	}
	h := openHost(t, d, "a")
	h.lun = 0
	h.settle()
	b := h.want(good, inquiry(0xff, 255), nil, 255).data
	if b[0] != 0x0c || !strings.HasPrefix(string(b[16:]), "Controller") {
		t.Errorf("% x", b)
	}
	if b := h.want(good, inquiry(0, 255), nil, 255).data; !bytes.Equal(b[4:], []byte{0, 0x80, 0x83, 0x86}) {
		t.Errorf("supported pages % x", b)
	}
	for _, cdb := range [][]byte{rw10(0x28, 0, 0, 0), rw10(0x2a, 0, 0, 0), {0x25, 9: 0}, {0x16, 5: 0}, {0x1b, 5: 0}, {0x9e, 0x10, 15: 0}} {
		h.want("5/20/00", cdb, nil, 0)
	}
	if b := h.want(good, []byte{0x1a, 0, 0x3f, 0, 255, 0}, nil, 255).data; b[2] != 0 || b[3] != 0 {
		t.Errorf("mode header % x", b)
	}
	if info := lu.Info(); info.Type != "controller" || info.StoreType != "null" || info.BlockSize != 1 || info.Serial != "beaf10" {
		t.Errorf("%+v", info)
	}
	lu.SetReadOnly(true)
	if err := lu.Flush(t.Context()); err != nil || lu.Info().ReadOnly {
		t.Errorf("flush: %v, %+v", err, lu.Info())
	}
	if err := lu.Close(); err != nil {
		t.Error(err)
	}
}

func TestReportLUNs(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	for _, n := range []uint16{300, 1, scsi.MaxLUN} {
		attach(t, d, n, scsi.LogicalUnitOptions{})
	}
	h := openHost(t, d, "a")
	report := func(want string, selectReport byte, allocation int) []byte {
		t.Helper()
		return h.want(want, []byte{0xa0, 0, selectReport, 0, 0, 0, 0, 0, byte(allocation >> 8), byte(allocation), 0, 0}, nil, 4096).data
	}
	want := []byte{0, 0, 0, 24, 0, 0, 0, 0,
		0, 1, 0, 0, 0, 0, 0, 0, 0x41, 0x2c, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0, 0, 0, 0, 0}
	for _, lun := range []scsi.LUN{0, scsi.MakeLUN(1)} {
		h.lun = lun
		for _, s := range []byte{0, 2, 0x11} {
			if b := report(good, s, 4096); !bytes.Equal(b, want) {
				t.Errorf("LUN %v, select report %02x: % x", lun, s, b)
			}
		}
		if b := report(good, 0, 16); !bytes.Equal(b, want[:16]) {
			t.Errorf("allocation length 16: % x", b)
		}
		for _, s := range []byte{1, 0x10} {
			if b := report(good, s, 4096); !bytes.Equal(b, make([]byte, 8)) {
				t.Errorf("select report %02x: % x", s, b)
			}
		}
		report("5/24/00", 3, 4096)
		report("5/24/00", 0, 15)
	}
}

func TestLUNFormats(t *testing.T) {
	for _, c := range []struct {
		lun  scsi.LUN
		n    uint16
		ok   bool
		text string
	}{
		{0, 0, true, "0"},
		{0x0001 << 48, 1, true, "1"},
		{0x00ff << 48, 255, true, "255"},
		{0x4001 << 48, 1, true, "1"},
		{0x4100 << 48, 256, true, "256"},
		{0x7fff << 48, 0x3fff, true, "16383"},
		{0x0100 << 48, 0, false, "0x0100000000000000"},
		{0x8001 << 48, 0, false, "0x8001000000000000"},
		{0xc101 << 48, 0, false, "0xc101000000000000"},
		{1, 0, false, "0x0000000000000001"},
		{0x0001000100000000, 0, false, "0x0001000100000000"},
	} {
		n, ok := c.lun.Number()
		if ok != c.ok || ok && n != c.n || c.lun.String() != c.text {
			t.Errorf("%016x: %d, %t, %v", uint64(c.lun), n, ok, c.lun)
		}
	}
	for _, n := range []uint16{0, 1, 255, 256, scsi.MaxLUN} {
		if got, ok := scsi.MakeLUN(n).Number(); !ok || got != n {
			t.Errorf("MakeLUN(%d) is %d, %t", n, got, ok)
		}
	}
}

func TestNoSuchLogicalUnit(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	for _, lun := range []scsi.LUN{0, scsi.MakeLUN(2), scsi.MakeLUN(300), 0xc101 << 48} {
		h.lun = lun
		if b := h.want(good, inquiry(0xff, 255), nil, 255).data; b[0] != 0x7f {
			t.Errorf("LUN %v: INQUIRY says % x", lun, b[:1])
		}
		h.want("5/25/00", inquiry(0x83, 255), nil, 255)
		h.want("5/25/00", []byte{0, 5: 0}, nil, 0)
		h.want("5/25/00", rw10(0x28, 0, 0, 1), nil, 512)
		h.want("5/25/00", []byte{0xff, 15: 0}, nil, 0)
		if b := h.want(good, []byte{3, 0, 0, 0, 255, 0}, nil, 255).data; b[2] != 5 || b[12] != 0x25 {
			t.Errorf("LUN %v: REQUEST SENSE says % x", lun, b)
		}
	}
}

func TestInvalidOpcodes(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{BlockOptions: storage.BlockOptions{Thin: new(false)}})
	h.want("5/20/00", []byte{0xff, 15: 0}, nil, 0)
	h.want("5/20/00", []byte{0x42, 9: 0}, nil, 0)          // not thin
	h.want("5/24/00", []byte{0xa3, 0x1f, 11: 0}, nil, 0)   // no such service action
	h.want("5/24/00", []byte{0, 0, 0, 0, 0, 0x04}, nil, 0) // NACA
}

func TestReportSupportedOperationCodes(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	rsoc := func(want string, options, code byte, action uint16) []byte {
		t.Helper()
		return h.want(want, []byte{0xa3, 0x0c, options, code, byte(action >> 8), byte(action), 0, 0, 0xff, 0xff, 0, 0}, nil, 65535).data
	}
	all := rsoc(good, 0, 0, 0)
	if int(binary.BigEndian.Uint32(all)) != len(all)-4 || len(all)%8 != 4 {
		t.Fatalf("%d bytes, length field %d", len(all), binary.BigEndian.Uint32(all))
	}
	timed := rsoc(good, 0x80, 0, 0)
	if (len(timed)-4)/20 != (len(all)-4)/8 {
		t.Errorf("%d bytes with timeouts, %d without", len(timed), len(all))
	}
	for d := range slices.Chunk(all[4:], 8) {
		code, action := d[0], binary.BigEndian.Uint16(d[2:])
		right, wrong := byte(1), byte(2)
		if d[5]&1 != 0 {
			right, wrong = 2, 1
		}
		one := rsoc(good, right, code, action)
		if one[1] != 3 || int(one[3]) != len(one)-4 || one[4] != code || int(d[7]) != len(one)-4 {
			t.Errorf("%02x/%02x: % x", code, action, one)
		}
		if right == 2 && one[5]&0x1f != byte(action) {
			t.Errorf("%02x/%02x: usage data % x", code, action, one[4:])
		}
		rsoc("5/24/00", wrong, code, action)
		if either := rsoc(good, 3, code, action); !bytes.Equal(either, one) {
			t.Errorf("%02x/%02x: by option 3 % x", code, action, either)
		}
		if timed := rsoc(good, 0x80|right, code, action); len(timed) != len(one)+12 || timed[1] != 0x83 {
			t.Errorf("%02x/%02x: with timeouts % x", code, action, timed)
		}
	}
	if b := rsoc(good, 1, 0xff, 0); b[1] != 1 {
		t.Errorf("operation code FFh: % x", b)
	}
	if b := rsoc(good, 2, 0x9e, 0x1f); b[1] != 1 {
		t.Errorf("service action 9Eh/1Fh: % x", b)
	}
	rsoc("5/24/00", 4, 0, 0)
}

func TestReportTargetPortGroupsAndFunctions(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	d.AddTargetPort(7, targetName+",t,0x0007")
	d.AddTargetPort(3, targetName+",t,0x0003")
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, d, "a").settle()
	want := []byte{0, 0, 0, 20, 0x80, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 7}
	if b := h.want(good, []byte{0xa3, 0x0a, 9: 255, 11: 0}, nil, 255).data; !bytes.Equal(b, want) {
		t.Errorf("% x", b)
	}
	if b := h.want(good, []byte{0xa3, 0x2a, 9: 255, 11: 0}, nil, 255).data; len(b) != 28 || b[4] != 0x10 {
		t.Errorf("extended header: % x", b)
	}
	h.want("5/24/00", []byte{0xa3, 0x4a, 9: 255, 11: 0}, nil, 255)
	if b := h.want(good, []byte{0xa3, 0x0d, 9: 255, 11: 0}, nil, 255).data; !bytes.Equal(b, []byte{0xda, 0, 0, 0}) {
		t.Errorf("task management functions: % x", b)
	}
	if b := h.want(good, []byte{0xa3, 0x0d, 0x80, 9: 255, 11: 0}, nil, 255).data; len(b) != 16 || b[3] != 12 {
		t.Errorf("with timeouts: % x", b)
	}
	h.want("5/24/00", []byte{0xa3, 0x0d, 9: 3, 11: 0}, nil, 255)
}

func TestSendDiagnostic(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.want(good, []byte{0x1d, 4, 0, 0, 0, 0}, nil, 0)
	h.want("5/24/00", []byte{0x1d, 0x20, 0, 0, 0, 0}, nil, 0)
	h.want("5/24/00", []byte{0x1d, 0x10, 0, 0, 4, 0}, make([]byte, 4), 0)
}
