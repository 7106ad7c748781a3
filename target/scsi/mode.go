// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// Mode page and subpage codes (SPC-4 7.5, SBC-3 6.5).
const (
	pageErrorRecovery = 0x01
	pageDisconnect    = 0x02
	pageCaching       = 0x08
	pageControl       = 0x0a
	pageExceptions    = 0x1c
	pageAll           = 0x3f

	subpageAll = 0xff
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
		{code: 0x15, action: noAction, flags: opController | opStore, access: reservation.Write, usage: "\x10\x00\x00\xff",
			prepare: prepareModeSelect, run: runModeSelect},
		{code: opModeSelect10, action: noAction, flags: opController | opStore, access: reservation.Write, usage: "\x10\x00\x00\x00\x00\x00\xff\xff",
			prepare: prepareModeSelect, run: runModeSelect},
		{code: 0x1a, action: noAction, flags: opController, access: reservation.Write, usage: "\x08\xff\xff\xff",
			prepare: prepareModeSense, run: runModeSense, try: quick(runModeSense)},
		{code: opModeSense10, action: noAction, flags: opController, access: reservation.Write, usage: "\x18\xff\xff\x00\x00\x00\xff\xff",
			prepare: prepareModeSense, run: runModeSense, try: quick(runModeSense)},
	}
}

// A ModePage is a mode page to present beside the usual ones or in place of
// one of them. Initiators can't change it, but for the bits that they can
// always change: WCE, D_SENSE and SWP, whose values are the logical unit's.
type ModePage struct {
	Page    uint8  `yaml:"page"`              // page code, 0 to 3Eh
	Subpage uint8  `yaml:"subpage,omitempty"` // subpage code, 0 to FEh; 0 means the page_0 format
	Data    []byte `yaml:"data,hex"`          // what follows the page length field, 1 to 255 bytes (SPC-4 7.5)
}

// The last codes of pages and subpages that are one.
const (
	MaxModePage    = pageAll - 1
	MaxModeSubpage = subpageAll - 1
)

// usualPages returns the mode pages that a logical unit has when nothing else
// is said.
func usualPages(controller bool) []ModePage {
	control := ModePage{Page: pageControl, Data: make([]byte, 10)}
	control.Data[0] = 0x20                        // TST: a task set for each I_T nexus
	control.Data[1] = 0x10                        // QUEUE ALGORITHM MODIFIER: unrestricted reordering
	control.Data[3] = controlTAS                  // TAS: who has a command aborted by others is told
	control.Data[6], control.Data[7] = 0xff, 0xff // BUSY TIMEOUT PERIOD: unlimited
	disconnect := ModePage{Page: pageDisconnect, Data: make([]byte, 14)}
	if controller {
		return []ModePage{disconnect, control}
	}
	recovery := ModePage{Page: pageErrorRecovery, Data: make([]byte, 10)}
	recovery.Data[0] = 0xc0 // AWRE, ARRE
	exceptions := ModePage{Page: pageExceptions, Data: make([]byte, 10)}
	exceptions.Data[0] = 0x08 // DEXCPT: no informational exceptions
	caching := ModePage{Page: pageCaching, Data: make([]byte, 18)}
	return []ModePage{recovery, disconnect, caching, control, exceptions}
}

// controlTAS is the TAS bit of the Control mode page, in byte 5 with the header.
const controlTAS = 0x40

// tellsAborted returns TAS as the pages have it.
func tellsAborted(pages []ModePage) bool {
	return slices.ContainsFunc(pages, func(p ModePage) bool {
		return p.Page == pageControl && p.Subpage == 0 && len(p.Data) > 3 && p.Data[3]&controlTAS != 0
	})
}

