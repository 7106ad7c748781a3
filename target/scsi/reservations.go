// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// reservationOperations are RESERVE and RELEASE (SPC-2 7.17, 7.21), and
// PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16).
func reservationOperations() []operation {
	ops := []operation{
		{code: 0x16, action: noAction, access: reservation.Reserve, usage: "\x00\x00\x00\x00", prepare: prepareReserve, run: runReserve},
		{code: 0x17, action: noAction, access: reservation.Release, usage: "\x00\x00\x00\x00", prepare: prepareReserve, run: runRelease},
		{code: 0x56, action: noAction, access: reservation.Reserve, usage: "\x00\x00\x00\x00\x00\x00\x00\x00", prepare: prepareReserve, run: runReserve},
		{code: 0x57, action: noAction, access: reservation.Release, usage: "\x00\x00\x00\x00\x00\x00\x00\x00", prepare: prepareReserve, run: runRelease},
	}
	for action := range 4 {
		ops = append(ops, operation{code: 0x5e, action: action, access: reservation.PRIn, usage: "\x1f\x00\x00\x00\x00\x00\xff\xff",
			prepare: prepareDataIn, run: runPersistentIn})
	}
	for action := range 9 {
		usage := "\x1f\xff\x00\x00\xff\xff\xff\xff"
		ops = append(ops, operation{code: 0x5f, action: action, access: reservation.PROut, usage: usage,
			prepare: preparePersistentOut, run: runPersistentOut})
	}
	return ops
}

// What a log line says of reservations that were dropped.
const (
	maxDropped     = 4  // names
	maxDroppedName = 64 // bytes
)

// newReservations returns the reservation state of a logical unit, with what
// persisted through power loss.
func (a *attachment) newReservations(d *Device) reservation.State {
	o := reservation.Options{
		Unit:  hex.EncodeToString(a.naa),
		Ports: d.portTags,
		Nexuses: func() []reservation.Nexus {
			open := d.openNexuses()
			keys := make([]reservation.Nexus, len(open))
			for i, nx := range open {
				keys[i] = nx.reservationKey()
			}
			return keys
		},
	}
	o.Dropped = func(initiators []string) {
		for i, name := range initiators {
			initiators[i] = iscsiname.Printable(name, maxDroppedName)
		}
		limit.Plain(a.lu.log).Warn("reservations of initiators without an iSCSI name are dropped", "target", d.opts.Name, "lun", a.number,
			"count", len(initiators), "initiators", initiators[:min(len(initiators), maxDropped)])
	}
	if d.opts.StateDir != "" {
		// iSCSI names have no slash, but this one comes from a configuration.
		name := strings.ReplaceAll(d.opts.Name, "/", "_")
		o.File = filepath.Join(d.opts.StateDir, name+"-lun"+strconv.Itoa(int(a.number))+".reservations")
	}
	r := reservation.New(o)
	if err := r.Damage(); err != nil {
		limit.Plain(a.lu.log).Error("reservations are lost: who had registered must do so again", "target", d.opts.Name, "lun", a.number, "error", err)
	}
	return r
}

// reservationKey returns the nexus as reservations know it.
func (n *Nexus) reservationKey() reservation.Nexus { return reservation.Nexus(n.id) }

// prepareReserve refuses what SPC-2 has beyond the whole logical unit and the
// initiator's own port: extents (obsolete) and third parties.
func prepareReserve(c *Command) {
	if c.CDB[1] != 0 {
		c.fail(badCDB(1))
	}
}

func runReserve(c *Command) {
	if c.exec.at.reservations.Reserve(c.exec.nexus.reservationKey()) {
		c.endWith(ReservationConflict)
		return
	}
	c.good()
}

func runRelease(c *Command) {
	if c.exec.at.reservations.Release(c.exec.nexus.reservationKey()) {
		c.endWith(ReservationConflict)
		return
	}
	c.good()
}

func runPersistentIn(c *Command) {
	r := c.exec.at.reservations.In(c.exec.nexus.reservationKey(), c.CDB[:10])
	if c.persistentDone(r) {
		c.reply(r.Data, uint32(len(r.Data)))
	}
}

func preparePersistentOut(c *Command) {
	c.Direction = DataOut
	n := binary.BigEndian.Uint32(c.CDB[5:])
	if n > uint32(reservation.MaxParameterList) {
		c.fail(illegal(ascParameterListLength))
		return
	}
	c.Length = n
}

func runPersistentOut(c *Command) {
	r := c.exec.at.reservations.Out(c.exec.nexus.reservationKey(), c.CDB[:10], c.Out)
	if !c.persistentDone(r) {
		return
	}
	at := c.exec.at
	for _, victim := range r.Abort {
		c.Preempted = append(c.Preempted, NexusID(victim))
		if nx, ok := at.dev.Lookup(NexusID(victim)); ok {
			nx.setPrevent(at, false) // SPC-4 5.13.11.2.6
		}
	}
	for _, a := range r.Attention {
		if nx, ok := at.dev.Lookup(NexusID(a.Nexus)); ok {
			nx.attentions.raise(at, uint16(a.ASC)<<8|uint16(a.ASCQ))
		}
	}
	c.good()
}

// persistentDone reports whether r is a success; if not, the command has
// ended.
func (c *Command) persistentDone(r reservation.Result) bool {
	switch {
	case r.Conflict:
		c.endWith(ReservationConflict)
		return false
	case r.Sense != nil:
		s := sense{key: r.Sense.Key, code: uint16(r.Sense.ASC)<<8 | uint16(r.Sense.ASCQ), bit: -1}
		if r.Sense.Field >= 0 {
			s.field = uint16(r.Sense.Field)
			switch s.code {
			case ascInvalidFieldInCDB:
				s.where = inCDB
			case ascInvalidFieldInParam:
				s.where = inParam
			}
		}
		c.fail(s)
		return false
	}
	return true
}
