// SPDX-License-Identifier: Apache-2.0

package scsi

// The conditions of an ABORTED COMMAND that a transport finds (RFC 7143 11.4.7.2).
const (
	UnexpectedUnsolicitedData uint16 = 0x0c0c // data that was not asked for and not agreed on
	IncorrectAmountOfData     uint16 = 0x0c0d // more or less data than asked for
	ProtocolServiceCRCError   uint16 = 0x4705 // a digest that does not match
	DataPhaseError            uint16 = 0x4b00 // data out of sequence
)

// Abort ends a command that its transport can't bring to execution: CHECK
// CONDITION, ABORTED COMMAND with one of the codes above. It may follow a
// Prepare and replaces what that found.
func (c *Command) Abort(code uint16) {
	counted := c.done
	c.fail(sense{key: keyAbortedCommand, code: code})
	c.refused(counted)
}

// TaskSetFull ends a command for which its transport has no room, before it has been executed.
// As with Abort, what Prepare found is replaced.
func (c *Command) TaskSetFull() {
	counted := c.done
	c.Sense = nil
	c.endWith(TaskSetFull)
	c.refused(counted)
}

// refused counts a command that the transport has ended, unless it had ended before.
func (c *Command) refused(counted bool) {
	if !counted && c.exec.at != nil {
		c.exec.at.lu.activity.ended(c)
	}
}

// AbortForOthers ends a command that another I_T nexus has aborted with TASK ABORTED. What it
// has done or found by then is not told.
func (c *Command) AbortForOthers() {
	c.Sense, c.Preempted = nil, nil
	c.endWith(TaskAborted)
}

// TaskAbortedStatus reports whether commands to a logical unit that another I_T nexus aborts
// end with TASK ABORTED (TAS in the Control mode page, SPC-4 7.5.8). If not, they are not
// answered.
func (d *Device) TaskAbortedStatus(lun LUN) bool {
	n, _ := lun.Number()
	lu := d.LogicalUnit(n)
	return lu == nil || lu.tellsAborted
}

// Settle gives a command restored from another process the outcome that it
// had there. sense is copied, and is empty for any status but CHECK CONDITION.
func (c *Command) Settle(status Status, sense []byte) {
	c.Status = status
	c.Sense = append(c.senseBuf[:0], sense...)
	c.done = true
}

// Reprepare is [Nexus.Prepare] for a command that another process has let
// pass already: unit attentions and reservations that came up since do not
// concern it. It may still find that its logical unit is gone.
func (n *Nexus) Reprepare(c *Command) {
	if c == nil {
		return
	}
	switch op := n.find(c); {
	case op == nil:
	case op.flags&opIgnoresAttention == 0 && n.attentions.isUnmet(c.exec.at.number):
		// It was let pass to the logical unit that had the number before.
		c.fail(illegal(ascUnitNotSupported))
	default:
		c.exec.op = op
		op.prepare(c)
	}
	if !c.done && c.Direction != DataOut {
		c.Arrive()
	}
	n.ended(c)
}
