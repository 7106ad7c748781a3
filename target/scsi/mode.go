// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"
	"slices"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// Mode pages (SPC-4 7.5, SBC-3 6.5).
const (
	pageErrorRecovery = 0x01
	pageDisconnect    = 0x02
	pageCaching       = 0x08
	pageControl       = 0x0a
	pageExceptions    = 0x1c
	pageAll           = 0x3f
)

// Which values of a mode page MODE SENSE returns (PC field).
const (
	valuesCurrent = iota
	valuesChangeable
	valuesDefault
	valuesSaved
)

// modeOperations are MODE SENSE and MODE SELECT.
func modeOperations() []operation {
	return []operation{
		{code: 0x15, action: noAction, flags: opController | opMedium, access: reservation.Write, usage: "\x10\x00\x00\xff",
			prepare: prepareModeSelect, run: runModeSelect},
		{code: opModeSelect10, action: noAction, flags: opController | opMedium, access: reservation.Write, usage: "\x10\x00\x00\x00\x00\x00\xff\xff",
			prepare: prepareModeSelect, run: runModeSelect},
		{code: 0x1a, action: noAction, flags: opController, access: reservation.Write, usage: "\x08\xff\xff\xff",
			prepare: prepareModeSense, run: runModeSense, try: quick(runModeSense)},
		{code: opModeSense10, action: noAction, flags: opController, access: reservation.Write, usage: "\x18\xff\xff\x00\x00\x00\xff\xff",
			prepare: prepareModeSense, run: runModeSense, try: quick(runModeSense)},
	}
}

// modePages returns the codes of the pages that lu has, in order.
func (lu *LogicalUnit) modePages() []byte {
	if lu.controller {
		return []byte{pageDisconnect, pageControl}
	}
	return []byte{pageErrorRecovery, pageDisconnect, pageCaching, pageControl, pageExceptions}
}

// modePage returns a mode page with current, default or changeable values.
func (lu *LogicalUnit) modePage(code byte, values int) []byte {
	var b []byte
	switch code {
	case pageErrorRecovery:
		b = make([]byte, 12)
		b[2] = 0xc0 // AWRE, ARRE
	case pageDisconnect:
		b = make([]byte, 16)
	case pageCaching:
		b = make([]byte, 20)
	case pageControl:
		b = make([]byte, 12)
		b[2] = 0x20           // TST: a task set for each I_T nexus
		b[3] = 0x10           // QUEUE ALGORITHM MODIFIER: unrestricted reordering
		b[8], b[9] = 255, 255 // BUSY TIMEOUT PERIOD: unlimited
	case pageExceptions:
		b = make([]byte, 12)
		b[2] = 0x08 // DEXCPT: no informational exceptions
	}
	if values == valuesChangeable {
		clear(b)
	}
	b[0], b[1] = code, byte(len(b)-2)
	for _, f := range modeBits {
		if f.page == code && !lu.controller && f.value(lu, values) {
			b[f.at] |= f.mask
		}
	}
	return b
}

// modeBits are the changeable bits of the mode pages.
var modeBits = []modeBit{
	{pageCaching, 2, 0x04, stateWCE},
	{pageControl, 2, 0x04, stateDSense},
	{pageControl, 4, 0x08, stateSWP},
}

// A modeBit is a bit of a mode page that MODE SELECT can change, and the
// state bit that it stands for.
type modeBit struct {
	page  byte
	at    int
	mask  byte
	state uint32
}

// value returns the bit among current, changeable or default values.
func (f modeBit) value(lu *LogicalUnit, values int) bool {
	switch values {
	case valuesChangeable:
		return true
	case valuesDefault:
		return f.state == stateWCE && lu.opts.WriteCache
	}
	return lu.has(f.state)
}

// resetModes returns the mode pages to their defaults.
func (lu *LogicalUnit) resetModes() {
	lu.modes.Lock()
	defer lu.modes.Unlock()
	for _, f := range modeBits {
		lu.set(f.state, !lu.controller && f.value(lu, valuesDefault))
	}
}

// prepareModeSense checks the page code, subpage code and PC fields (SPC-4
// 6.13, 6.14).
func prepareModeSense(c *Command) {
	c.Direction = DataIn
	code, sub := c.CDB[2]&0x3f, c.CDB[3]
	switch {
	case code == pageAll && sub != 0 && sub != 0xff:
		c.fail(badCDB(3))
	case code != pageAll && sub != 0 && sub != 0xff, code != pageAll && !slices.Contains(c.exec.it.lu.modePages(), code):
		c.fail(badCDBBit(2, 5))
	case c.CDB[2]>>6 == valuesSaved:
		c.fail(illegal(ascSavingNotSupported))
	}
}

// runModeSense is MODE SENSE (6) and (10).
func runModeSense(c *Command) {
	lu := c.exec.it.lu
	long := c.CDB[0] == opModeSense10
	var descriptor []byte
	if c.CDB[1]&0x08 == 0 && !lu.controller { // DBD
		descriptor = lu.blockDescriptor(long && c.CDB[1]&0x10 != 0)
	}
	header := 4
	if long {
		header = 8
	}
	b := append(make([]byte, header, 128), descriptor...)
	for _, code := range lu.modePages() {
		if want := c.CDB[2] & 0x3f; want == pageAll || want == code {
			b = append(b, lu.modePage(code, int(c.CDB[2]>>6))...)
		}
	}
	if !long {
		b[0], b[2], b[3] = byte(len(b)-1), lu.deviceSpecific(), byte(len(descriptor))
		c.reply(b, uint32(c.CDB[4]))
		return
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	b[3] = lu.deviceSpecific()
	if len(descriptor) == longDescriptor {
		b[4] = 0x01 // LONGLBA
	}
	binary.BigEndian.PutUint16(b[6:], uint16(len(descriptor)))
	c.reply(b, uint32(binary.BigEndian.Uint16(c.CDB[7:])))
}

// deviceSpecific returns the header's DEVICE-SPECIFIC PARAMETER (SBC-3 6.5.1).
func (lu *LogicalUnit) deviceSpecific() byte {
	if lu.controller {
		return 0
	}
	b := byte(0x10) // DPOFUA
	if lu.has(stateReadOnly | stateSWP) {
		b |= 0x80 // WP
	}
	return b
}

// Lengths of block descriptors in bytes.
const (
	shortDescriptor = 8
	longDescriptor  = 16
)

// blockDescriptor returns the mode parameter block descriptor (SBC-3 6.5.2).
func (lu *LogicalUnit) blockDescriptor(long bool) []byte {
	blocks := lu.blocks.Load()
	if long {
		b := make([]byte, longDescriptor)
		binary.BigEndian.PutUint64(b, blocks)
		binary.BigEndian.PutUint32(b[12:], lu.blockSize)
		return b
	}
	b := make([]byte, shortDescriptor)
	binary.BigEndian.PutUint32(b, uint32(min(blocks, 0xffffffff)))
	binary.BigEndian.PutUint32(b[4:], lu.blockSize)
	return b
}
