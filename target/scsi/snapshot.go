// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// DeviceState is what a Device hands to the one that takes its place in
// another process. Fields are only ever added, here and below.
type DeviceState struct {
	Units   []UnitState  `cbor:"1,keyasint,omitempty"` // ordered by LUN
	Nexuses []NexusState `cbor:"2,keyasint,omitempty"` // ordered by name
}

// UnitState is the state of a logical unit.
type UnitState struct {
	LUN        uint16 `cbor:"1,keyasint"`
	Controller bool   `cbor:"2,keyasint,omitempty"`
	BlockSize  uint32 `cbor:"3,keyasint,omitempty"` // bytes
	Blocks     uint64 `cbor:"4,keyasint,omitempty"` // capacity

	WriteCache        bool `cbor:"5,keyasint,omitempty"` // WCE
	WriteCacheDefault bool `cbor:"6,keyasint,omitempty"` // WCE as configured
	DescriptorSense   bool `cbor:"7,keyasint,omitempty"` // D_SENSE
	WriteProtect      bool `cbor:"8,keyasint,omitempty"` // SWP
	Ejected           bool `cbor:"9,keyasint,omitempty"`
	FlushFailed       bool `cbor:"10,keyasint,omitempty"`

	Reservations reservation.Snapshot `cbor:"11,keyasint"`
	Counters     Counters             `cbor:"12,keyasint"`
}

// NexusState is the state of an I_T nexus.
type NexusState struct {
	Initiator  string           `cbor:"1,keyasint"`
	ISID       [6]byte          `cbor:"2,keyasint"`
	TargetPort uint16           `cbor:"3,keyasint"`
	Units      []NexusUnitState `cbor:"4,keyasint,omitempty"` // those that keep something, ordered by LUN
	Counters   Counters         `cbor:"5,keyasint"`
}

// NexusUnitState is what a logical unit keeps for an I_T nexus. Most keep nothing
// for most: a thousand of each would be a million of these.
type NexusUnitState struct {
	LUN        uint16   `cbor:"1,keyasint"`
	Attentions []uint16 `cbor:"2,keyasint,omitempty"` // pending unit attentions in order, ASC<<8 | ASCQ
	Prevent    bool     `cbor:"3,keyasint,omitempty"` // prevents removal of the medium
}

// ID returns the identifier of the nexus.
func (s NexusState) ID() NexusID { return NexusID{s.Initiator, s.ISID, s.TargetPort} }

// Snapshot returns the state of the device, which must be at rest: no command
// executing, none arriving.
func (d *Device) Snapshot() DeviceState {
	var s DeviceState
	for _, u := range d.LogicalUnits() {
		s.Units = append(s.Units, u.Unit.snapshot(u.Number))
	}
	for _, nx := range d.openNexuses() {
		s.Nexuses = append(s.Nexuses, nx.snapshot())
	}
	slices.SortFunc(s.Nexuses, func(a, b NexusState) int {
		return cmp.Or(cmp.Compare(a.Initiator, b.Initiator), bytes.Compare(a.ISID[:], b.ISID[:]),
			cmp.Compare(a.TargetPort, b.TargetPort))
	})
	return s
}

func (lu *LogicalUnit) snapshot(n uint16) UnitState {
	s := UnitState{
		LUN:               n,
		Controller:        lu.controller,
		BlockSize:         lu.blockSize,
		Blocks:            lu.blocks.Load(),
		WriteCache:        lu.has(stateWCE),
		WriteCacheDefault: lu.opts.WriteCache,
		DescriptorSense:   lu.has(stateDSense),
		WriteProtect:      lu.has(stateSWP),
		Ejected:           lu.has(stateEjected),
		FlushFailed:       lu.has(stateFlushFailed),
		Counters:          lu.stats.load(),
	}
	if home := lu.home.Load(); home != nil {
		s.Reservations = home.reservations.Snapshot()
	}
	return s
}