// newPages returns the usual pages with others in their place or beside them,
// in the order of MODE SENSE: ascending, and page 00h last.
func newPages(controller bool, others []ModePage) []ModePage {
	pages := usualPages(controller)
	for _, p := range others {
		i := slices.IndexFunc(pages, func(q ModePage) bool { return q.Page == p.Page && q.Subpage == p.Subpage })
		if i < 0 {
			pages = append(pages, p)
		} else {
			pages[i] = p
		}
	}
	slices.SortStableFunc(pages, func(a, b ModePage) int {
		return cmp.Or(cmp.Compare((int(a.Page)+pageAll)%(pageAll+1), (int(b.Page)+pageAll)%(pageAll+1)), cmp.Compare(a.Subpage, b.Subpage))
	})
	return pages
}

// modeBits are the changeable bits of the mode pages.
var modeBits = []modeBit{
	{pageCaching, 0, 0x04, stateWCE},
	{pageControl, 0, 0x04, stateDSense},
	{pageControl, 2, 0x08, stateSWP},
}

// A modeBit is a bit of a mode page that MODE SELECT can change, and the
// state bit that it stands for.
type modeBit struct {
	page  uint8
	at    int // in ModePage.Data
	mask  byte
	state uint32
}

// in reports whether the bit is in page p of lu.
func (f modeBit) in(lu *LogicalUnit, p *ModePage) bool {
	return !lu.controller && f.page == p.Page && p.Subpage == 0 && f.at < len(p.Data)
}

// value returns the bit among current, changeable or default values.
func (f modeBit) value(lu *LogicalUnit, values int) bool {
	switch values {
	case valuesChangeable:
		return true
	case valuesDefault:
		return f.state == stateWCE && *lu.opts.WriteCache || f.state == stateDSense && lu.opts.DescriptorSense
	}
	return lu.has(f.state)
}

// header returns the page's header, in page_0 or sub_page format.
func (p *ModePage) header() []byte {
	if p.Subpage == 0 {
		return []byte{p.Page, byte(len(p.Data))}
	}
	return []byte{0x40 | p.Page, p.Subpage, 0, byte(len(p.Data))}
}

// modeData returns what follows a page's header, with current, default or
// changeable values.
func (lu *LogicalUnit) modeData(p *ModePage, values int) []byte {
	b := slices.Clone(p.Data)
	if values == valuesChangeable {
		clear(b)
	}
	for _, f := range modeBits {
		switch {
		case !f.in(lu, p):
		case f.value(lu, values):
			b[f.at] |= f.mask
		default:
			b[f.at] &^= f.mask
		}
	}
	return b
}

// resetModes returns the mode pages to their defaults.
func (lu *LogicalUnit) resetModes() {
	lu.modes.Lock()
	defer lu.modes.Unlock()
	for _, f := range modeBits {
		lu.set(f.state, !lu.controller && f.value(lu, valuesDefault))
	}
}

// matchPages returns the pages that a page code and subpage code stand for.
func (lu *LogicalUnit) matchPages(code, sub uint8) []*ModePage {
	var out []*ModePage
	for i := range lu.pages {
		p := &lu.pages[i]
		if (code == pageAll || code == p.Page) && (sub == subpageAll || sub == p.Subpage) {
			out = append(out, p)
		}
	}
	return out
}

// prepareModeSense checks the page code, subpage code and PC fields (SPC-4
// 6.13, 6.14).
func prepareModeSense(c *Command) {
	c.Direction = DataIn
	code, sub := c.CDB[2]&0x3f, c.CDB[3]
	switch {
	case code == pageAll && sub != 0 && sub != subpageAll:
		c.fail(badCDB(3))
	case len(c.exec.at.lu.matchPages(code, sub)) == 0:
		c.fail(badCDBBit(2, 5))
	case c.CDB[2]>>6 == valuesSaved:
		c.fail(illegal(ascSavingNotSupported))
	}
}

// runModeSense is MODE SENSE (6) and (10).
func runModeSense(c *Command) {
	lu := c.exec.at.lu
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
	for _, p := range lu.matchPages(c.CDB[2]&0x3f, c.CDB[3]) {
		b = append(b, p.header()...)
		b = append(b, lu.modeData(p, int(c.CDB[2]>>6))...)
	}
	if !long {
		b[0], b[2], b[3] = byte(min(len(b)-1, 255)), lu.deviceSpecific(), byte(len(descriptor))
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
