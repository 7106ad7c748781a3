// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// A NexusID names an I_T nexus: the initiator port (iSCSI name and ISID) and
// the target port (RFC 7143 4.4.3). It is comparable.
type NexusID struct {
	Initiator  string  // iSCSI name of the initiator
	ISID       [6]byte // initiator's part of the session identifier
	TargetPort uint16  // relative target port identifier, the portal group tag
}

// InitiatorPort returns the SCSI port name "name,i,0x<ISID>" (RFC 7143 4.4.3).
func (id NexusID) InitiatorPort() string {
	return fmt.Sprintf("%s,i,0x%x", id.Initiator, id.ISID)
}

// String returns the initiator port and the target port.
func (id NexusID) String() string {
	return fmt.Sprintf("%s->%d", id.InitiatorPort(), id.TargetPort)
}

// A Nexus is an open I_T nexus, through which commands reach the logical
// units. Its methods are safe for concurrent use.
type Nexus struct {
	id    NexusID
	dev   *Device
	units atomic.Pointer[map[uint16]*itl] // by logical unit number; the map never changes, and dev.mu protects replacing it
	close sync.Once
	stats counters
}

// ID returns the nexus's identifier.
func (n *Nexus) ID() NexusID { return n.id }

// String returns the nexus's identifier; a nil Nexus is "none".
func (n *Nexus) String() string {
	if n == nil {
		return "none"
	}
	return n.id.String()
}

// Counters returns what was moved through this nexus.
func (n *Nexus) Counters() Counters { return n.stats.load() }

// Close ends the I_T nexus (SAM-5 6.3.4): when it returns, SPC-2 reservations
// of the nexus are released and it prevents no removal. Persistent
// reservations stay. Commands that are still executing finish. Closing twice
// does nothing.
func (n *Nexus) Close() {
	n.close.Do(func() {
		for _, it := range *n.units.Load() {
			it.gone.Store(true)
			it.home.reservations.NexusLost(n.reservationKey())
		}
		n.dev.mu.Lock()
		defer n.dev.mu.Unlock()
		delete(n.dev.nexuses, n.id)
	})
}

// unit returns the I_T_L nexus with logical unit number u, nil if there is no
// such logical unit.
func (n *Nexus) unit(u uint16) *itl { return (*n.units.Load())[u] }

// addUnit makes a logical unit reachable; dev.mu is held.
func (n *Nexus) addUnit(u uint16, it *itl) {
	units := maps.Clone(*n.units.Load())
	units[u] = it
	n.units.Store(&units)
}

// removeUnit takes a logical unit away; dev.mu is held.
func (n *Nexus) removeUnit(u uint16) {
	units := maps.Clone(*n.units.Load())
	units[u].gone.Store(true)
	delete(units, u)
	n.units.Store(&units)
}

// raiseAll establishes a unit attention condition on every logical unit.
func (n *Nexus) raiseAll(code uint16) {
	for _, it := range *n.units.Load() {
		it.raise(code)
	}
}

// dropAll clears one kind of unit attention on every logical unit.
func (n *Nexus) dropAll(code uint16) {
	for _, it := range *n.units.Load() {
		it.drop(code)
	}
}

// Prepare validates the command and ends it at once where it can't go on: no
// such logical unit, a pending unit attention, a reservation conflict, a field
// that makes no sense. It changes nothing but a unit attention that it
// reports. Otherwise it sets Direction and Length. See [Command].
func (n *Nexus) Prepare(c *Command) {
	n.prepare(c)
	n.observe(c)
}

// observe tells of a command that has ended.
func (n *Nexus) observe(c *Command) {
	if c.done && n.dev.opts.Observe != nil {
		n.dev.opts.Observe(c, time.Since(c.exec.began))
	}
}

func (n *Nexus) prepare(c *Command) {
	op := n.find(c)
	if op == nil {
		return
	}
	it := c.exec.it
	if it.pending.Load() && op.flags&opIgnoresAttention == 0 {
		if code, ok := n.takeAttention(it); ok {
			c.fail(sense{key: keyUnitAttention, code: code})
			return
		}
	}
	if it.home.reservations.Check(n.reservationKey(), c.exec.access) {
		c.endWith(ReservationConflict)
		return
	}
	if s, ok := it.lu.refuses(op); ok {
		c.fail(s)
		return
	}
	if c.CDB[op.controlByte()]&controlNACA != 0 {
		c.fail(badCDBBit(op.controlByte(), 2))
		return
	}
	c.exec.op = op
	op.prepare(c)
}

// find looks up the command's logical unit and operation. It returns nil if
// that ended the command.
func (n *Nexus) find(c *Command) *operation {
	c.exec.nexus = n
	if n.dev.opts.Observe != nil {
		c.exec.began = time.Now()
	}
	u, ok := c.LUN.Number()
	var it *itl
	if ok {
		it = n.unit(u)
	}
	if it == nil {
		n.answerWithoutUnit(c, ok && u == 0)
		return nil
	}
	c.exec.it = it
	op, s := it.lu.findOperation(&c.CDB)
	if op == nil {
		c.fail(s)
		return nil
	}
	c.exec.access = op.accessOf(&c.CDB)
	return op
}

// takeAttention takes the unit attention to report now. REPORTED LUNS DATA HAS
// CHANGED is reported once a nexus, not once a logical unit (LUICLR, SPC-4 7.8.7).
func (n *Nexus) takeAttention(it *itl) (code uint16, ok bool) {
	code, ok = it.take()
	if ok && code == ascReportedLUNsChanged {
		n.dropAll(ascReportedLUNsChanged)
	}
	return code, ok
}

// TryExecute executes the command if that surely takes no longer than a copy
// in memory, and reports whether it did.
func (n *Nexus) TryExecute(c *Command) bool {
	if c.done {
		return true
	}
	done := n.tryExecute(c)
	n.observe(c)
	return done
}

func (n *Nexus) tryExecute(c *Command) bool {
	op := c.exec.op
	if op.try == nil {
		return false
	}
	if !c.admitted() {
		return true
	}
	lu := c.exec.it.lu
	if op.flags&opMedium == 0 {
		return op.try(c)
	}
	if !lu.medium.TryRLock() {
		return false
	}
	defer lu.medium.RUnlock()
	if lu.closed {
		c.fail(illegal(ascUnitNotSupported))
		return true
	}
	return op.try(c)
}

// Execute executes the command; it may wait for a device.
func (n *Nexus) Execute(c *Command) {
	if c.done {
		return
	}
	n.execute(c)
	n.observe(c)
}

func (n *Nexus) execute(c *Command) {
	if !c.admitted() {
		return
	}
	op, lu := c.exec.op, c.exec.it.lu
	switch {
	case op.flags&opAlone != 0:
		lu.medium.Lock()
		defer lu.medium.Unlock()
	case op.flags&opMedium != 0:
		lu.medium.RLock()
		defer lu.medium.RUnlock()
	case op.flags&opStore != 0:
		lu.open.RLock()
		defer lu.open.RUnlock()
	}
	if op.flags&(opAlone|opMedium|opStore) != 0 && lu.closed {
		c.fail(illegal(ascUnitNotSupported))
		return
	}
	op.run(c)
}

// admitted ends a command whose logical unit went away, or was reserved by
// another nexus, while it waited for its data or for a worker.
func (c *Command) admitted() bool {
	it := c.exec.it
	if it.gone.Load() {
		c.fail(illegal(ascUnitNotSupported))
		return false
	}
	if it.home.reservations.Check(c.exec.nexus.reservationKey(), c.exec.access) {
		c.endWith(ReservationConflict)
		return false
	}
	return true
}
