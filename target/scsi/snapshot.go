// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// DeviceState is what a Device hands to the one that takes its place in
// another process. Fields are only ever added, here and below.
type DeviceState struct {
	Units   []UnitState  `cbor:"1,keyasint,omitempty"` // ordered by LUN
	Nexuses []NexusState `cbor:"2,keyasint,omitempty"` // ordered by name
	Shares  []Share      `cbor:"3,keyasint,omitempty"` // ordered; none from a process that did not tell them
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

	Identity Identity `cbor:"13,keyasint"`           // zero from a process that did not tell it
	Store    string   `cbor:"14,keyasint,omitempty"` // storage.Info.ID
	LastIO   int64    `cbor:"15,keyasint,omitempty"` // seconds since 1970, see [LogicalUnit.LastIO]
	Absent   bool     `cbor:"16,keyasint,omitempty"` // the store could not be opened

	Inquiry  []byte `cbor:"17,keyasint,omitempty"` // fingerprint of what INQUIRY tells; empty from a process that did not tell it, nor Geometry
	Geometry uint32 `cbor:"18,keyasint,omitempty"` // bytes 12 to 15 of the READ CAPACITY (16) data

	ModePages              []byte `cbor:"19,keyasint,omitempty"` // fingerprint of the mode pages as configured; empty from a process that did not tell it
	DescriptorSenseDefault bool   `cbor:"20,keyasint,omitempty"` // D_SENSE as configured; told where ModePages is
	Offline                bool   `cbor:"21,keyasint,omitempty"` // as configured

	// LastIOStamp is LastIO by a clock that nobody sets, 0 from a process that did not tell it.
	LastIOStamp boottime.Stamp `cbor:"22,keyasint,omitempty"`

	Activity []byte `cbor:"23,keyasint,omitempty"` // see activity.go; empty from a process that did not tell it
}

// LastUse returns when blocks were last moved, zero for never.
func (u *UnitState) LastUse() time.Time { return lastIOOf(u.LastIO, u.LastIOStamp).Time() }

// Identity is what initiators tell a logical unit by.
type Identity struct {
	NAA     string `cbor:"1,keyasint,omitempty" json:"naa"`     // hexadecimal
	SCSIID  string `cbor:"2,keyasint,omitempty" json:"scsi_id"` // T10 vendor ID based designator
	Serial  string `cbor:"3,keyasint,omitempty" json:"scsi_sn"` // unit serial number
	Vendor  string `cbor:"4,keyasint,omitempty" json:"vendor"`
	Product string `cbor:"5,keyasint,omitempty" json:"product"`

	LocalNAA string `cbor:"6,keyasint,omitempty" json:"local_naa,omitempty"` // hexadecimal; of tgt's layout alone
}

// NexusState is the state of an I_T nexus.
type NexusState struct {
	Initiator  string           `cbor:"1,keyasint"`
	ISID       [6]byte          `cbor:"2,keyasint"`
	TargetPort uint16           `cbor:"3,keyasint"`
	Units      []NexusUnitState `cbor:"4,keyasint,omitempty"` // those that keep something, ordered by LUN
	Counters   Counters         `cbor:"5,keyasint"`
	LastIO     int64            `cbor:"6,keyasint,omitempty"` // seconds since 1970, see [Nexus.LastIO]
	Masked     []uint16         `cbor:"7,keyasint,omitempty"` // numbers of logical units that it does not see, in order

	LastIOStamp boottime.Stamp `cbor:"8,keyasint,omitempty"` // as in UnitState
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
	s := DeviceState{Shares: d.Shares()}
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
		WriteCacheDefault: *lu.opts.WriteCache,
		DescriptorSense:   lu.has(stateDSense),
		WriteProtect:      lu.has(stateSWP),
		Ejected:           lu.has(stateEjected),
		FlushFailed:       lu.has(stateFlushFailed),
		Absent:            lu.has(stateAbsent),
		Counters:          lu.stats.load(),
		Activity:          lu.activity.append(nil),
	}
	if at := lu.attachment.Load(); at != nil {
		s.Reservations = at.reservations.Snapshot()
		s.Identity = at.identity
	}
	if !lu.controller {
		s.Inquiry, s.Geometry = lu.inquiryFingerprint(), lu.geometry()
		s.ModePages, s.DescriptorSenseDefault, s.Offline = lu.modeFingerprint(), lu.opts.DescriptorSense, lu.opts.Offline
	}
	if lu.store != nil {
		s.Store = lu.StoreID()
		s.LastIOStamp = lu.stats.lastIO()
		s.LastIO = lastIOSeconds(s.LastIOStamp)
	}
	return s
}

