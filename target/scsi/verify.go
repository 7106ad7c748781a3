// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"bytes"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// verifyOperations are the commands that look at blocks without returning
// them.
func verifyOperations() []operation {
	const read = opBlocks | opLong
	const both = opNeedsMedium | opAlone | opWrites | opLong
	return []operation{
		{code: 0x2f, action: noAction, flags: read, access: reservation.Read, usage: "\x16\xff\xff\xff\xff\x00\xff\xff",
			prepare: prepareVerify, run: runVerify},
		{code: 0xaf, action: noAction, flags: read, access: reservation.Read, usage: "\x16\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareVerify, run: runVerify},
		{code: 0x8f, action: noAction, flags: read, access: reservation.Read, usage: "\x16\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareVerify, run: runVerify},

		{code: 0x2e, action: noAction, flags: both, access: reservation.Write, usage: "\x12\xff\xff\xff\xff\x00\xff\xff",
			prepare: prepareWriteVerify, run: runWriteVerify},
		{code: 0xae, action: noAction, flags: both, access: reservation.Write, usage: "\x12\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareWriteVerify, run: runWriteVerify},
		{code: 0x8e, action: noAction, flags: both, access: reservation.Write, usage: "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareWriteVerify, run: runWriteVerify},

		{code: 0x34, action: noAction, flags: read, access: reservation.Read, usage: "\x02\xff\xff\xff\xff\x00\xff\xff",
			prepare: preparePrefetch, run: runPrefetch},
		{code: 0x90, action: noAction, flags: read, access: reservation.Read, usage: "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: preparePrefetch, run: runPrefetch},
	}
}

// The BYTCHK field of VERIFY and WRITE AND VERIFY, bits 2 and 1 of byte 1.
const (
	compareNothing = 0
	compareData    = 1
	compareOne     = 3 // one block of data-out with each of the blocks
)

func (c *Command) byteCheck() byte { return c.CDB[1] >> 1 & 3 }

func prepareVerify(c *Command) {
	n, ok := c.addressTransfer()
	c.exec.fua = false // VERIFY has no FUA; the bit is reserved
	if !ok {
		return
	}
	switch c.byteCheck() {
	case compareNothing:
	case compareData:
		c.Direction, c.Length = DataOut, n
	case compareOne:
		c.Direction, c.Length = DataOut, c.exec.at.lu.blockSize
		c.checkOutLength()
	default:
		c.fail(badCDBBit(1, 2))
	}
}

// checkOutLength fails a command whose data-out makes sense as a whole only,
// if the initiator offers another length.
func (c *Command) checkOutLength() {
	if c.OutExpected != c.Length {
		c.fail(badCDB(lengthField(c.CDB[0])))
	}
}

// runVerify is VERIFY (SBC-3 5.30 to 5.33): the blocks can be read, and are
// equal to data-out if BYTCHK says so.
func runVerify(c *Command) {
	switch c.byteCheck() {
	case compareData:
		if data := c.wholeBlocks(); c.compareBlocks(data, uint64(len(data))) {
			c.good()
		}
	case compareOne:
		if c.hasOneBlock() && c.compareBlocks(c.Out, uint64(c.exec.blocks)<<c.exec.at.lu.shift) {
			c.good()
		}
	default:
		if c.compareBlocks(nil, uint64(c.exec.blocks)<<c.exec.at.lu.shift) {
			c.good()
		}
	}
}

// hasOneBlock fails a command that needs exactly one block of data-out and
// got less.
func (c *Command) hasOneBlock() bool {
	if len(c.Out) == int(c.exec.at.lu.blockSize) {
		return true
	}
	c.fail(illegal(ascInvalidFieldInCDB))
	return false
}

// compareBlocks reads n bytes from the command's first block on and compares
// them with data: nothing when it is nil, itself again and again when it is
// one block. It reports whether all is done and equal, as inPieces does.
func (c *Command) compareBlocks(data []byte, n uint64) bool {
	scratch := c.Pool.Get(scratchBytes)
	defer scratch.Release()
	return c.inPieces(c.exec.lba<<c.exec.at.lu.shift, n, scratchBytes, func(off, n uint64) bool {
		return c.compare(scratch.B[:n], data, off)
	})
}

// compare reads what scratch has room for from off on, and compares it with the part of
// data that belongs there. It reports whether that is equal; if not, the command has failed.
func (c *Command) compare(scratch, data []byte, off uint64) bool {
	lu := c.exec.at.lu
	if k, err := lu.store.ReadAt(c.exec.ctx, scratch, int64(off)); err != nil {
		c.failStorage(reading, (off+uint64(k))>>lu.shift, err)
		return false
	}
	if data == nil {
		return true
	}
	if at := firstDifference(scratch, data, off-c.exec.lba<<lu.shift); at >= 0 {
		c.fail(sense{key: keyMiscompare, code: ascMiscompare}.withInfo((off + uint64(at)) >> lu.shift))
		return false
	}
	return true
}

// firstDifference returns where p differs from the part of data that begins at
// off, or from data repeated when it is shorter; -1 if nowhere.
func firstDifference(p, data []byte, off uint64) int {
	for at := 0; at < len(p); {
		want := data
		if off < uint64(len(data)) {
			want = data[off:]
			off = uint64(len(data))
		}
		k := min(len(want), len(p)-at)
		if k == 0 {
			return -1
		}
		if !bytes.Equal(p[at:at+k], want[:k]) {
			for i := range k {
				if p[at+i] != want[i] {
					return at + i
				}
			}
		}
		at += k
	}
	return -1
}

func prepareWriteVerify(c *Command) {
	if b := c.byteCheck(); b != compareNothing && b != compareData {
		c.fail(badCDBBit(1, 2))
		return
	}
	prepareWrite(c)
	c.exec.fua = true // verified is what is on the medium
}

// runWriteVerify is WRITE AND VERIFY (SBC-3 5.34 to 5.37). It has the medium
// alone for each piece, so that no other write comes between that and its verification.
func runWriteVerify(c *Command) {
	lu, data := c.exec.at.lu, c.wholeBlocks()
	scratch := c.Pool.Get(min(durableBytes, len(data)))
	defer scratch.Release()
	first := c.exec.lba << lu.shift
	if c.inPieces(first, uint64(len(data)), durableBytes, func(off, n uint64) bool {
		p := data[off-first:][:n]
		k, err := lu.write(c.exec.ctx, p, int64(off), c.exec.fua)
		if err != nil {
			c.failStorage(writing, (off+uint64(k))>>lu.shift, err)
			return false
		}
		compared := data
		if c.byteCheck() == compareNothing {
			compared = nil
		}
		return c.compare(scratch.B[:n], compared, off)
	}) {
		c.written(len(data), 0, nil)
		c.good()
	}
}

// maxPrefetchBytes is the most that PRE-FETCH brings into the cache.
const maxPrefetchBytes = MaxTransfer

// preparePrefetch checks the CDB; zero blocks mean all up to the last one.
func preparePrefetch(c *Command) {
	lba, blocks := decodeExtent(&c.CDB)
	if blocks > maxPrefetchBytes>>c.exec.at.lu.shift {
		c.fail(badCDB(lengthField(c.CDB[0])))
		return
	}
	c.addressBlocks(lba, blocks)
}

// runPrefetch is PRE-FETCH (SBC-3 5.12, 5.13): CONDITION MET if the cache took
// all of the blocks, GOOD if not.
func runPrefetch(c *Command) {
	lu := c.exec.at.lu
	status := ConditionMet
	blocks := uint64(c.exec.blocks)
	if blocks == 0 { // all up to the last one
		blocks = lu.blocks.Load() - c.exec.lba
		if blocks > maxPrefetchBytes>>lu.shift {
			blocks, status = maxPrefetchBytes>>lu.shift, Good
		}
	}
	immediate := c.CDB[1]&0x02 != 0 // reads that come later find the data as soon
	if immediate || c.compareBlocks(nil, blocks<<lu.shift) {
		c.endWith(status)
	}
}
