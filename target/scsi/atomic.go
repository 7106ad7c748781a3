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
// data-out. To the others it is one step, so it does not yield; it goes piece by piece
// since everybody waits for it, and little memory is in the processor's cache.
func runOrWrite(c *Command) {
	data := c.wholeBlocks()
	piece := scratchBytes
	if c.exec.fua || !c.exec.at.lu.has(stateWCE) {
		piece = durableBytes
	}
	scratch := c.Pool.Get(min(piece, len(data)))
	defer scratch.Release()
	first := c.exec.lba << c.exec.at.lu.shift
	for at := 0; at < len(data); at += piece {
		part := data[at:min(at+piece, len(data))]
		if !c.orPiece(scratch.B[:len(part)], part, first+uint64(at)) {
			return
		}
	}
	c.written(len(data), 0, nil)
	c.good()
}

// orPiece does a piece of ORWRITE at an offset of the store. It reports whether that was done; if not, the
// command has failed.
func (c *Command) orPiece(scratch, data []byte, off uint64) bool {
	lu := c.exec.at.lu
	if n, err := lu.store.ReadAt(c.exec.ctx, scratch, int64(off)); err != nil {
		c.failStorage(reading, (off+uint64(n))>>lu.shift, err)
		return false
	}
	or(scratch, data)
	if n, err := lu.write(c.exec.ctx, scratch, int64(off), c.exec.fua); err != nil {
		c.failStorage(writing, (off+uint64(n))>>lu.shift, err)
		return false
	}
	return true
}

// or makes p what it is OR data, which is as long. Both are whole blocks.
func or(p, data []byte) {
	le := binary.LittleEndian
	for i := 0; i+8 <= len(p); i += 8 {
		le.PutUint64(p[i:], le.Uint64(p[i:])|le.Uint64(data[i:]))
	}
}
