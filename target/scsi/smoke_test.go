// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"testing"

	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

func TestWriteThenRead(t *testing.T) {
	d, err := scsi.NewDevice(scsi.DeviceOptions{Name: "iqn.2015-02.com.stu31:t1", TID: 1})
	if err != nil {
		t.Fatal(err)
	}
	lu, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: storage.NewRAM(1 << 20), Online: true, WriteCache: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Attach(1, lu); err != nil {
		t.Fatal(err)
	}
	n := d.Open(scsi.NexusID{Initiator: "iqn.2000-01.org.example:a"})
	c := &scsi.Command{Pool: new(mem.Pool), LUN: scsi.MakeLUN(1)}
	n.Prepare(c)
	if c.Status != scsi.CheckCondition || c.Sense[12] != 0x29 {
		t.Fatalf("first command: status %v, sense % x", c.Status, c.Sense)
	}
	pattern := bytes.Repeat([]byte{0x5a}, 1024)
	c.Reset()
	c.LUN, c.CDB, c.OutExpected = scsi.MakeLUN(1), [16]byte{0x2a, 8: 2}, 1024
	n.Prepare(c)
	c.Out = pattern
	if c.Length != 1024 || !n.TryExecute(c) || c.Status != scsi.Good {
		t.Fatalf("write: length %d, status %v", c.Length, c.Status)
	}
	c.Reset()
	c.LUN, c.CDB, c.InExpected = scsi.MakeLUN(1), [16]byte{0x28, 8: 2}, 1024
	n.Prepare(c)
	n.Execute(c)
	if c.Status != scsi.Good || !bytes.Equal(c.In.B, pattern) {
		t.Fatalf("read: status %v", c.Status)
	}
}
