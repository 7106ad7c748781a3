// SPDX-License-Identifier: Apache-2.0

// Package reservation keeps the reservations of one logical unit: RESERVE and
// RELEASE as SPC-2 has them, and the persistent reservations of SPC-4 5.13,
// 6.15 and 6.16.
//
// [State] is what a device server needs of it. [Local] is the State of a
// logical unit that one process serves; a State shared between machines can
// take its place.
//
// The package decides and remembers, and does nothing else: unit attentions to
// establish and tasks to abort come back to the caller in a [Result].
package reservation

import (
	"encoding/hex"
	"fmt"
)

// MaxRegistrations is the most registrations that a logical unit holds. A
// registration beyond it fails with INSUFFICIENT REGISTRATION RESOURCES.
const MaxRegistrations = 1024

// Shares of MaxRegistrations, so that each initiator that registers itself finds room: the most
// that one iSCSI name has, and the most there are while initiators register others.
const (
	maxOfInitiator = MaxRegistrations / 4
	maxWithOthers  = MaxRegistrations / 2
)

// MaxParameterList is the longest PERSISTENT RESERVE OUT parameter list, in
// bytes, that is looked at: one that names MaxRegistrations initiator ports.
const MaxParameterList = basicListLength + 4 + MaxRegistrations*maxTransportID

// Nexus is an I_T nexus: the initiator port (iSCSI name and ISID) and the
// relative port identifier of the target port.
type Nexus struct {
	Initiator  string  `cbor:"1,keyasint"`
	ISID       [6]byte `cbor:"2,keyasint"`
	TargetPort uint16  `cbor:"3,keyasint"`
}

// InitiatorPort returns the initiator port's name, "name,i,0x…" (RFC 7143
// 4.1.5).
func (n Nexus) InitiatorPort() string {
	return n.Initiator + isidSeparator + hex.EncodeToString(n.ISID[:])
}

// String returns the names of both ports of the nexus.
func (n Nexus) String() string {
	return fmt.Sprintf("%s,t,0x%04x", n.InitiatorPort(), n.TargetPort)
}

// onPort returns the nexus of the same initiator port with another target port.
func (n Nexus) onPort(port uint16) Nexus {
	n.TargetPort = port
	return n
}

// sameInitiatorPort says whether n and m differ in their target port at most.
func (n Nexus) sameInitiatorPort(m Nexus) bool {
	return n.Initiator == m.Initiator && n.ISID == m.ISID
}

// Access is what a command does, as far as reservations care. The zero Access
// is the strictest, so that a command that nobody has classified is kept out.
type Access uint8

// The kinds of access. What each of them conflicts with is in SPC-2 5.5.1,
// SPC-4 5.13.1 and SBC-3 4.17.
const (
	// Write is every command that changes the medium or the logical unit's
	// settings, or that the standards allow to nobody but the holder: WRITE,
	// UNMAP, SYNCHRONIZE CACHE, MODE SELECT, MODE SENSE, PREVENT ALLOW MEDIUM
	// REMOVAL with PREVENT set, START STOP UNIT that stops. It conflicts with
	// any reservation that another holds.
	Write Access = iota
	// Read is every command that reads the medium and changes nothing: READ,
	// VERIFY, PRE-FETCH, GET LBA STATUS. A write exclusive persistent
	// reservation lets it pass.
	Read
	// Probe is TEST UNIT READY, READ CAPACITY, LOG SENSE, START STOP UNIT that
	// starts, PREVENT ALLOW MEDIUM REMOVAL with PREVENT clear and the like: no
	// persistent reservation stops it, an SPC-2 reservation does.
	Probe
	// Always is INQUIRY, REPORT LUNS, REQUEST SENSE and the like, which no
	// reservation of any kind stops.
	Always
	// PRIn and PROut are PERSISTENT RESERVE IN and OUT. They conflict with an
	// SPC-2 reservation, the sender's own included; [State.Out] finds the
	// conflicts that depend on keys.
	PRIn
	PROut
	// Reserve and Release are RESERVE and RELEASE, 6 and 10. They conflict
	// exactly when [State.Reserve] and [State.Release] say so.
	Reserve
	Release
)

// Sense is what a command that ends in CHECK CONDITION reports.
type Sense struct {
	Key, ASC, ASCQ uint8
	// Field is the byte that is wrong, counted from 0, or -1 for none. It is
	// in the CDB if ASC is 24h and in the parameter list if ASC is 26h.
	Field int
}

