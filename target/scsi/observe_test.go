// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// Each command is observed once, when it has ended: in Prepare, in TryExecute,
// in Execute, or in the process that it was handed over to.
func TestObserve(t *testing.T) {
	var seen []string
	d := newDevice(t, scsi.DeviceOptions{Observe: func(c *scsi.Command, took time.Duration) {
		if took < 0 || took > time.Hour || !c.Done() {
			t.Errorf("opcode %#x took %v, done %v", c.CDB[0], took, c.Done())
		}
		seen = append(seen, fmt.Sprintf("%02x %02x %d %d", c.CDB[0], uint8(c.Status), c.InLength, len(c.Out)))
	}})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, d, "a")
	h.want("6/29/00", []byte{5: 0}, nil, 0) // ends in Prepare
	h.want(good, []byte{5: 0}, nil, 0)
	h.write(3, fill(1, 2))
	h.read(3, 2)
	h.prepare(&h.cmd, rw16(0x88, 0, 3, 1), 0, 512)
	h.n.Execute(t.Context(), &h.cmd)
	h.finish(&h.cmd)
	var moved scsi.Command
	moved.Pool, moved.LUN, moved.InExpected = h.cmd.Pool, h.lun, 512
	copy(moved.CDB[:], rw16(0x88, 0, 3, 1))
	h.n.Reprepare(&moved)
	if !h.n.TryExecute(&moved) {
		h.n.Execute(t.Context(), &moved)
	}
	h.finish(&moved)
	want := []string{"00 02 0 0", "00 00 0 0", "8a 00 0 1024", "88 00 1024 0", "88 00 512 0", "88 00 512 0"}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}

// What is omitted is neither there nor listed.
func TestOmit(t *testing.T) {
	const maintenanceIn, reportGroups, orwrite = 0xa3, 0x0a, 0x8b
	h, _ := newHost(t, scsi.LogicalUnitOptions{Omit: func(code byte, action int) bool {
		return code == orwrite || code == maintenanceIn && action == reportGroups
	}})
	h.want("5/20/00", rw16(orwrite, 0, 0, 1), fill(1, 1), 0)
	h.want("5/24/00", []byte{maintenanceIn, reportGroups, 9: 64, 11: 0}, nil, 64)
	if tpgs := h.want(good, []byte{0x12, 4: 96, 5: 0}, nil, 96).data[5] & 0x30; tpgs != 0 {
		t.Errorf("TPGS is %#x though there are no port groups to report", tpgs)
	}
	// REPORT SUPPORTED OPERATION CODES, one command: SUPPORT says that there is none.
	for _, tc := range []struct{ code, support byte }{{orwrite, 1}, {0x8a, 3}} {
		if got := h.want(good, []byte{maintenanceIn, 0x0c, 1, tc.code, 9: 64, 11: 0}, nil, 64).data[1] & 7; got != tc.support {
			t.Errorf("SUPPORT of opcode %#x is %d, want %d", tc.code, got, tc.support)
		}
	}
}