func (n *Nexus) snapshot() NexusState {
	s := NexusState{Initiator: n.id.Initiator, ISID: n.id.ISID, TargetPort: n.id.TargetPort, Counters: n.stats.load()}
	for u, home := range *n.dev.places.Load() {
		if prevents := home.removalPrevented() && n.prevents(home); prevents || n.attentions.pending(u) {
			s.Units = append(s.Units, NexusUnitState{LUN: u, Attentions: n.attentions.list(u), Prevent: prevents})
		}
	}
	slices.SortFunc(s.Units, func(a, b NexusUnitState) int { return cmp.Compare(a.LUN, b.LUN) })
	return s
}

// Restore gives the state of another process's device to this one, on which
// no nexus has been opened yet. The nexuses of s are open afterwards:
// [Device.Lookup] finds them.
//
// The logical units may differ from those in s, since the configuration may
// have changed. Nexuses learn of logical units that came or went by REPORTED
// LUNS DATA HAS CHANGED, of another capacity by CAPACITY DATA HAS CHANGED, of
// another write cache setting by MODE PARAMETERS CHANGED, and of nothing else.
// After an error the device is not fit for use.
func (d *Device) Restore(s DeviceState) error {
	if len(d.openNexuses()) > 0 {
		return errors.New("can't restore the state of a device that is in use")
	}
	news := make(map[uint16][]uint16) // unit attentions to raise, by LUN
	kept := make(map[uint16]bool)
	for _, u := range s.Units {
		lu := d.LogicalUnit(u.LUN)
		if lu == nil || !lu.isSame(u) {
			continue
		}
		kept[u.LUN] = true
		codes, err := lu.restore(u)
		if err != nil {
			return fmt.Errorf("can't restore LUN %d of %s: %w", u.LUN, d.opts.Name, err)
		}
		if len(codes) > 0 {
			news[u.LUN] = codes
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := len(kept) != len(s.Units) || len(kept) != len(*d.places.Load())
	quiet := numbersOf(*d.places.Load()) // but for what the nexuses list
	for _, ns := range s.Nexuses {
		if d.nexuses[ns.ID()] != nil {
			return fmt.Errorf("can't restore %s: two nexuses %v", d.opts.Name, ns.ID())
		}
		d.newNexusLocked(ns.ID(), quiet).restore(ns, kept, news, changed)
	}
	return nil
}

// isSame reports whether lu can be the logical unit that u was taken from.
func (lu *LogicalUnit) isSame(u UnitState) bool {
	return lu.controller == u.Controller && lu.blockSize == u.BlockSize
}

// restore takes over the state of a logical unit, and returns the unit
// attentions that tell what is different now.
func (lu *LogicalUnit) restore(u UnitState) (codes []uint16, err error) {
	home := lu.home.Load()
	if home == nil {
		return nil, errors.New("it is not attached")
	}
	if err := home.reservations.Restore(u.Reservations); err != nil {
		return nil, err
	}
	lu.stats.store(u.Counters)
	if lu.controller {
		return nil, nil
	}
	if u.WriteCache != u.WriteCacheDefault {
		lu.set(stateWCE, u.WriteCache) // an initiator's choice, before the configuration's
	}
	if lu.has(stateWCE) != u.WriteCache {
		codes = append(codes, ascModeParametersChanged)
	}
	lu.set(stateDSense, u.DescriptorSense)
	lu.set(stateSWP, u.WriteProtect)
	lu.set(stateEjected, u.Ejected && lu.opts.Removable)
	lu.set(stateFlushFailed, u.FlushFailed)
	if lu.blocks.Load() != u.Blocks {
		codes = append(codes, ascCapacityChanged)
	}
	return codes, nil
}

// restore takes over the state of a nexus. kept are the logical units that
// are still there, news the unit attentions that they raise, and changed says
// whether others came or went.
func (n *Nexus) restore(s NexusState, kept map[uint16]bool, news map[uint16][]uint16, changed bool) {
	n.stats.store(s.Counters)
	places := *n.dev.places.Load()
	for _, u := range s.Units {
		if home := places[u.LUN]; home != nil && kept[u.LUN] {
			n.attentions.replace(u.LUN, u.Attentions)
			n.setPrevent(home, u.Prevent)
		}
	}
	for u, codes := range news {
		for _, code := range codes {
			n.attentions.raise(places[u], code)
		}
	}
	if changed {
		n.attentions.raiseAll(places, ascReportedLUNsChanged)
	}
}
