// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// actionReportGroups is the service action of REPORT TARGET PORT GROUPS.
const actionReportGroups = 0x0a

// reportOperations are the service actions of MAINTENANCE IN, which tell what
// the device server can do.
func reportOperations() []operation {
	return []operation{
		{code: opMaintenanceIn, action: actionReportGroups, flags: opController, access: reservation.Always, usage: "\xff\x00\x00\x00\x00\xff\xff\xff\xff\x00",
			prepare: prepareReportGroups, run: runReportGroups, try: quick(runReportGroups)},
		{code: opMaintenanceIn, action: 0x0c, flags: opController, access: reservation.Write, usage: "\x1f\x87\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareReportOpcodes, run: runReportOpcodes, try: quick(runReportOpcodes)},
		{code: opMaintenanceIn, action: 0x0d, flags: opController, access: reservation.Write, usage: "\x1f\x80\x00\x00\x00\xff\xff\xff\xff\x00",
			prepare: prepareReportFunctions, run: runReportFunctions, try: quick(runReportFunctions)},
	}
}

// portGroup is the one target port group, which all target ports are in.
const portGroup = 1

func prepareReportGroups(c *Command) {
	c.Direction = DataIn
	if format := c.CDB[1] >> 5; format > 1 {
		c.fail(badCDBBit(1, 7))
	}
}

// runReportGroups is REPORT TARGET PORT GROUPS (SPC-4 6.37): one group,
// active/optimized.
func runReportGroups(c *Command) {
	tags := c.exec.at.dev.portTags()
	tags = tags[:min(len(tags), 255)]
	b := make([]byte, 4, 16+4*len(tags))
	if c.CDB[1]>>5 == 1 {
		b = append(b, 0x10, 0, 0, 0) // extended header
	}
	b = append(b,
		0x80, // PREF, active/optimized
		0x01, // AO_SUP
		portGroup>>8, portGroup&0xff,
		0, 0, 0, byte(len(tags)))
	for _, tag := range tags {
		b = append(b, 0, 0, byte(tag>>8), byte(tag))
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	c.reply(b, binary.BigEndian.Uint32(c.CDB[6:]))
}

// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES.
const (
	reportAll = iota
	reportCode
	reportAction
	reportEither
)

// wantsTimeouts reports whether RCTD asks for command timeouts descriptors.
func wantsTimeouts(c *Command) bool { return c.CDB[2]&0x80 != 0 }

// prepareReportOpcodes checks that the way to ask fits the operation code
// (SPC-4 6.35.1).
func prepareReportOpcodes(c *Command) {
	c.Direction = DataIn
	options := c.CDB[2] & 0x07
	has, actions := false, false
	for _, op := range operations.byCode[c.CDB[3]] {
		if c.exec.at.lu.supports(op) {
			has = true
			actions = actions || op.action != noAction
		}
	}
	switch {
	case options > reportEither:
		c.fail(badCDBBit(2, 2))
	case options == reportCode && actions, options == reportAction && has && !actions:
		c.fail(badCDBBit(2, 2))
	}
}

// runReportOpcodes is REPORT SUPPORTED OPERATION CODES (SPC-4 6.35).
func runReportOpcodes(c *Command) {
	lu := c.exec.at.lu
	allocation := binary.BigEndian.Uint32(c.CDB[6:])
	if c.CDB[2]&0x07 == reportAll {
		c.reply(lu.allOperations(wantsTimeouts(c)), allocation)
		return
	}
	action := int(binary.BigEndian.Uint16(c.CDB[4:]))
	for _, op := range operations.byCode[c.CDB[3]] {
		if lu.supports(op) && (op.action == action || op.action == noAction && c.CDB[2]&0x07 != reportAction) {
			c.reply(op.describe(wantsTimeouts(c)), allocation)
			return
		}
	}
	c.reply([]byte{0, 0x01, 0, 0}, allocation) // SUPPORT: not supported
}

// allOperations returns the all_commands parameter data (SPC-4 6.35.2).
func (lu *LogicalUnit) allOperations(timeouts bool) []byte {
	b := make([]byte, 4, 2048)
	for _, op := range operations.list {
		if !lu.supports(op) {
			continue
		}
		var action uint16
		flags := byte(0)
		if op.action != noAction {
			action, flags = uint16(op.action), 0x01 // SERVACTV
		}
		if timeouts {
			flags |= 0x02 // CTDP
		}
		b = append(b, op.code, 0, byte(action>>8), byte(action), 0, flags, 0, byte(cdbLength(op.code)))
		if timeouts {
			b = appendTimeouts(b)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// describe returns the one_command parameter data (SPC-4 6.35.3).
func (op *operation) describe(timeouts bool) []byte {
	b := []byte{0, 0x03, 0, byte(cdbLength(op.code)), op.code} // SUPPORT: as the standard says
	b = append(b, op.usage...)
	b = append(b, 0) // CONTROL: nothing in it is supported
	if op.action != noAction {
		b[5] = b[5]&^0x1f | byte(op.action)
	}
	if timeouts {
		b[1] |= 0x80 // CTDP
		b = appendTimeouts(b)
	}
	return b
}

// appendTimeouts appends a command timeouts descriptor that names no timeout
// (SPC-4 6.35.4).
func appendTimeouts(b []byte) []byte {
	return append(b, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

func prepareReportFunctions(c *Command) {
	c.Direction = DataIn
	if binary.BigEndian.Uint32(c.CDB[6:]) < 4 {
		c.fail(badCDB(6))
	}
}

// runReportFunctions is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4
// 6.36): what iSCSI has of them, without CLEAR ACA.
func runReportFunctions(c *Command) {
	b := make([]byte, 4, 16)
	b[0] = 0xda             // ATS, ATSS, CTSS, LURS, TRS
	if c.CDB[2]&0x80 != 0 { // REPD: with timeouts, none named
		b[3] = 12
		b = b[:16]
	}
	c.reply(b, binary.BigEndian.Uint32(c.CDB[6:]))
}
