// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	engine "github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/plugin"
)

// unit is a logical unit of gotgt's LUN map that is served.
type unit struct{ lu *api.SCSILu }

// mappedUnits returns what gotgt's LUN map has for a target.
func mappedUnits(name string) (map[uint16]*unit, error) {
	units := make(map[uint16]*unit)
	for n, lu := range scsi.GetTargetLUNMap(name) {
		if n > engine.MaxLUN {
			return nil, fmt.Errorf("LUN %d: the highest is %d", n, engine.MaxLUN)
		}
		if lu == nil {
			return nil, fmt.Errorf("LUN %d: gotgt's LUN map has no device for it", n)
		}
		units[uint16(n)] = &unit{lu}
	}
	return units, nil
}

// make makes a logical unit of the engine that presents itself as gotgt's does.
func (u *unit) make(log *slog.Logger) (*engine.LogicalUnit, error) {
	lu, a := u.lu, &u.lu.Attrs
	if a.DeviceType != api.TYPE_DISK {
		return nil, fmt.Errorf("device type %#x is not served, only disks are", a.DeviceType)
	}
	shift := lu.BlockShift
	if shift == 0 {
		shift = api.DefaultBlockShift
	}
	store, err := plugin.Wrap(lu, plugin.Options{Name: fmt.Sprintf("device %d", lu.UUID), Options: storage.Options{Path: lu.Path}})
	if err != nil {
		return nil, err
	}
	unit, err := engine.NewLogicalUnit(engine.LogicalUnitOptions{
		Store: store, BlockOptions: storage.BlockOptions{BlockSize: 1 << min(shift, 30), ReadOnly: a.Readonly || a.SWP, Thin: new(a.ThinProvisioning)},
		Log: log, Omit: omitted,
		UnitOptions: engine.UnitOptions{
			Vendor: a.VendorID, Product: a.ProductID, Revision: a.ProductRev, Removable: a.Removable, Offline: !a.Online,
			Serial: fmt.Sprintf("gotgt-%d", lu.UUID), SCSIID: fmt.Sprintf("%-8.8sgotgt-%d", a.VendorID, lu.UUID), NAA: naa(lu.UUID),
			PhysicalBlockExponent: new(int(a.Lbppbe)), LowestAlignedLBA: uint16(a.LowestAlignedLBA),
			DescriptorSense: a.SenseFormat,
		},
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return unit, nil
}

// naa is the identifier that gotgt gives a device: locally assigned (SPC-4
// 7.8.6.6.4), with the device's number.
func naa(uuid uint64) string { return fmt.Sprintf("%016x", 3<<60|uuid&(1<<60-1)) }

// omitted tells which commands gotgt's switches turn off.
func omitted(code byte, action int) bool {
	switch api.SCSICommandType(code) {
	case api.ORWRITE_16:
		return !scsi.EnableORWrite16
	case api.PERSISTENT_RESERVE_IN, api.PERSISTENT_RESERVE_OUT:
		return !scsi.EnablePersistentReservation
	case api.MAINT_PROTOCOL_IN:
		const reportTargetPortGroups = 0x0a
		return action == reportTargetPortGroups && !scsi.EnableMultipath
	}
	return false
}

// RereadTargetLUNMap serves what gotgt's LUN map has now: initiators learn of
// logical units that have come, gone or become others, and of new sizes. What
// can't be served is logged.
func (d *Driver) RereadTargetLUNMap() {
	d.service.RereadTargetLUNMap()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != running {
		return
	}
	for _, t := range d.targets {
		if err := d.reread(t); err != nil {
			d.log.Error("LUN map not followed", "target", t.name, "error", err)
		}
	}
}

// reread makes a target what the LUN map has. The caller holds mu.
func (d *Driver) reread(t *driverTarget) error {
	mapped, err := mappedUnits(t.name)
	if err != nil {
		return err
	}
	var errs []error
	server := d.server.Load()
	for _, n := range slices.Sorted(maps.Keys(t.units)) {
		if now := mapped[n]; now == nil || now.lu != t.units[n].lu {
			errs = append(errs, server.Detach(t.name, n))
			delete(t.units, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(mapped)) {
		if t.units[n] != nil {
			errs = append(errs, server.LogicalUnit(t.name, n).Refresh(context.Background()))
			continue
		}
		lu, err := mapped[n].make(d.log)
		if err == nil {
			if err = server.Attach(t.name, n, lu); err != nil {
				err = errors.Join(err, lu.Close())
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("LUN %d: %w", n, err))
			continue
		}
		t.units[n] = mapped[n]
	}
	return errors.Join(errs...)
}

// Resize gives every logical unit of the driver's targets the size, in bytes,
// as gotgt's does. The backing stores have it already. Initiators learn of it.
func (d *Driver) Resize(size uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, t := range d.targets {
		mapped, err := mappedUnits(t.name)
		errs = append(errs, err)
		for _, u := range mapped {
			u.lu.Size = size
		}
		for n := range t.units {
			if d.state == running {
				errs = append(errs, d.server.Load().LogicalUnit(t.name, n).Refresh(context.Background()))
			}
		}
	}
	return errors.Join(errs...)
}
