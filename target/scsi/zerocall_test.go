// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"testing"

	"github.com/gotgtd/gotgtd/internal/zerocall"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// TestZeroArguments calls everything with nil and nothing: it may be refused.
func TestZeroArguments(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{Store: newRAM(t)})
	controller, err := scsi.NewController(scsi.LogicalUnitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	loose, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: newRAM(t)})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := scsi.NewDevice(scsi.DeviceOptions{Name: "iqn.2026-11.test:empty"})
	if err != nil {
		t.Fatal(err)
	}
	zerocall.Package(t, map[string]any{
		"NewDevice": scsi.NewDevice, "NewLogicalUnit": scsi.NewLogicalUnit, "NewController": scsi.NewController, "MakeLUN": scsi.MakeLUN,
		"DefaultIdentity": scsi.DefaultIdentity, "DigestIdentity": scsi.DigestIdentity, "TgtIdentity": scsi.TgtIdentity, "TgtNAA": scsi.TgtNAA, "ParseNAA": scsi.ParseNAA,
		"WorkKinds": scsi.WorkKinds, "Failures": scsi.Failures,
	}, h.n, h.dev, lu, controller, loose, empty, empty.Open(scsi.NexusID{}), new(scsi.Command), new(scsi.Batch), new(scsi.UnitOptions), new(scsi.UnitInfo), scsi.LUN(0), scsi.NexusID{}, scsi.NexusState{}, new(scsi.UnitState))
}

// TestUnpreparedCommand executes commands of which only the CDB is given: nothing has
// prepared them, and there is no pool.
func TestUnpreparedCommand(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	inquiry := func() *scsi.Command {
		c := &scsi.Command{LUN: scsi.MakeLUN(1), InExpected: 36}
		copy(c.CDB[:], []byte{0x12, 4: 36})
		return c
	}
	c := inquiry()
	h.n.Execute(t.Context(), c)
	if !c.Done() || c.Status != scsi.Good || len(c.In.B) != 36 {
		t.Errorf("Execute: %+v", c)
	}
	c.In.Release()
	c = inquiry()
	if !h.n.TryExecute(c) || c.Status != scsi.Good {
		t.Errorf("TryExecute: %+v", c)
	}
	c.In.Release()
}
