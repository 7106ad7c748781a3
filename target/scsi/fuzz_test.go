// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// FuzzCDB sends two commands of any kind, the second of which meets the state
// that the first has left. That a command ends, leaks nothing and returns no
// more than was asked for is checked by host.finish.
func FuzzCDB(f *testing.F) {
	for _, cdb := range [][]byte{
		ready, inquiry(0x83, 255), {0xa0, 9: 255, 11: 0}, {0x1a, 0, 0x3f, 0xff, 255, 0}, {0x25, 9: 0},
		rw10(0x28, 8, 0, 1), rw10(0x2a, 0, 0, 1), rw10(0x2f, 2, 0, 1), rw10(0x41, 8, 0, 1), rw10(0x34, 0, 0, 0), rw10(0x35, 0, 0, 0),
		rw16(0x88, 0, 1<<63, 1), rw16(0x8b, 0, 0, 1), rw16(0x8f, 6, 0, 4), rw16(0x93, 9, 0, 4), rw16(0x9e, 0x12, 0, 64), rw16(0x9e, 0x10, 0, 32),
		unmapCDB(24), {0x15, 0x10, 0, 0, 24, 0}, {0x55, 0x10, 8: 24, 9: 0}, {0x5e, 3, 8: 255, 9: 0}, {0x5f, 0, 1, 8: 24, 9: 0},
		{0xa3, 0x0c, 0x80, 8: 255, 11: 0}, {0xa3, 0x0a, 9: 255, 11: 0}, {0x1b, 4: 2, 5: 0}, {0x1e, 4: 1, 5: 0}, {0x89, 13: 1, 15: 0},
	} {
		f.Add(cdb, unmapList([2]uint64{0, 8}), rw10(0x28, 0, 0, 1), uint16(1024), false)
		f.Add(cdb, fill(0, 2), cdb, uint16(64), true)
	}
	for _, op := range opcodes(f) { // every command, with nothing and with everything in its fields
		for _, b := range []byte{0, 0xff} {
			cdb := bytes.Repeat([]byte{b}, op.length)
			cdb[0], cdb[op.length-1] = op.code, 0
			if op.action >= 0 {
				cdb[1] = cdb[1]&^0x1f | byte(op.action)
			}
			f.Add(cdb, fill(0, 2), cdb, uint16(1024), false)
		}
	}
	f.Fuzz(func(t *testing.T, first, out, second []byte, in uint16, controller bool) {
		d := newDevice(t, scsi.DeviceOptions{})
		disk := attach(t, d, 1, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(64 << 10), UnitOptions: scsi.UnitOptions{Removable: true}})
		defer disk.Close()
		if controller {
			lu, err := scsi.NewController(scsi.LogicalUnitOptions{Log: quiet})
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Attach(0, lu); err != nil {
				t.Fatal(err)
			}
		}
		h := openHost(t, d, "a")
		if controller {
			h.lun = 0
		}
		h.settle()
		h.do(first[:min(len(first), 16)], out, int(in))
		h.do(second[:min(len(second), 16)], out, int(in))
		state := d.Snapshot()
		if len(state.Nexuses) != 1 || bytes.Contains([]byte(state.Nexuses[0].Initiator), []byte{0}) {
			t.Errorf("state %+v", state)
		}
	})
}
