// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// atomicOperations are the commands that read and write in one step. They have
// the medium alone, so no other command sees or changes the blocks meanwhile.
func atomicOperations() []operation {
	const alone = opNeedsMedium | opAlone | opWrites | opLong
	return []operation{
		{code: 0x89, action: noAction, flags: alone | opOnce, access: reservation.Write, usage: "\x18\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\xff\x00",
			prepare: prepareCompareAndWrite, run: runCompareAndWrite},
		{code: 0x8b, action: noAction, flags: alone, access: reservation.Write, usage: "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareWrite, run: runOrWrite},
	}
}

// prepareCompareAndWrite checks the CDB: data-out is twice the blocks, those
// to compare with and those to write.
func prepareCompareAndWrite(c *Command) {
	c.Direction = DataOut
	if c.CDB[1]&protectMask != 0 {
		c.fail(badCDBBit(1, 7))
		return
	}
	c.exec.fua = c.CDB[1]&flagFUA != 0
	blocks := uint32(c.CDB[13])
	if !c.addressBlocks(binary.BigEndian.Uint64(c.CDB[2:]), blocks) {
		return
	}
	c.Length = 2 * blocks << c.exec.at.lu.shift
	if c.OutExpected != c.Length {
		c.fail(badCDB(13))
	}
}

// runCompareAndWrite is COMPARE AND WRITE (SBC-3 5.2).
func runCompareAndWrite(c *Command) {
	lu := c.exec.at.lu
	if uint32(len(c.Out)) != c.Length {
		c.fail(badCDB(13))
		return
	}
	half := int(c.Length / 2)
	if half == 0 {
		c.good()
		return
	}
	scratch := c.Pool.Get(half)
	defer scratch.Release()
	if n, err := lu.store.ReadAt(c.exec.ctx, scratch.B, int64(c.exec.lba<<lu.shift)); err != nil {
		c.failStorage(reading, c.exec.lba+uint64(n)>>lu.shift, err)
		return
	}
	if at := firstDifference(scratch.B, c.Out[:half], 0); at >= 0 {
		c.fail(sense{key: keyMiscompare, code: ascMiscompare}.withInfo(uint64(at)))
		return
	}
	switch {
	case c.writeBlocks(c.Out[half:]):
		c.good()
	case c.exec.ended: // it can't be executed again: its own write would be a miscompare
		c.fail(sense{key: keyAbortedCommand, code: ascNone})
	}
}

// runOrWrite is ORWRITE (16) (SBC-3 5.6): blocks become what they were OR
// data-out.
func runOrWrite(c *Command) {
	lu, data := c.exec.at.lu, c.wholeBlocks()
	if len(data) == 0 {
		c.good()
		return
	}
	scratch := c.Pool.Get(len(data))
	defer scratch.Release()
	if n, err := lu.store.ReadAt(c.exec.ctx, scratch.B, int64(c.exec.lba<<lu.shift)); err != nil {
		c.failStorage(reading, c.exec.lba+uint64(n)>>lu.shift, err)
		return
	}
	for i, b := range data {
		scratch.B[i] |= b
	}
	if c.writeBlocks(scratch.B) {
		c.good()
	}
}
