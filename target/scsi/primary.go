// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"
	"slices"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// Operation codes that more than the table names.
const (
	opRequestSense  = 0x03
	opInquiry       = 0x12
	opStartStop     = 0x1b
	opPreventAllow  = 0x1e
	opModeSelect10  = 0x55
	opModeSense10   = 0x5a
	opReportLUNs    = 0xa0
	opMaintenanceIn = 0xa3
)

// primaryOperations are the operations of SPC-4 that every logical unit has.
func primaryOperations() []operation {
	const everywhere = opController
	return []operation{
		{code: 0x00, action: noAction, flags: everywhere | opNeedsMedium, access: reservation.Probe, usage: "\x00\x00\x00\x00",
			prepare: prepareNothing, run: (*Command).good, try: quick((*Command).good)},
		{code: opRequestSense, action: noAction, flags: everywhere | opIgnoresAttention, access: reservation.Always, usage: "\x01\x00\x00\xff",
			prepare: prepareDataIn, run: runRequestSense, try: quick(runRequestSense)},
		{code: opInquiry, action: noAction, flags: everywhere | opIgnoresAttention, access: reservation.Always, usage: "\x01\xff\xff\xff",
			prepare: prepareInquiry, run: runInquiry, try: quick(runInquiry)},
		{code: opReportLUNs, action: noAction, flags: everywhere | opIgnoresAttention, access: reservation.Always, usage: "\x00\xff\x00\x00\x00\xff\xff\xff\xff\x00",
			prepare: prepareReportLUNs, run: runReportLUNs, try: quick(runReportLUNs)},
	}
}

func prepareNothing(*Command) {}

func prepareDataIn(c *Command) { c.Direction = DataIn }

// runRequestSense is REQUEST SENSE (SPC-4 6.39): a pending unit attention,
// which is thereby reported, or what keeps the medium away, or nothing.
func runRequestSense(c *Command) {
	at := c.exec.at
	s := sense{key: keyNoSense, code: ascNone}
	if code, ok := c.exec.nexus.takeAttention(at); ok {
		s = attentionSense(code)
	} else if why, refused := at.lu.refuses(&operation{flags: opNeedsMedium}); refused {
		s = why
	}
	c.reply(s.appendTo(nil, c.CDB[1]&0x01 != 0), uint32(c.CDB[4]))
}

// prepareReportLUNs checks SELECT REPORT (SPC-4 6.33); administrative logical
// units (10h to 12h) are none, and so are well known ones.
func prepareReportLUNs(c *Command) {
	c.Direction = DataIn
	switch c.CDB[2] {
	case 0x00, 0x01, 0x02, 0x10, 0x11:
	default:
		c.fail(badCDB(2))
		return
	}
	if binary.BigEndian.Uint32(c.CDB[6:]) < 16 {
		c.fail(badCDB(6))
	}
}

// runReportLUNs is REPORT LUNS (SPC-4 6.33). It clears REPORTED LUNS DATA HAS
// CHANGED (SAM-5 5.14).
func runReportLUNs(c *Command) {
	nx := c.exec.nexus
	nx.attentions.dropAll(ascReportedLUNsChanged)
	var units []NumberedUnit
	if sel := c.CDB[2]; sel != 0x01 && sel != 0x10 {
		units = slices.DeleteFunc(nx.dev.LogicalUnits(), func(u NumberedUnit) bool { return nx.masks(u.Number) })
	}
	b := make([]byte, 8, 8+8*len(units))
	binary.BigEndian.PutUint32(b, uint32(8*len(units)))
	for _, u := range units {
		b = binary.BigEndian.AppendUint64(b, uint64(MakeLUN(u.Number)))
	}
	c.reply(b, binary.BigEndian.Uint32(c.CDB[6:]))
}
