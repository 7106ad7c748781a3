// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"context"
	"fmt"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// A disk without a network: a transport of a program's own has commands executed.
func Example() {
	store, err := storage.NewRAM(1 << 20)
	if err != nil {
		fmt.Println(err)
		return
	}
	disk, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: store, UnitOptions: scsi.UnitOptions{Vendor: "EXAMPLE", Product: "a disk"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer disk.Close()
	device, err := scsi.NewDevice(scsi.DeviceOptions{Name: "iqn.2026-11.com.example:disk"})
	if err == nil {
		err = device.Attach(1, disk)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	nexus := device.Open(scsi.NexusID{Initiator: "iqn.2026-11.com.example:host", TargetPort: 1})
	defer nexus.Close()

	inquiry := scsi.Command{LUN: scsi.MakeLUN(1), CDB: [16]byte{0x12, 4: 36}, InExpected: 36}
	execute(nexus, &inquiry)
	fmt.Printf("%q\n", inquiry.In.B[8:32])
	inquiry.In.Release()

	// The first command that needs the disk is told that it has been switched on.
	for range 2 {
		ready := scsi.Command{LUN: scsi.MakeLUN(1)} // TEST UNIT READY
		execute(nexus, &ready)
		fmt.Println(ready.Status == scsi.Good)
	}
	// Output:
	// "EXAMPLE a disk          "
	// false
	// true
}

// execute is a transport's way with a command.
func execute(n *scsi.Nexus, c *scsi.Command) {
	n.Prepare(c)
	if c.Direction == scsi.DataOut && !c.Done() {
		c.Out = make([]byte, min(c.Length, c.OutExpected)) // comes from the initiator
	}
	if !n.TryExecute(c) {
		n.Execute(context.Background(), c) // may wait for a device
	}
}
