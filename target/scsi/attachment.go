// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/hex"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// An attachment is a logical unit under its number on a device, and what depends
// on the two. It never changes but for the fields that say so.
type attachment struct {
	dev          *Device
	lu           *LogicalUnit
	number       uint16
	identity     Identity // what initiators tell the logical unit by
	naa          []byte   // the designators of it
	localNAA     []byte   // empty without TgtIdentification
	reservations reservation.State

	gone     atomic.Bool  // the logical unit was detached
	prevents atomic.Int32 // nexuses that prevent removal of the medium; changes with their mu held
}

func newAttachment(d *Device, n uint16, lu *LogicalUnit) *attachment {
	a := &attachment{dev: d, lu: lu, number: n, identity: d.identity(n, lu)}
	a.naa, _ = hex.DecodeString(a.identity.NAA) // NewLogicalUnit has checked the digits
	a.localNAA, _ = hex.DecodeString(a.identity.LocalNAA)
	a.reservations = a.newReservations(d)
	return a
}

// removalPrevented reports whether any nexus prevents removal of the medium.
func (a *attachment) removalPrevented() bool { return a.prevents.Load() > 0 }