func (n *Nexus) snapshot() NexusState {
	s := NexusState{Initiator: n.id.Initiator, ISID: n.id.ISID, TargetPort: n.id.TargetPort, Counters: n.stats.load(), Masked: n.Masked()}
	s.LastIOStamp = n.stats.lastIO()
	s.LastIO = lastIOSeconds(s.LastIOStamp)
	for u, at := range *n.dev.attachments.Load() {
		if n.masks(u) {
			continue // Mask begins anew with it
		}
		if prevents := at.removalPrevented() && n.prevents(at); prevents || n.attentions.pending(u) {
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
// another write cache setting by MODE PARAMETERS CHANGED. One with another
// identity or another store is another logical unit: nothing of the state is
// its, a nexus learns of it by INQUIRY DATA HAS CHANGED too, and what it sends, or has
// sent, is refused with LOGICAL UNIT NOT SUPPORTED until it has asked by INQUIRY
// what is there. [Device.Replaced] lists these. After an error the device is not
// fit for use.
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
	d.shares.restore(s.Shares, kept)
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := len(kept) != len(s.Units) || len(kept) != len(*d.attachments.Load())
	strange, replaced := d.strangersLocked(s.Units, kept)
	d.replaced = replaced
	quiet := numbersOf(*d.attachments.Load()) // but for what the nexuses list
	for _, ns := range s.Nexuses {
		if d.nexuses[ns.ID()] != nil {
			return fmt.Errorf("can't restore %s: two nexuses %v", d.opts.Name, ns.ID())
		}
		nx := d.newNexusLocked(ns.ID(), quiet)
		nx.restore(ns, kept, news, changed)
		for _, r := range replaced {
			nx.attentions.raise(r.at, ascInquiryDataChanged)
		}
		for _, at := range strange {
			nx.attentions.raise(at, unmet)
		}
	}
	return nil
}

// strangersLocked returns the disks that the nexuses of a snapshot have not met:
// those that came, and those in the place of another, which it returns as replaced
// too. What persists of the latter's reservations is not theirs.
func (d *Device) strangersLocked(units []UnitState, kept map[uint16]bool) (list []*attachment, replaced []Replacement) {
	if len(kept) == len(*d.attachments.Load()) {
		return nil, nil
	}
	before := make(map[uint16]UnitState, len(units))
	for _, u := range units {
		before[u.LUN] = u
	}
	for n, at := range *d.attachments.Load() {
		if kept[n] || at.lu.controller {
			continue
		}
		list = append(list, at)
		if old, ok := before[n]; ok && !old.Controller {
			at.reservations.Forget()
			replaced = append(replaced, Replacement{n, at.lu.difference(old), at})
		}
	}
	slices.SortFunc(replaced, func(a, b Replacement) int { return cmp.Compare(a.Number, b.Number) })
	return list, replaced
}

// A Replacement is a logical unit that has the number of another one that was
// there before [Device.Restore].
type Replacement struct {
	Number uint16
	Why    string // what tells it from the one before

	at *attachment
}

// Replaced returns the replacements of the last Restore, ordered by number.
func (d *Device) Replaced() []Replacement { return d.replaced }

// Settle makes what [Device.Restore] has found lasting: reservations that were
// another logical unit's are forgotten on disk too. Before this call the process
// that the state comes from can go on.
func (d *Device) Settle() error {
	var errs []error
	for _, r := range d.replaced {
		if err := r.at.reservations.Keep(); err != nil {
			errs = append(errs, fmt.Errorf("LUN %d: %w", r.Number, err))
		}
	}
	return errors.Join(errs...)
}

// isSame reports whether lu can be the logical unit that u was taken from.
func (lu *LogicalUnit) isSame(u UnitState) bool { return lu.difference(u) == "" }

// difference says what tells lu from the logical unit that u was taken from,
// nothing if it can be the same.
func (lu *LogicalUnit) difference(u UnitState) string {
	if lu.controller || u.Controller {
		if lu.controller != u.Controller {
			return "another device type"
		}
		return ""
	}
	var now Identity
	if at := lu.attachment.Load(); at != nil {
		now = at.identity
	}
	was, store := u.Identity, lu.store.Info().ID
	switch {
	case lu.blockSize != u.BlockSize:
		return fmt.Sprintf("block size %d instead of %d", lu.blockSize, u.BlockSize)
	case was == Identity{}: // from a process that did not tell it
		return ""
	case now.NAA != was.NAA:
		return fmt.Sprintf("NAA %s instead of %s", now.NAA, was.NAA)
	case now.LocalNAA != was.LocalNAA && now.LocalNAA != "" && was.LocalNAA != "":
		return fmt.Sprintf("NAA %s instead of %s", now.LocalNAA, was.LocalNAA)
	case now.SCSIID != was.SCSIID:
		return fmt.Sprintf("SCSI ID %q instead of %q", now.SCSIID, was.SCSIID)
	case now.Serial != was.Serial:
		return fmt.Sprintf("serial number %q instead of %q", now.Serial, was.Serial)
	case now.Vendor != was.Vendor || now.Product != was.Product:
		return fmt.Sprintf("vendor and product %q, %q instead of %q, %q", now.Vendor, now.Product, was.Vendor, was.Product)
	case store != u.Store && store != "" && u.Store != "":
		return fmt.Sprintf("another backing store, %s instead of %s", store, u.Store)
	}
	return ""
}

// restore takes over the state of a logical unit, and returns the unit
// attentions that tell what is different now.
func (lu *LogicalUnit) restore(u UnitState) (codes []uint16, err error) {
	at := lu.attachment.Load()
	if at == nil {
		return nil, errors.New("it is not attached")
	}
	if err := at.reservations.Restore(u.Reservations); err != nil {
		return nil, err
	}
	lu.stats.store(u.Counters, lastIOOf(u.LastIO, u.LastIOStamp))
	if err := lu.activity.add(u.Activity); err != nil {
		return nil, err
	}
	if lu.controller {
		return nil, nil
	}
	if lu.restoreMode(u) {
		codes = append(codes, ascModeParametersChanged)
	}
	codes = append(codes, lu.tellsOtherwise(u)...)
	lu.set(stateEjected, u.Ejected && lu.opts.Removable)
	lu.set(stateFlushFailed, u.FlushFailed)
	switch {
	case lu.has(stateAbsent): // what initiators send ends with NOT READY
		lu.missed = u.Store
	case u.Absent:
		codes = append(codes, ascNotReadyToReady)
	case lu.blocks.Load() != u.Blocks && !slices.Contains(codes, ascCapacityChanged):
		codes = append(codes, ascCapacityChanged)
	}
	return codes, nil
}

// restoreMode takes over the bits of mode pages, an initiator's choice before the
// configuration's, and reports whether the pages are others than in the process before.
func (lu *LogicalUnit) restoreMode(u UnitState) bool {
	unsaid := len(u.ModePages) == 0
	if u.WriteCache != u.WriteCacheDefault {
		lu.set(stateWCE, u.WriteCache)
	}
	if unsaid || u.DescriptorSense != u.DescriptorSenseDefault {
		lu.set(stateDSense, u.DescriptorSense)
	}
	lu.set(stateSWP, u.WriteProtect)
	if unsaid && lu.usualTAS() { // it was 0 in all processes that did not tell their pages
		return true
	}
	return lu.has(stateWCE) != u.WriteCache || lu.has(stateDSense) != u.DescriptorSense ||
		!unsaid && !bytes.Equal(u.ModePages, lu.modeFingerprint())
}

// usualTAS reports whether TAS is 1 because nothing else was configured.
func (lu *LogicalUnit) usualTAS() bool {
	return lu.tellsAborted && !slices.ContainsFunc(lu.opts.ModePages, func(p ModePage) bool { return p.Page == pageControl && p.Subpage == 0 })
}

// modeFingerprint is made of the mode pages but for the bits that initiators change.
func (lu *LogicalUnit) modeFingerprint() []byte {
	sum := sha256.New()
	for i := range lu.pages {
		sum.Write(lu.pages[i].header())
		sum.Write(lu.pages[i].Data)
	}
	return sum.Sum(nil)[:8]
}

// tellsOtherwise returns the unit attentions for what INQUIRY and READ CAPACITY tell
// otherwise than in the process before. One that did not say what they told had
// nothing of tgt's layout. A removable medium raises none: Linux takes each for another
// medium, and fails what is mounted on it.
func (lu *LogicalUnit) tellsOtherwise(u UnitState) (codes []uint16) {
	unsaid := len(u.Inquiry) == 0
	if unsaid && !lu.isTgt() || lu.opts.Removable || u.Absent || lu.has(stateAbsent) { // without a store some of it is not known
		return nil
	}
	if unsaid || !bytes.Equal(u.Inquiry, lu.inquiryFingerprint()) {
		codes = append(codes, ascInquiryDataChanged)
	}
	if unsaid || u.Geometry != lu.geometry() {
		codes = append(codes, ascCapacityChanged)
	}
	return codes
}

// inquiryFingerprint is made of what INQUIRY tells of the logical unit itself, not of
// the ports that lead to it.
func (lu *LogicalUnit) inquiryFingerprint() []byte {
	at := lu.attachment.Load()
	if at == nil {
		return nil
	}
	sum := sha256.New()
	sum.Write(lu.standardInquiry())
	sum.Write(at.appendUnitDesignators(nil))
	for _, code := range lu.vitalPages() {
		if code != vpdIdentification {
			sum.Write(lu.vitalPage(code, at, 0))
		}
	}
	return sum.Sum(nil)[:8]
}

// restore takes over the state of a nexus. kept are the logical units that
// are still there, news the unit attentions that they raise, and changed says
// whether others came or went.
func (n *Nexus) restore(s NexusState, kept map[uint16]bool, news map[uint16][]uint16, changed bool) {
	n.stats.store(s.Counters, lastIOOf(s.LastIO, s.LastIOStamp))
	n.setMask(s.Masked)
	attachments := *n.dev.attachments.Load()
	for _, u := range s.Units {
		if at := attachments[u.LUN]; at != nil && kept[u.LUN] {
			n.attentions.replace(u.LUN, u.Attentions)
			n.setPrevent(at, u.Prevent)
		}
	}
	for u, codes := range news {
		for _, code := range codes {
			n.attentions.raise(attachments[u], code)
		}
	}
	if changed {
		n.attentions.raiseAll(attachments, ascReportedLUNsChanged)
	}
}
