// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// unitOperations are the commands that concern the logical unit as a device.
func unitOperations() []operation {
	return []operation{
		{code: opStartStop, action: noAction, flags: opStore | opEases, access: reservation.Write, usage: "\x01\x00\x00\xf7",
			prepare: prepareStartStop, run: runStartStop},
		{code: opPreventAllow, action: noAction, flags: opEases, access: reservation.Write, usage: "\x00\x00\x00\x03",
			prepare: preparePreventAllow, run: runPreventAllow, try: quick(runPreventAllow)},
		{code: 0x1d, action: noAction, flags: opController, access: reservation.Write, usage: "\x04\x00\x00\x00",
			prepare: prepareSendDiagnostic, run: (*Command).good, try: quick((*Command).good)},
	}
}

// Flags in byte 4 of START STOP UNIT.
const (
	powerCondition = 0xf0
	startNoFlush   = 0x04
	startLoadEject = 0x02
	startStart     = 0x01
)

// prepareStartStop refuses to load or eject a medium that can't be removed.
func prepareStartStop(c *Command) {
	lu, how := c.exec.at.lu, c.CDB[4]
	if how&powerCondition == 0 && how&startLoadEject != 0 && !lu.opts.Removable {
		c.fail(badCDBBit(4, 1))
	}
}

// runStartStop is START STOP UNIT (SBC-3 5.19). Power conditions mean nothing
// here, and a stop means no more than a flush: the disk is other initiators'
// too.
func runStartStop(c *Command) {
	at := c.exec.at
	lu, how := at.lu, c.CDB[4]
	start, loadEject := how&startStart != 0, how&startLoadEject != 0
	ejected := lu.has(stateEjected)
	switch {
	case how&powerCondition != 0, start && (!loadEject || !ejected):
	case loadEject && at.removalPrevented():
		c.fail(illegal(ascMediumRemovalPrevented))
		return
	case start:
		lu.set(stateEjected, false)
		lu.raise(ascNotReadyToReady, c.exec.nexus)
	case !ejected:
		if how&startNoFlush == 0 && !lu.has(stateReadOnly) {
			if err := lu.flushLocked(c.exec.ctx); err != nil {
				c.failStorage(flushing, 0, err)
				return
			}
		}
		if loadEject {
			lu.set(stateEjected, true)
		}
	}
	c.good()
}

func preparePreventAllow(c *Command) {
	if c.CDB[4]&0x02 != 0 { // obsolete values of PREVENT
		c.fail(badCDBBit(4, 1))
	}
}

// runPreventAllow is PREVENT ALLOW MEDIUM REMOVAL (SPC-3 6.13).
func runPreventAllow(c *Command) {
	c.exec.nexus.setPrevent(c.exec.at, c.CDB[4]&0x01 != 0)
	c.good()
}

// prepareSendDiagnostic lets the default self-test pass, and nothing else
// (SPC-4 6.42).
func prepareSendDiagnostic(c *Command) {
	if c.CDB[1]&^0x17 != 0 { // SELF-TEST CODE
		c.fail(badCDBBit(1, 7))
		return
	}
	if binary.BigEndian.Uint16(c.CDB[3:]) != 0 {
		c.fail(badCDB(3))
	}
}
