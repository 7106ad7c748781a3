// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"encoding/binary"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// provisioningOperations are the commands of logical block provisioning
// (SBC-3 4.7), with WRITE SAME.
func provisioningOperations() []operation {
	return []operation{
		{code: 0x42, action: noAction, flags: opChanges | opThin | opLong, access: reservation.Write, usage: "\x00\x00\x00\x00\x00\x00\xff\xff",
			prepare: prepareUnmap, run: runUnmap},
		{code: 0x41, action: noAction, flags: opChanges | opLong, access: reservation.Write, usage: "\x08\xff\xff\xff\xff\x00\xff\xff",
			prepare: prepareWriteSame, run: runWriteSame},
		{code: 0x93, action: noAction, flags: opChanges | opLong, access: reservation.Write, usage: "\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareWriteSame, run: runWriteSame},
		{code: 0x9e, action: 0x12, flags: opBlocks | opLong, access: reservation.Read, usage: "\x1f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareLBAStatus, run: runLBAStatus},
	}
}

// Lengths in an UNMAP parameter list.
const (
	unmapHeader     = 8
	unmapDescriptor = 16
)

func prepareUnmap(c *Command) {
	c.Direction = DataOut
	if c.CDB[1]&0x01 != 0 { // ANCHOR
		c.fail(badCDBBit(1, 0))
		return
	}
	n := uint32(binary.BigEndian.Uint16(c.CDB[7:]))
	if n != 0 && n < unmapHeader {
		c.fail(illegal(ascParameterListLength))
		return
	}
	c.Length = n
}

// An extent is a run of blocks.
type extent struct {
	lba    uint64
	blocks uint32
}

// runUnmap is UNMAP (SBC-3 5.22). Every descriptor is checked before the
// first is carried out, and again in each slice.
func runUnmap(c *Command) {
	if c.Length == 0 {
		c.good()
		return
	}
	extents, ok := c.decodeUnmap()
	if !ok {
		return
	}
	lu, before := c.exec.at.lu, uint64(0) // bytes of the extents before
	piece := lu.freedPiece()
	for _, e := range extents {
		// inPieces counts the bytes of all extents: each begins so much earlier.
		n, began := uint64(e.blocks)<<lu.shift, c.exec.progress
		if !c.inPieces(e.lba<<lu.shift-before, before+n, piece, c.free) {
			return
		}
		before += n
		if c.exec.progress > began && c.yields() {
			return // also after the last one: there may be a flush to come
		}
	}
	c.changed()
}

// free is a piece of work that frees.
func (c *Command) free(off, n uint64) bool {
	lu := c.exec.at.lu
	if err := lu.can.Discarder.Discard(c.exec.ctx, int64(off), int64(n)); err != nil {
		c.failStorage(freeing, off>>lu.shift, err)
		return false
	}
	return true
}

// zero is a piece of work that zeroes.
func (c *Command) zero(off, n uint64) bool {
	lu := c.exec.at.lu
	if err := lu.can.Zeroer.WriteZeroes(c.exec.ctx, int64(off), int64(n)); err != nil {
		c.failStorage(writing, off>>lu.shift, err)
		return false
	}
	return true
}

// decodeUnmap returns the extents of an UNMAP parameter list (SBC-3 5.22.2).
// If they can't be, the command has failed.
func (c *Command) decodeUnmap() (extents []extent, ok bool) {
	be := binary.BigEndian
	if len(c.Out) < unmapHeader {
		c.fail(illegal(ascParameterListLength))
		return nil, false
	}
	n := int(be.Uint16(c.Out[2:])) / unmapDescriptor
	switch {
	case n > maxUnmapDescriptors:
		c.fail(badParam(2))
		return nil, false
	case unmapHeader+n*unmapDescriptor > len(c.Out):
		c.fail(illegal(ascParameterListLength))
		return nil, false
	}
	lu := c.exec.at.lu
	capacity, total := lu.blocks.Load(), uint64(0)
	for i := range n {
		d := c.Out[unmapHeader+i*unmapDescriptor:]
		e := extent{be.Uint64(d), be.Uint32(d[8:])}
		if e.lba > capacity || uint64(e.blocks) > capacity-e.lba {
			c.fail(illegal(ascLBAOutOfRange).withInfo(e.lba))
			return nil, false
		}
		if total += uint64(e.blocks); total > maxUnmapBytes>>lu.shift {
			c.fail(badParam(unmapHeader + i*unmapDescriptor + 8))
			return nil, false
		}
		extents = append(extents, e)
	}
	return extents, true
}

// changed ends a command that changed blocks other than by writing data-out:
// with GOOD, once it is durable if there is no write cache.
func (c *Command) changed() {
	lu := c.exec.at.lu
	if !lu.has(stateWCE) {
		if err := lu.flushLocked(c.exec.ctx); err != nil {
			c.failStorage(flushing, c.exec.lba, err)
			return
		}
	}
	c.good()
}

// Flags in byte 1 of WRITE SAME.
const (
	sameAnchor = 0x10
	sameUnmap  = 0x08
	sameNDOB   = 0x01 // no data-out buffer: zeros; (16) only
)

func prepareWriteSame(c *Command) {
	lu := c.exec.at.lu
	c.Direction = DataOut
	lba, blocks := decodeExtent(&c.CDB)
	if !c.addressBlocks(lba, blocks) {
		return
	}
	flags := c.CDB[1]
	switch {
	case flags&protectMask != 0:
		c.fail(badCDBBit(1, 7))
	case flags&sameAnchor != 0:
		c.fail(badCDBBit(1, 4))
	case flags&sameUnmap != 0 && lu.can.Discarder == nil:
		c.fail(badCDBBit(1, 3))
	case blocks == 0, uint64(blocks) > maxWriteSameBytes>>lu.shift:
		c.fail(badCDB(lengthField(c.CDB[0])))
	case c.CDB[0] == 0x93 && flags&sameNDOB != 0:
		c.Direction = NoData
	default:
		c.Length = lu.blockSize
		c.checkOutLength()
	}
}

// runWriteSame is WRITE SAME (SBC-3 5.43, 5.44). UNMAP frees the blocks if they
// then read as they should, which is as zeros; other data is written.
func runWriteSame(c *Command) {
	lu := c.exec.at.lu
	var block []byte
	if c.Direction == DataOut {
		if !c.hasOneBlock() {
			return
		}
		block = c.Out
	}
	off, n := c.exec.lba<<lu.shift, uint64(c.exec.blocks)<<lu.shift
	var all bool
	switch zeros := isZero(block); {
	case zeros && c.CDB[1]&sameUnmap != 0:
		all = c.inPieces(off, n, lu.freedPiece(), c.free)
	case zeros && lu.can.Zeroer != nil:
		all = c.inPieces(off, n, freedBytes, c.zero)
	default:
		all = c.writeRepeated(block, off, n)
	}
	if !all {
		return
	}
	c.countWritten(int(n))
	c.changed()
}

// isZero reports whether p is all zeros.
func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// writeRepeated writes block, zeros if it is nil, again and again to n bytes from off on. It
// reports whether all is done, as inPieces does.
func (c *Command) writeRepeated(block []byte, off, n uint64) bool {
	lu := c.exec.at.lu
	scratch := c.Pool.Get(int(min(scratchBytes, n)))
	defer scratch.Release()
	if block == nil {
		clear(scratch.B)
	} else {
		for i := 0; i < len(scratch.B); i += len(block) {
			copy(scratch.B[i:], block)
		}
	}
	return c.inPieces(off, n, scratchBytes, func(off, n uint64) bool {
		k, err := lu.store.WriteAt(c.exec.ctx, scratch.B[:n], int64(off))
		if err != nil {
			c.failStorage(writing, (off+uint64(k))>>lu.shift, err)
		}
		return err == nil
	})
}

func prepareLBAStatus(c *Command) {
	c.Direction = DataIn
	lba := binary.BigEndian.Uint64(c.CDB[2:])
	if c.addressBlocks(lba, 0) && lba == c.exec.at.lu.blocks.Load() {
		c.fail(illegal(ascLBAOutOfRange).withInfo(lba))
	}
}

// Lengths in GET LBA STATUS data, and the most descriptors that it returns.
const (
	statusHeader     = 8
	statusDescriptor = 16
	maxLBAStatus     = 128

	statusMapped      = 0
	statusDeallocated = 1
)

// runLBAStatus is GET LBA STATUS (SBC-3 5.4).
func runLBAStatus(c *Command) {
	lu := c.exec.at.lu
	be := binary.BigEndian
	allocation := be.Uint32(c.CDB[10:])
	room := 1
	if allocation > statusHeader+statusDescriptor {
		room = int(min((allocation-statusHeader)/statusDescriptor, maxLBAStatus))
	}
	b := make([]byte, statusHeader, statusHeader+room*statusDescriptor)
	capacity := lu.blocks.Load()
	for lba := c.exec.lba; room > 0 && lba < capacity; room-- {
		blocks, mapped, err := lu.mapping(c.exec.ctx, lba, capacity)
		if err != nil {
			c.failStorage(mapping, lba, err)
			return
		}
		b = be.AppendUint64(b, lba)
		b = be.AppendUint32(b, blocks)
		status := byte(statusDeallocated)
		if mapped {
			status = statusMapped
		}
		b = append(b, status, 0, 0, 0)
		lba += uint64(blocks)
	}
	be.PutUint32(b, uint32(len(b)-4))
	c.reply(b, allocation)
}

// mapping returns the run of blocks from lba on that are all mapped or all
// deallocated. A block is mapped if any byte of it is.
func (lu *LogicalUnit) mapping(ctx context.Context, lba, capacity uint64) (blocks uint32, mapped bool, err error) {
	const most = 1<<32 - 1
	left := min(capacity-lba, most)
	if lu.can.Mapper == nil || lu.can.Discarder == nil {
		return uint32(left), true, nil
	}
	n, mapped, err := lu.can.Mapper.Extent(ctx, int64(lba<<lu.shift))
	if err != nil {
		return 0, false, err
	}
	run := uint64(n) >> lu.shift
	switch {
	case mapped && n&int64(lu.blockSize-1) != 0:
		run++ // its last block is mapped in part
	case !mapped && run == 0:
		run, mapped = 1, true
	}
	return uint32(min(max(run, 1), left)), mapped, nil
}
