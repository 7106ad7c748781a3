// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// An attachment is a logical unit under its number on a device, and what depends
// on the two. It never changes but for the fields that say so.
type attachment struct {
	dev          *Device
	lu           *LogicalUnit
	number       uint16
	scsiID       string
	serial       string
	naa          []byte
	reservations reservation.State

	gone     atomic.Bool  // the logical unit was detached
	prevents atomic.Int32 // nexuses that prevent removal of the medium; changes with their mu held
}

func newAttachment(d *Device, n uint16, lu *LogicalUnit) *attachment {
	a := &attachment{dev: d, lu: lu, number: n, scsiID: lu.opts.SCSIID, serial: lu.opts.Serial, naa: lu.opts.NAA}
	naa := localNAA(d.opts.Name, n)
	if len(a.naa) == 0 {
		a.naa = naa
	}
	if d.opts.TID == 0 { // no number that tells the device from others
		id := hex.EncodeToString(naa)
		setDefault(&a.scsiID, "IET     "+id)
		setDefault(&a.serial, id)
	}
	setDefault(&a.scsiID, fmt.Sprintf("IET     %04x%04x", d.opts.TID, n))
	setDefault(&a.serial, fmt.Sprintf("beaf%d%d", d.opts.TID, n))
	a.reservations = a.newReservations(d)
	return a
}

// localNAA derives an NAA locally assigned designator (SPC-4 7.8.6.6.4) from
// the target's name and the LUN, so that it survives restarts and a change of
// the target's number.
func localNAA(name string, n uint16) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint16([]byte(name+"\x00"), n))
	id := sum[:8]
	id[0] = 0x30 | id[0]&0x0f
	return id
}

// identity returns what initiators tell the logical unit by.
func (a *attachment) identity() Identity {
	o := &a.lu.opts
	return Identity{NAA: hex.EncodeToString(a.naa), LocalNAA: hex.EncodeToString(o.LocalNAA), SCSIID: a.scsiID, Serial: a.serial, Vendor: o.Vendor, Product: o.Product}
}

// removalPrevented reports whether any nexus prevents removal of the medium.
func (a *attachment) removalPrevented() bool { return a.prevents.Load() > 0 }
