// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// tgtDisk is a disk that tells what tgt's does.
func tgtDisk() scsi.LogicalUnitOptions {
	o := scsi.LogicalUnitOptions{Store: storagetest.NewRAM(1 << 20)}
	id := scsi.TgtIdentity(1, 1, "")
	o.SCSIID, o.Serial, o.NAA, o.TgtIdentification = id.SCSIID, id.Serial, id.NAA, true
	o.PhysicalBlockExponent, o.RotationRate = new(3), new(0)
	return o
}

// TestTgtLayout has what tgtd 1.0.85 answers for TID 1, LUN 1.
func TestTgtLayout(t *testing.T) {
	h, _ := newHost(t, tgtDisk())
	for page, want := range map[byte]string{
		0x80: "00800024" + strings.Repeat("20", 30) + "626561663131",
		0x83: "020100244945542020202020" + "3030303130303031" + strings.Repeat("00", 20) + "010300083000000100000001" + "0103001060000000000000000e00000000010001",
		0xb1: "00b1003c0000" + strings.Repeat("00", 58),
	} {
		data := h.want(good, inquiry(page, 512), nil, 512).data
		if page == 0x83 { // those of the ports follow
			data = data[4:min(len(data), 4+len(want)/2)]
		}
		if got := hex.EncodeToString(data); got != want {
			t.Errorf("page %02Xh: %s, want %s", page, got, want)
		}
	}
}

// TestLongTgtLayout has names of 36 bytes.
func TestLongTgtLayout(t *testing.T) {
	o := tgtDisk()
	o.SCSIID, o.Serial = strings.Repeat("i", 36), strings.Repeat("s", 36)
	h, _ := newHost(t, o)
	if got := h.want(good, inquiry(0x80, 512), nil, 512).data; string(got[4:]) != o.Serial {
		t.Errorf("page 80h: %q", got)
	}
	if got := h.want(good, inquiry(0x83, 512), nil, 512).data; got[7] != 36 || string(got[8:44]) != o.SCSIID {
		t.Errorf("page 83h: %q", got)
	}
}

// TestToldOtherwise hands a disk over to a process in which INQUIRY or READ CAPACITY (16)
// tell something else.
func TestToldOtherwise(t *testing.T) {
	const inquiryData, capacity = "6/3f/03", "6/2a/09"
	for _, c := range []struct {
		name   string
		before func(*scsi.LogicalUnitOptions)
		after  func(*scsi.LogicalUnitOptions)
		silent bool // the process before does not say what it told
		want   []string
	}{
		{"the same", nil, nil, false, nil},
		{"thick", func(o *scsi.LogicalUnitOptions) { o.Thin = new(false) }, nil, false, []string{inquiryData, capacity}},
		{"another rotation rate", nil, func(o *scsi.LogicalUnitOptions) { o.RotationRate = new(7200) }, false, []string{inquiryData}},
		{"other physical blocks", nil, func(o *scsi.LogicalUnitOptions) { o.PhysicalBlockExponent = nil }, false, []string{capacity}},
		{"another revision", nil, func(o *scsi.LogicalUnitOptions) { o.Revision = "2" }, false, []string{inquiryData}},
		{"removable, thick", func(o *scsi.LogicalUnitOptions) { o.Thin, o.Removable = new(false), true }, func(o *scsi.LogicalUnitOptions) { o.Removable = true }, false, nil},
		{"tgt's layout", func(o *scsi.LogicalUnitOptions) { o.TgtIdentification = false }, nil, false, []string{inquiryData}},
		{"tgt's layout, after a process without it", func(o *scsi.LogicalUnitOptions) { o.TgtIdentification = false }, nil, true, []string{inquiryData, capacity}},
		{"not tgt's, after a process that does not tell", func(o *scsi.LogicalUnitOptions) { o.TgtIdentification = false }, func(o *scsi.LogicalUnitOptions) { o.TgtIdentification = false }, true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after := tgtDisk(), tgtDisk()
			if c.before != nil {
				c.before(&before)
			}
			if c.after != nil {
				c.after(&after)
			}
			old := newDevice(t, scsi.DeviceOptions{})
			attach(t, old, 1, before)
			h := openHost(t, old, "a").settle()
			state := carry(t, old)
			if c.silent {
				state.Units[0].Inquiry, state.Units[0].Geometry = nil, 0
			}
			next := newDevice(t, scsi.DeviceOptions{})
			attach(t, next, 1, after)
			if err := next.Restore(state); err != nil {
				t.Fatal(err)
			}
			if len(next.Replaced()) > 0 {
				t.Errorf("it is taken for another disk: %v", next.Replaced())
			}
			h.resume(t, next).expect(t, c.want...)
		})
	}
}

// TestAnotherLocalNAA is another disk, as with each identifier.
func TestAnotherLocalNAA(t *testing.T) {
	old, next := newDevice(t, scsi.DeviceOptions{}), newDevice(t, scsi.DeviceOptions{TID: 2})
	attach(t, old, 1, tgtDisk())
	attach(t, next, 1, tgtDisk())
	openHost(t, old, "a").settle()
	if err := next.Restore(carry(t, old)); err != nil {
		t.Fatal(err)
	}
	if r := next.Replaced(); len(r) != 1 || !strings.Contains(r[0].Why, "NAA 3000000200000001 instead of 3000000100000001") {
		t.Errorf("%+v", r)
	}
}
