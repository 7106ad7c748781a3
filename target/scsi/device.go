// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/limit"
)

// DeviceOptions say what a Device is. All but Name may be zero.
type DeviceOptions struct {
	Name     string       // iSCSI name of the target
	TID      int          // the target's number, part of default SCSI IDs and serial numbers; 0: the name is instead
	StateDir string       // folder for reservations that persist through power loss (APTPL); "" means that they can't
	Log      *slog.Logger // nil means slog.Default()

	// Observe, if set, is told of each command when it has ended, and how long
	// that took since Prepare. It is called on the goroutine that ended the
	// command, must be quick, and must not keep c.
	Observe func(c *Command, took time.Duration)

	// Shares bounds how many initiators are counted by themselves, for all devices that have it in
	// common; nil: a bound of the device's own.
	Shares *ShareLimit

	// Clock is what reads and writes are timed by; other than nil, which means
	// time.Now, for tests alone.
	Clock func() time.Time
}

// A Device is a SCSI target device: logical units, the ports that lead to
// them, and the I_T nexuses through which initiators use them. It is safe for
// concurrent use.
type Device struct {
	opts DeviceOptions
	log  *slog.Logger // limited, for what initiators cause

	shares shares // have their own lock

	replaced []Replacement // set by Restore alone, before the device is used

	// Reservation state calls back for ports and nexuses, so it is never
	// called with mu held.
	mu      sync.RWMutex       // nexuses' mutexes are taken inside it
	ports   []targetPort       // protected by mu, ordered by tag
	nexuses map[NexusID]*Nexus // protected by mu
	// Logical units by number. The map never changes; mu protects replacing it.
	attachments atomic.Pointer[map[uint16]*attachment]
}

// targetPort is one target port of the device.
type targetPort struct {
	tag  uint16 // relative target port identifier
	name string // SCSI port name, "iqn...,t,0x0001"
}

// NewDevice returns a device without logical units.
func NewDevice(o DeviceOptions) (*Device, error) {
	if o.Name == "" {
		return nil, errors.New("scsi: a device needs a name")
	}
	log := o.Log
	if log == nil {
		log = slog.Default()
	}
	d := &Device{opts: o, log: limit.Logger(log).With("target", o.Name), nexuses: make(map[NexusID]*Nexus)}
	d.shares.limit = cmp.Or(o.Shares, new(ShareLimit))
	d.attachments.Store(&map[uint16]*attachment{})
	return d, nil
}

// AddTargetPort makes a target port known by its relative target port
// identifier (the portal group tag) and its SCSI port name. A second call
// with the same tag renames the port.
func (d *Device) AddTargetPort(tag uint16, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, ok := slices.BinarySearchFunc(d.ports, tag, func(p targetPort, tag uint16) int { return cmp.Compare(p.tag, tag) })
	if ok {
		d.ports[i].name = name
		return
	}
	d.ports = slices.Insert(d.ports, i, targetPort{tag, name})
}

// portName returns the SCSI port name of a target port, "" for an unknown one.
func (d *Device) portName(tag uint16) string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, p := range d.ports {
		if p.tag == tag {
			return p.name
		}
	}
	return ""
}

// portTags returns the relative identifiers of the target ports in order.
func (d *Device) portTags() []uint16 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	tags := make([]uint16, len(d.ports))
	for i, p := range d.ports {
		tags[i] = p.tag
	}
	return tags
}

// Attach makes lu the logical unit with number n, at most [MaxLUN]. Initiators
// that are there already learn of it by REPORTED LUNS DATA HAS CHANGED. A
// logical unit belongs to one device at a time.
func (d *Device) Attach(n uint16, lu *LogicalUnit) error {
	if n > MaxLUN {
		return fmt.Errorf("can't attach LUN %d to %s: the highest is %d", n, d.opts.Name, MaxLUN)
	}
	if lu == nil {
		return fmt.Errorf("can't attach LUN %d to %s: there is no logical unit to attach", n, d.opts.Name)
	}
	at := newAttachment(d, n, lu)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.attachment(n) != nil {
		return fmt.Errorf("can't attach LUN %d to %s: the number is taken", n, d.opts.Name)
	}
	if !lu.attachment.CompareAndSwap(nil, at) {
		return fmt.Errorf("can't attach LUN %d to %s: the logical unit is attached already", n, d.opts.Name)
	}
	lu.stats.clock = d.opts.Clock
	d.setAttachmentLocked(n, at)
	return nil
}

// Detach takes logical unit n away and returns it; closing it is the caller's.
// Commands under way finish, later ones end with LOGICAL UNIT NOT SUPPORTED,
// and initiators learn of it by REPORTED LUNS DATA HAS CHANGED on the rest.
func (d *Device) Detach(n uint16) (*LogicalUnit, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.attachment(n)
	if at == nil {
		return nil, fmt.Errorf("can't detach LUN %d from %s: there is none", n, d.opts.Name)
	}
	at.gone.Store(true)
	at.lu.attachment.Store(nil)
	for _, nx := range d.nexuses {
		nx.setPrevent(at, false)
	}
	d.setAttachmentLocked(n, nil)
	return at.lu, nil
}

// attachment returns that of logical unit n, nil if there is none.
func (d *Device) attachment(n uint16) *attachment { return (*d.attachments.Load())[n] }

// setAttachmentLocked makes an attachment known, or with nil forgets it, and tells the
// nexuses, for which nothing else is pending there.
func (d *Device) setAttachmentLocked(n uint16, at *attachment) {
	attachments := maps.Clone(*d.attachments.Load())
	if at != nil {
		attachments[n] = at
	} else {
		delete(attachments, n)
	}
	d.attachments.Store(&attachments)
	for _, nx := range d.nexuses {
		nx.attentions.replace(n, nil)
		nx.attentions.raiseAll(attachments, ascReportedLUNsChanged)
		if at != nil && !at.lu.controller {
			nx.attentions.raise(at, unmet)
		}
	}
}