// Attention is a unit attention condition to establish for a nexus. A nexus
// that the caller does not know may be passed over: it hears of a power on or
// of its own loss when it comes back.
type Attention struct {
	Nexus     Nexus
	ASC, ASCQ uint8
}

// Result is how a PERSISTENT RESERVE command ends and what the caller is to do
// for it. The status is RESERVATION CONFLICT if Conflict is set, CHECK
// CONDITION if Sense is not nil, and GOOD otherwise; only with GOOD are any of
// the fields after Err set.
type Result struct {
	Conflict bool
	Sense    *Sense
	// Err is why the state could not be kept, for the log, if Sense says
	// INTERNAL TARGET FAILURE.
	Err error
	// Data is PERSISTENT RESERVE IN's data, not longer than the CDB's
	// ALLOCATION LENGTH.
	Data []byte
	// Attention lists the unit attentions to establish before the status is
	// returned.
	Attention []Attention
	// Abort lists the nexuses that PREEMPT AND ABORT has preempted: their
	// tasks on this logical unit are to be aborted, and their PREVENT ALLOW
	// MEDIUM REMOVAL undone, before the status is returned. The nexus that
	// sent the command is never among them, not even if it preempted itself.
	Abort []Nexus
}

// State is the reservation state of one logical unit. Its methods may be
// called from several goroutines at once.
type State interface {
	// Check says whether a command from n conflicts with a reservation, that
	// is: true for RESERVATION CONFLICT. It takes no lock and allocates
	// nothing.
	Check(n Nexus, a Access) bool
	// Reserve is SPC-2's RESERVE of the whole logical unit, with the exceptions
	// of SPC-4 5.13.3 for registered nexuses. True is RESERVATION CONFLICT,
	// false is GOOD.
	Reserve(n Nexus) bool
	// Release is SPC-2's RELEASE of the whole logical unit, likewise.
	Release(n Nexus) bool
	// In carries out PERSISTENT RESERVE IN (SPC-4 6.15). The CDB has 10 bytes
	// or more.
	In(n Nexus, cdb []byte) Result
	// Out carries out PERSISTENT RESERVE OUT (SPC-4 6.16). The CDB has 10 bytes
	// or more; params is the parameter list as it came, with at most as many
	// bytes as the CDB says.
	Out(n Nexus, cdb, params []byte) Result
	// NexusLost is I_T nexus loss: it ends an SPC-2 reservation that n holds.
	// Registrations and persistent reservations stay (SPC-4 5.13.5).
	NexusLost(n Nexus)
	// Reset is a logical unit reset: it ends any SPC-2 reservation.
	// Registrations and persistent reservations stay.
	Reset()
	// Generation returns PRGENERATION (SPC-4 6.15.2).
	Generation() uint32
	// Damage is why what was kept on stable storage could not be read, nil if it
	// could: the state began without it. What is damaged stays, for an administrator to look
	// at, until there is something to keep in its place; it is set aside then.
	Damage() error
	// Summary says who holds a reservation and how many are registered.
	Summary() Summary
	// Snapshot returns a copy of the whole state, for another process to
	// [State.Restore].
	Snapshot() Snapshot
	// Restore replaces the whole state. It fails if s contradicts itself or
	// can't be kept as it asks, and then nothing has changed.
	Restore(s Snapshot) error
	// Forget drops the whole state: it was another logical unit's. What is kept
	// of that on stable storage stays until Keep or the next change.
	Forget()
	// Keep makes what is kept on stable storage that of the state now.
	Keep() error
}

// Options says how a [Local] is to work. The zero Options is valid.
type Options struct {
	// Ports returns the relative port identifiers of the target's ports, for
	// ALL_TG_PT and REGISTER AND MOVE. Nil, or a list without it: the port
	// that a command comes through is known anyway.
	Ports func() []uint16
	// Nexuses returns the I_T nexuses that are open. It is asked when an
	// initiator names another by its iSCSI name alone, without an ISID. Nil:
	// none is known.
	Nexuses func() []Nexus
	// File is where registrations and the persistent reservation are kept
	// while APTPL (activate persist through power loss) asks for it, of this
	// logical unit alone; File+".tmp" is used too. Its directory exists. Empty:
	// APTPL is not supported, and REPORT CAPABILITIES says so.
	File string
	// Dropped, if set, is told of initiators whose registrations and reservation could not be taken over
	// from File or a Snapshot, since their names are no iSCSI names: of each name once.
	Dropped func(initiators []string)
	// Unit names the logical unit in the file, as its NAA designator does. A file
	// that names another one is none: what it keeps was that one's. Empty in
	// the file, as earlier versions wrote it: it is taken for this one's.
	Unit string
}
