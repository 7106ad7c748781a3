// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"
	"slices"
)

func prepareModeSelect(c *Command) {
	c.Direction = DataOut
	n := uint32(c.CDB[4])
	if c.CDB[0] == opModeSelect10 {
		n = uint32(binary.BigEndian.Uint16(c.CDB[7:]))
	}
	switch {
	case c.CDB[1]&0x01 != 0: // SP
		c.fail(badCDBBit(1, 0))
	case c.CDB[1]&0x10 == 0 && n != 0: // PF
		c.fail(badCDBBit(1, 4))
	default:
		c.Length = n
	}
}

// runModeSelect is MODE SELECT (6) and (10) (SPC-4 6.11, 6.12). All of the
// parameter list is checked before any of it takes effect.
func runModeSelect(c *Command) {
	lu := c.exec.at.lu
	if c.Length == 0 {
		c.good()
		return
	}
	lu.modes.Lock()
	defer lu.modes.Unlock()
	set, clear, s := lu.decodeModes(c.Out, c.CDB[0] == opModeSelect10)
	if s.code != ascNone {
		c.fail(s)
		return
	}
	before := lu.state.Load()
	set, clear = set&^before, clear&before
	lu.set(set, true)
	lu.set(clear, false)
	if clear&stateWCE != 0 {
		if err := lu.flushLocked(c.exec.ctx); err != nil {
			lu.set(stateWCE, true)
			c.failStorage(flushing, 0, err)
			return
		}
	}
	if set|clear != 0 {
		lu.raise(ascModeParametersChanged, c.exec.nexus)
	}
	c.good()
}

// decodeModes returns the state bits that a mode parameter list sets and
// clears, or sense data that says what is wrong with it.
func (lu *LogicalUnit) decodeModes(list []byte, long bool) (set, clear uint32, s sense) {
	at, s := lu.skipModeHeader(list, long)
	for s.code == ascNone && at < len(list) {
		p, header := lu.pageAt(list[at:])
		switch {
		case p == nil && header == 0:
			return 0, 0, illegal(ascParameterListLength)
		case p == nil:
			return 0, 0, badParam(at)
		case int(list[at+header-1]) != len(p.Data) || header == 4 && list[at+2] != 0:
			return 0, 0, badParam(at + header - 1)
		case len(list)-at-header < len(p.Data):
			return 0, 0, illegal(ascParameterListLength)
		}
		data := list[at+header : at+header+len(p.Data)]
		now, may := lu.modeData(p, valuesCurrent), lu.modeData(p, valuesChangeable)
		for i := range data {
			if (data[i]^now[i])&^may[i] != 0 {
				return 0, 0, badParam(at + header + i)
			}
		}
		for _, f := range modeBits {
			switch {
			case !f.in(lu, p):
			case data[f.at]&f.mask != 0:
				set, clear = set|f.state, clear&^f.state
			default:
				set, clear = set&^f.state, clear|f.state
			}
		}
		at += header + len(p.Data)
	}
	return set, clear, s
}

// pageAt returns the mode page whose header list begins with, and the length
// of that header: nil if there is no such page, and 0 if the header is cut off.
func (lu *LogicalUnit) pageAt(list []byte) (p *ModePage, header int) {
	header, sub := 2, uint8(0)
	if list[0]&0x40 != 0 { // SPF
		header = 4
	}
	if len(list) < header {
		return nil, 0
	}
	if header == 4 {
		sub = list[1]
	}
	code := list[0] & 0x3f
	if code == pageAll || sub == subpageAll {
		return nil, header
	}
	if pages := lu.matchPages(code, sub); len(pages) == 1 {
		p = pages[0]
	}
	return p, header
}

// skipModeHeader checks the mode parameter header and block descriptor of a
// MODE SELECT, which may repeat the present capacity and block length but not
// change them, and returns where the pages begin.
func (lu *LogicalUnit) skipModeHeader(list []byte, long bool) (at int, s sense) {
	header, descriptor := 4, 0
	if long {
		header = 8
	}
	if len(list) < header {
		return 0, illegal(ascParameterListLength)
	}
	longLBA := false
	if long {
		longLBA = list[4]&0x01 != 0
		descriptor = int(binary.BigEndian.Uint16(list[6:]))
	} else {
		descriptor = int(list[3])
	}
	if descriptor == 0 {
		return header, s
	}
	want := lu.blockDescriptor(longLBA)
	if lu.controller || descriptor != len(want) {
		return 0, badParam(header - 1)
	}
	if len(list) < header+descriptor {
		return 0, illegal(ascParameterListLength)
	}
	got := list[header : header+descriptor]
	lengthAt := descriptor - 4
	if !slices.Equal(got[lengthAt:], want[lengthAt:]) {
		return 0, badParam(header + lengthAt)
	}
	if blocks := got[:4+4*(descriptor/longDescriptor)]; !isZero(blocks) && !slices.Equal(blocks, want[:len(blocks)]) {
		return 0, badParam(header)
	}
	return header + descriptor, s
}