// A NumberedUnit is a logical unit with its number on the device.
type NumberedUnit struct {
	Number uint16
	Unit   *LogicalUnit
}

// LogicalUnits returns the device's logical units ordered by number.
func (d *Device) LogicalUnits() []NumberedUnit {
	attachments := *d.attachments.Load()
	out := make([]NumberedUnit, 0, len(attachments))
	for n, at := range attachments {
		out = append(out, NumberedUnit{n, at.lu})
	}
	slices.SortFunc(out, func(a, b NumberedUnit) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// LogicalUnit returns logical unit n, nil if there is none.
func (d *Device) LogicalUnit(n uint16) *LogicalUnit {
	if at := d.attachment(n); at != nil {
		return at.lu
	}
	return nil
}

// Open begins an I_T nexus. POWER ON, RESET, OR BUS DEVICE RESET OCCURRED is
// pending on each logical unit for it. A nexus of the same id that is still
// open is closed first: the new one takes its place. It does not see the
// logical units whose numbers are in masked; see [Nexus.Mask].
func (d *Device) Open(id NexusID, masked ...uint16) *Nexus {
	d.lockWithout(id)
	defer d.mu.Unlock()
	nx := d.newNexusLocked(id, nil)
	nx.setMask(masked)
	return nx
}

// lockWithout locks mu at a moment when no nexus of that id is open.
func (d *Device) lockWithout(id NexusID) {
	for {
		d.mu.Lock()
		old := d.nexuses[id]
		if old == nil {
			return
		}
		d.mu.Unlock()
		old.Close()
	}
}

// Lookup returns the open I_T nexus of that id: how a session that was handed
// over finds the nexus that [Device.Restore] brought back.
func (d *Device) Lookup(id NexusID) (nx *Nexus, ok bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	nx, ok = d.nexuses[id]
	return nx, ok
}

// newNexusLocked opens a nexus with POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
// pending on every logical unit but those of quiet.
func (d *Device) newNexusLocked(id NexusID, quiet bitmap) *Nexus {
	nx := &Nexus{id: id, dev: d}
	nx.stats.clock = d.opts.Clock
	nx.attentions.init(ascPowerOnOrReset, quiet)
	d.nexuses[id] = nx
	return nx
}

// openNexuses returns the I_T nexuses that are open.
func (d *Device) openNexuses() []*Nexus {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := make([]*Nexus, 0, len(d.nexuses))
	for _, nx := range d.nexuses {
		out = append(out, nx)
	}
	return out
}

// raise establishes a unit attention condition for every nexus but one (nil:
// for every nexus).
func (a *attachment) raise(code uint16, except *Nexus) {
	for _, nx := range a.dev.openNexuses() {
		if nx != except {
			nx.attentions.raise(a, code)
		}
	}
}

// LogicalUnitReset is the device server's part of a LOGICAL UNIT RESET, after
// the transport has aborted the tasks: SPC-2 reservations go, mode pages
// return to their defaults, removal is no longer prevented, and a unit
// attention tells every I_T nexus, the one that asked included (SAM-5 6.3.3).
// It reports whether there is such a logical unit for the nexus.
func (d *Device) LogicalUnitReset(lun LUN, by *Nexus) bool {
	n, ok := lun.Number()
	if !ok {
		return false
	}
	lu := d.LogicalUnit(n)
	if lu == nil || by != nil && by.masks(n) {
		return false
	}
	d.log.Info("logical unit reset", "lun", n, "initiator", by.initiator(), "nexus", by.String())
	d.resetUnit(lu, ascBusDeviceReset)
	return true
}

// TargetReset is LogicalUnitReset for every logical unit that the nexus sees; a
// cold reset is reported as POWER ON OCCURRED.
func (d *Device) TargetReset(by *Nexus, cold bool) {
	code := uint16(ascBusDeviceReset)
	if cold {
		code = ascPowerOn
	}
	d.log.Info("target reset", "cold", cold, "initiator", by.initiator(), "nexus", by.String())
	for _, u := range d.LogicalUnits() {
		if by == nil || !by.masks(u.Number) {
			d.resetUnit(u.Unit, code)
		}
	}
}

// ResetNexuses is a TargetReset that concerns the chosen I_T nexuses alone: their SPC-2
// reservations go, they prevent no removal, and a unit attention tells them. What they share
// with others stays, such as the mode pages.
func (d *Device) ResetNexuses(by *Nexus, cold bool, chosen func(NexusID) bool) {
	code := uint16(ascBusDeviceReset)
	if cold {
		code = ascPowerOn
	}
	d.log.Info("target reset, for the sessions of its initiator alone", "cold", cold, "initiator", by.initiator(), "nexus", by.String())
	for _, at := range *d.attachments.Load() {
		if by != nil && by.masks(at.number) {
			continue
		}
		for _, nx := range d.openNexuses() {
			if chosen == nil || !chosen(nx.id) {
				continue
			}
			at.reservations.NexusLost(nx.reservationKey())
			nx.setPrevent(at, false)
			nx.attentions.raise(at, code)
		}
	}
}

func (d *Device) resetUnit(lu *LogicalUnit, code uint16) {
	at := lu.attachment.Load()
	if at == nil {
		return // detached meanwhile
	}
	at.reservations.Reset()
	lu.resetModes()
	for _, nx := range d.openNexuses() {
		nx.setPrevent(at, false)
		nx.attentions.raise(at, code)
	}
}
