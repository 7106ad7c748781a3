// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"fmt"
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
	close sync.Once
	stats counters

	shares   atomic.Pointer[map[uint16]*share] // by logical unit; replaced with mu held
	unshared atomic.Bool                       // there is no room for more of them

	attentions attentions             // has its own lock
	masked     atomic.Pointer[bitmap] // logical unit numbers that it does not see; nil: it sees all

	mu         sync.Mutex           // protects the fields below
	closed     atomic.Bool          // changes with mu held
	preventing map[*attachment]bool // where it prevents removal of the medium
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

// initiator is the name of the nexus's initiator, for the log.
func (n *Nexus) initiator() string {
	if n == nil {
		return "none"
	}
	return n.id.Initiator
}

// Counters returns what was moved through this nexus.
func (n *Nexus) Counters() Counters { return n.stats.load() }

// LastIO returns when a command of this nexus has last read or written blocks;
// see [LogicalUnit.LastIO].
func (n *Nexus) LastIO() time.Time { return n.stats.lastIO().Time() }

// Close ends the I_T nexus (SAM-5 6.3.4): when it returns, SPC-2 reservations
// of the nexus are released and it prevents no removal. Persistent
// reservations stay. Commands that are still executing finish. Closing twice
// does nothing.
func (n *Nexus) Close() {
	n.close.Do(func() {
		n.shut()
		for _, at := range *n.dev.attachments.Load() {
			at.reservations.NexusLost(n.reservationKey())
		}
		n.dev.mu.Lock()
		defer n.dev.mu.Unlock()
		delete(n.dev.nexuses, n.id)
	})
}

// setPrevent says whether the nexus prevents removal of a medium. It does not
// once it is closed or the logical unit was detached.
func (n *Nexus) setPrevent(at *attachment, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setPreventLocked(at, on && !n.closed.Load() && !at.gone.Load())
}

func (n *Nexus) setPreventLocked(at *attachment, on bool) {
	switch {
	case n.preventing[at] == on:
	case on:
		if n.preventing == nil {
			n.preventing = make(map[*attachment]bool)
		}
		n.preventing[at] = true
		at.prevents.Add(1)
	default:
		delete(n.preventing, at)
		at.prevents.Add(-1)
	}
}

// prevents reports whether the nexus prevents removal of a medium.
func (n *Nexus) prevents(at *attachment) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.preventing[at]
}

// shut ends the nexus for the commands that are under way, and its prevention
// of removals.
func (n *Nexus) shut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed.Store(true)
	for at := range n.preventing {
		n.setPreventLocked(at, false)
	}
}

// Prepare validates the command and ends it at once where it can't go on: no
// such logical unit, a pending unit attention, a reservation conflict, a field
// that makes no sense. It changes nothing but a unit attention that it
// reports. Otherwise it sets Direction and Length. See [Command].
func (n *Nexus) Prepare(c *Command) {
	if c == nil {
		return
	}
	n.prepare(c)
	n.ended(c)
}

// ended counts and tells of a command that has ended.
func (n *Nexus) ended(c *Command) {
	if !c.done {
		return
	}
	if c.exec.at != nil {
		c.exec.at.lu.activity.ended(c)
	}
	if n.dev.opts.Observe != nil {
		n.dev.opts.Observe(c, time.Since(c.exec.prepared))
	}
}

func (n *Nexus) prepare(c *Command) {
	op := n.find(c)
	if op == nil {
		return
	}
	at := c.exec.at
	if n.attentions.pending(at.number) && op.flags&opIgnoresAttention == 0 {
		if code, ok := n.takeAttention(at); ok {
			c.fail(attentionSense(code))
			return
		}
	}
	if at.reservations.Check(n.reservationKey(), c.exec.access) {
		c.endWith(ReservationConflict)
		return
	}
	if s, ok := at.lu.refuses(op); ok {
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
		c.exec.prepared = time.Now()
	}
	u, ok := c.LUN.Number()
	var at *attachment
	if ok && !n.masks(u) {
		at = n.dev.attachment(u)
	}
	if at == nil {
		n.answerWithoutUnit(c, ok && u == 0)
		return nil
	}
	c.exec.at = at
	op, s := at.lu.findOperation(&c.CDB)
	if op == nil {
		c.fail(s)
		return nil
	}
	c.exec.access = op.accessOf(&c.CDB)
	return op
}

