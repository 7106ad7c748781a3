// SPDX-License-Identifier: Apache-2.0

package scsi

import "encoding/binary"

// Peripheral device types (SPC-4 6.6.2).
const (
	typeDisk       = 0x00
	typeController = 0x0c
	noUnit         = 0x7f // no logical unit here, of a type that could be: qualifier 011b, type 1Fh
)

// peripheral returns byte 0 of INQUIRY data.
func (lu *LogicalUnit) peripheral() byte {
	if lu.controller {
		return typeController
	}
	return typeDisk
}

func prepareInquiry(c *Command) {
	c.Direction = DataIn
	if c.CDB[1]&0x02 != 0 { // CMDDT, obsolete
		c.fail(badCDBBit(1, 1))
		return
	}
	if c.CDB[1]&0x01 == 0 && c.CDB[2] != 0 {
		c.fail(badCDB(2))
	}
}

// runInquiry is INQUIRY (SPC-4 6.6).
func runInquiry(c *Command) {
	at := c.exec.at
	allocation := uint32(binary.BigEndian.Uint16(c.CDB[3:]))
	if c.CDB[1]&0x01 == 0 {
		c.exec.nexus.attentions.meet(at.number)
		c.reply(at.lu.standardInquiry(), allocation)
		return
	}
	page := at.lu.vitalPage(c.CDB[2], at, c.exec.nexus.id.TargetPort)
	if page == nil {
		c.fail(badCDB(2))
		return
	}
	c.exec.nexus.attentions.meet(at.number)
	c.reply(page, allocation)
}

// versionDescriptors are the standards that this device server follows
// (SPC-4 6.6.2, table of version descriptors): SAM-5, SPC-4, SBC-3, iSCSI.
var versionDescriptors = []uint16{0x00a0, 0x0460, 0x04c0, 0x0960}

// standardInquiry returns the standard INQUIRY data (SPC-4 6.6.2).
func (lu *LogicalUnit) standardInquiry() []byte {
	b := make([]byte, 96)
	b[0] = lu.peripheral()
	if lu.opts.Removable {
		b[1] = 0x80
	}
	b[2] = 0x06 // VERSION: SPC-4
	b[3] = 0x12 // HISUP, response data format 2
	b[4] = byte(len(b) - 5)
	if !lu.omits(opMaintenanceIn, actionReportGroups) {
		b[5] = 0x10 // TPGS: implicit asymmetric access
	}
	b[6] = 0x10 // MULTIP
	b[7] = 0x02 // CMDQUE
	putPadded(b[8:16], lu.opts.Vendor)
	putPadded(b[16:32], lu.opts.Product)
	putPadded(b[32:36], lu.opts.Revision)
	i := 58
	for _, v := range versionDescriptors {
		if v == 0x04c0 && lu.controller {
			continue
		}
		binary.BigEndian.PutUint16(b[i:], v)
		i += 2
	}
	return b
}

// putPadded fills p with s and blanks.
func putPadded(p []byte, s string) {
	for i := copy(p, s); i < len(p); i++ {
		p[i] = ' '
	}
}

// answerWithoutUnit answers a command to a LUN that names no logical unit
// (SPC-4 6.6.1, 6.33, 6.39; SAM-5 5.11): INQUIRY and REQUEST SENSE say so,
// REPORT LUNS works on LUN 0, the rest fails.
func (n *Nexus) answerWithoutUnit(c *Command, lun0 bool) {
	switch {
	case c.CDB[0] == opInquiry && c.CDB[1]&0x03 == 0 && c.CDB[2] == 0:
		c.Direction = DataIn
		b := make([]byte, 36)
		b[0], b[2], b[3], b[4] = noUnit, 0x06, 0x12, byte(len(b)-5)
		for i := 8; i < len(b); i++ {
			b[i] = ' '
		}
		c.reply(b, uint32(binary.BigEndian.Uint16(c.CDB[3:])))
	case c.CDB[0] == opRequestSense:
		c.Direction = DataIn
		s := illegal(ascUnitNotSupported)
		c.reply(s.appendTo(nil, c.CDB[1]&1 != 0), uint32(c.CDB[4]))
	case c.CDB[0] == opReportLUNs && lun0:
		prepareReportLUNs(c)
		if !c.done {
			runReportLUNs(c)
		}
	default:
		c.fail(illegal(ascUnitNotSupported))
	}
}