// takeAttention takes the unit attention to report now. REPORTED LUNS DATA HAS
// CHANGED is reported once a nexus, not once a logical unit (LUICLR, SPC-4 7.8.7).
func (n *Nexus) takeAttention(at *attachment) (code uint16, ok bool) {
	code, ok = n.attentions.take(at)
	if ok && code == ascReportedLUNsChanged {
		n.attentions.dropAll(ascReportedLUNsChanged)
	}
	return code, ok
}

// TryExecute executes the command if that surely takes no longer than a copy
// in memory, and reports whether it did. A command that was not prepared is first.
func (n *Nexus) TryExecute(c *Command) bool {
	if n.over(c) {
		return true
	}
	waited := c.exec.arrived != 0
	c.Arrive()
	began := c.exec.arrived
	if waited {
		began = now()
	}
	done := n.tryExecute(c)
	if c.exec.inPlace {
		c.exec.began = began
		if waited {
			c.exec.inStore = now() - began
		}
	}
	n.ended(c)
	return done
}

// TryExecuteIn is [Nexus.TryExecute] for a command that b counts if it is executed; nil: it is
// counted by itself.
func (n *Nexus) TryExecuteIn(b *Batch, c *Command) bool {
	if n.over(c) {
		return true
	}
	if b == nil || c.exec.arrived != 0 { // it has waited, which is to be told from its execution
		b.Stop()
		return n.TryExecute(c)
	}
	b.begin(c)
	c.exec.batch = b
	done := n.tryExecute(c)
	if c.exec.inPlace {
		b.ended++
	} else {
		c.exec.batch = nil
	}
	if !done {
		c.Arrive()
		b.stop(c.exec.arrived)
	}
	n.ended(c)
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
	c.exec.ctx = context.Background() // nothing waits
	lu := c.exec.at.lu
	if op.flags&opMedium == 0 {
		return c.tryNow()
	}
	if op.flags&opWrites != 0 && lu.lost.holdBack(c) || !lu.medium.TryRLock() {
		return false
	}
	defer lu.medium.RUnlock()
	if lu.closed {
		c.fail(illegal(ascUnitNotSupported))
		return true
	}
	return c.tryNow()
}

// tryNow executes the command in place if that can't block.
func (c *Command) tryNow() bool {
	if !c.exec.op.try(c) {
		return false
	}
	c.exec.inPlace = true
	return true
}

// over prepares a command that is not, and reports whether there is nothing to execute.
func (n *Nexus) over(c *Command) bool {
	if c != nil && !c.done && c.exec.op == nil {
		n.Prepare(c)
	}
	return c == nil || c.done
}

// Execute executes the command; it may wait for a device. A command that was not
// prepared is first. One that ctx has ended is Done with TASK ABORTED.
func (n *Nexus) Execute(ctx context.Context, c *Command) {
	if n.over(c) {
		return
	}
	n.execute(ctx, c)
	if !c.done {
		c.AbortForOthers()
	}
	n.ended(c)
}

// execute executes the command. If that is not Done afterwards, its slice is over or ctx has
// ended.
func (n *Nexus) execute(ctx context.Context, c *Command) {
	c.Arrive()
	if !c.admitted() {
		return
	}
	c.exec.ctx, c.exec.ended = ctx, false
	op, lu := c.exec.op, c.exec.at.lu
	if op.flags&opWrites != 0 && !lu.lost.wait(c) {
		return
	}
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
	c.exec.began = now()
	op.run(c)
	c.exec.inStore += now() - c.exec.began
}

// admitted ends a command whose logical unit went away or was masked, or was
// reserved by another nexus, while it waited for its data or for a worker.
func (c *Command) admitted() bool {
	at := c.exec.at
	if at.gone.Load() || c.exec.nexus.closed.Load() || c.exec.nexus.masks(at.number) {
		c.fail(illegal(ascUnitNotSupported))
		return false
	}
	if at.reservations.Check(c.exec.nexus.reservationKey(), c.exec.access) {
		c.endWith(ReservationConflict)
		return false
	}
	return true
}
