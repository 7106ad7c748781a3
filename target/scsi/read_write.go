// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/gotgtd/gotgtd/target/scsi/reservation"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Flags in byte 1 of CDBs that address blocks.
const (
	protectMask = 0xe0 // RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT
	flagFUA     = 0x08
)

// blockOperations are the operations on blocks of SBC-3.
func blockOperations() []operation {
	const (
		read  = opBlocks
		write = opChanges
	)
	return []operation{
		{code: 0x08, action: noAction, flags: read, access: reservation.Read, usage: "\x1f\xff\xff\xff",
			prepare: prepareRead, run: runRead, try: tryRead},
		{code: 0x28, action: noAction, flags: read, access: reservation.Read, usage: "\x18\xff\xff\xff\xff\x00\xff\xff",
			prepare: prepareRead, run: runRead, try: tryRead},
		{code: 0xa8, action: noAction, flags: read, access: reservation.Read, usage: "\x18\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareRead, run: runRead, try: tryRead},
		{code: 0x88, action: noAction, flags: read, access: reservation.Read, usage: "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareRead, run: runRead, try: tryRead},

		{code: 0x0a, action: noAction, flags: write, access: reservation.Write, usage: "\x1f\xff\xff\xff",
			prepare: prepareWrite, run: runWrite, try: tryWrite},
		{code: 0x2a, action: noAction, flags: write, access: reservation.Write, usage: "\x18\xff\xff\xff\xff\x00\xff\xff",
			prepare: prepareWrite, run: runWrite, try: tryWrite},
		{code: 0xaa, action: noAction, flags: write, access: reservation.Write, usage: "\x18\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareWrite, run: runWrite, try: tryWrite},
		{code: 0x8a, action: noAction, flags: write, access: reservation.Write, usage: "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareWrite, run: runWrite, try: tryWrite},

		{code: 0x35, action: noAction, flags: opNeedsMedium | opStore, access: reservation.Write, usage: "\x02\xff\xff\xff\xff\x00\xff\xff",
			prepare: prepareSynchronize, run: runSynchronize},
		{code: 0x91, action: noAction, flags: opNeedsMedium | opStore, access: reservation.Write, usage: "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
			prepare: prepareSynchronize, run: runSynchronize},

		{code: 0x25, action: noAction, flags: opNeedsMedium, access: reservation.Probe, usage: "\x00\x00\x00\x00\x00\x00\x00\x00",
			prepare: prepareReadCapacity10, run: runReadCapacity10, try: quick(runReadCapacity10)},
		{code: 0x9e, action: 0x10, flags: opNeedsMedium, access: reservation.Probe, usage: "\x1f\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00",
			prepare: prepareReadCapacity16, run: runReadCapacity16, try: quick(runReadCapacity16)},
	}
}

// decodeExtent returns the first block and the number of blocks in a CDB of
// the READ and WRITE layouts (SBC-3 5.8 to 5.11).
func decodeExtent(cdb *[16]byte) (lba uint64, blocks uint32) {
	be := binary.BigEndian
	switch cdb[0] >> 5 {
	case 0:
		lba = uint64(be.Uint32(cdb[0:]) & 0x1fffff)
		if blocks = uint32(cdb[4]); blocks == 0 {
			blocks = 256
		}
	case 1, 2:
		lba, blocks = uint64(be.Uint32(cdb[2:])), uint32(be.Uint16(cdb[7:]))
	case 4:
		lba, blocks = be.Uint64(cdb[2:]), be.Uint32(cdb[10:])
	default:
		lba, blocks = uint64(be.Uint32(cdb[2:])), be.Uint32(cdb[6:])
	}
	return lba, blocks
}

// lengthField returns the index of the TRANSFER LENGTH field.
func lengthField(code byte) int {
	switch code >> 5 {
	case 0:
		return 4
	case 1, 2:
		return 7
	case 4:
		return 10
	}
	return 6
}

// addressBlocks notes the blocks that the CDB addresses and checks that they
// are there. It reports whether the command goes on.
func (c *Command) addressBlocks(lba uint64, blocks uint32) bool {
	c.exec.lba, c.exec.blocks, c.exec.direct = lba, blocks, true
	capacity := c.exec.at.lu.blocks.Load()
	if lba > capacity || uint64(blocks) > capacity-lba {
		c.fail(illegal(ascLBAOutOfRange).withInfo(lba))
		return false
	}
	return true
}

// addressTransfer is addressBlocks for a command that moves the blocks, of
// which there is a maximum, and that has no protection information.
func (c *Command) addressTransfer() (bytes uint32, ok bool) {
	code := c.CDB[0]
	if code>>5 != 0 {
		if c.CDB[1]&protectMask != 0 {
			c.fail(badCDBBit(1, 7))
			return 0, false
		}
		c.exec.fua = c.CDB[1]&flagFUA != 0
	}
	lba, blocks := decodeExtent(&c.CDB)
	lu := c.exec.at.lu
	if blocks > MaxTransfer>>lu.shift {
		c.fail(badCDB(lengthField(code)))
		return 0, false
	}
	return blocks << lu.shift, c.addressBlocks(lba, blocks)
}

func prepareRead(c *Command) {
	c.Direction = DataIn
	if n, ok := c.addressTransfer(); ok {
		c.InLength = n
	}
}

// readBuffer finds a buffer for the blocks of which the initiator takes at
// least a part.
func (c *Command) readBuffer() {
	n := c.Needs()
	if n == 0 {
		return
	}
	if c.In, c.Buffer = c.Buffer, nil; c.In == nil {
		c.In = c.Pool.Get(n)
	}
	c.In.B = c.In.B[:n]
}

// readDone cuts data-in to what the initiator takes and ends the command.
func (c *Command) readDone() {
	n := int(min(c.InLength, c.InExpected))
	if c.In != nil {
		c.In.B = c.In.B[:n]
	}
	c.countRead(n)
	c.good()
}

// tryRead is runRead for data that the store has at hand.
func tryRead(c *Command) bool {
	lu := c.exec.at.lu
	if lu.can.TryReader == nil || c.exec.fua {
		return false
	}
	c.readBuffer()
	if c.In != nil {
		if _, err := lu.can.TryReader.TryReadAt(c.In.B, int64(c.exec.lba<<lu.shift)); err != nil {
			c.In, c.Buffer = nil, c.In
			return false // runRead finds out why
		}
	}
	c.readDone()
	return true
}

// runRead is READ (SBC-3 5.8 to 5.11). With FUA the blocks must be on the
// medium before they are returned.
func runRead(c *Command) {
	lu := c.exec.at.lu
	if c.exec.fua && lu.has(stateWCE) {
		if err := lu.flushLocked(c.exec.ctx); err != nil {
			c.failStorage(flushing, c.exec.lba, err)
			return
		}
	}
	c.readBuffer()
	if c.In != nil {
		if n, err := lu.store.ReadAt(c.exec.ctx, c.In.B, int64(c.exec.lba<<lu.shift)); err != nil {
			c.failStorage(reading, c.exec.lba+uint64(n)>>lu.shift, err)
			return
		}
	}
	c.readDone()
}

func prepareWrite(c *Command) {
	c.Direction = DataOut
	if n, ok := c.addressTransfer(); ok {
		c.Length = n
	}
}

// tryWriteLimit is the most bytes that tryWrite copies to the store's cache: what takes
// a fraction of a millisecond.
const tryWriteLimit = 1 << 20

// tryWrite is runWrite for what the store's cache takes.
func tryWrite(c *Command) bool {
	lu, data := c.exec.at.lu, c.wholeBlocks()
	if lu.can.TryWriter == nil || c.exec.fua || len(data) > tryWriteLimit || !lu.has(stateWCE) {
		return false
	}
	var n int
	var err error
	if len(data) > 0 {
		if n, err = lu.can.TryWriter.TryWriteAt(data, int64(c.exec.lba<<lu.shift)); err == storage.ErrWouldBlock {
			return false
		}
	}
	if c.written(len(data), n, err) {
		c.good()
	}
	return true
}

// runWrite is WRITE (SBC-3 5.25 to 5.28). If fewer bytes came than the CDB
// transfers, the whole blocks among them are written.
func runWrite(c *Command) {
	if c.writeOut() {
		c.good()
	}
}

// wholeBlocks returns the whole blocks of data-out that the CDB transfers.
func (c *Command) wholeBlocks() []byte {
	n := min(len(c.Out), int(c.Length))
	return c.Out[:n&^int(c.exec.at.lu.blockSize-1)]
}

// writeOut is writeBlocks of data-out.
func (c *Command) writeOut() bool { return c.writeBlocks(c.wholeBlocks()) }

// writeBlocks writes data to the blocks that the command addresses, durably if
// it has FUA set or the write cache is off. It reports whether that was done;
// if not, the command has failed.
func (c *Command) writeBlocks(data []byte) bool {
	lu := c.exec.at.lu
	var n int
	var err error
	if len(data) > 0 {
		n, err = lu.write(c.exec.ctx, data, int64(c.exec.lba<<lu.shift), c.exec.fua)
	}
	return c.written(len(data), n, err)
}

// written is told how a write of so many bytes has ended: err stopped it after n. It
// reports whether all is well; if not, the command has failed.
func (c *Command) written(bytes, n int, err error) bool {
	lu := c.exec.at.lu
	if err != nil {
		c.failStorage(writing, c.exec.lba+uint64(n)>>lu.shift, err)
		return false
	}
	c.countWritten(bytes)
	return true
}

// write writes to the store, durably with fua or without a write cache. The
// medium lock is held.
func (lu *LogicalUnit) write(ctx context.Context, p []byte, off int64, fua bool) (int, error) {
	if !fua && lu.has(stateWCE) {
		return lu.store.WriteAt(ctx, p, off)
	}
	if lu.has(stateFlushFailed) {
		return 0, errFlushFailed
	}
	if lu.can.DurableWriter == nil {
		if n, err := lu.store.WriteAt(ctx, p, off); err != nil {
			return n, err
		}
		return 0, lu.flushLocked(ctx)
	}
	n, err := lu.can.DurableWriter.WriteDurableAt(ctx, p, off)
	if err != nil && !endedBy(ctx, err) && (errors.Is(err, storage.ErrDropped) || !outOfSpace(err)) {
		// The system reports a failed write-back once: this report may have
		// been that of earlier, cached writes, and no flush will repeat it.
		lu.set(stateFlushFailed, true)
	}
	if err == nil && lu.has(stateFlushFailed) {
		return 0, errFlushFailed // another one failed meanwhile, and may have taken the report of this one
	}
	return n, err
}

// outOfSpace tells whether err says that a store has no room for a write. That is the write's own trouble, as
// long as nothing is dropped: the initiator is told SPACE ALLOCATION FAILED WRITE PROTECT, and writes again when there is room.
func outOfSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func prepareSynchronize(c *Command) {
	lba, blocks := decodeExtent(&c.CDB)
	c.addressBlocks(lba, blocks)
}

// runSynchronize is SYNCHRONIZE CACHE (SBC-3 5.20, 5.21). It flushes the
// whole store, which the standard allows, also when IMMED is set.
func runSynchronize(c *Command) {
	if err := c.exec.at.lu.flushLocked(c.exec.ctx); err != nil {
		c.failStorage(flushing, c.exec.lba, err)
		return
	}
	c.good()
}

func prepareReadCapacity10(c *Command) {
	c.Direction = DataIn
	if c.CDB[8]&0x01 == 0 && binary.BigEndian.Uint32(c.CDB[2:]) != 0 {
		c.fail(badCDB(2)) // an LBA without PMI
	}
}

// runReadCapacity10 is READ CAPACITY (10) (SBC-3 5.15).
func runReadCapacity10(c *Command) {
	lu := c.exec.at.lu
	var b [8]byte
	binary.BigEndian.PutUint32(b[0:], uint32(min(lu.blocks.Load()-1, 0xffffffff)))
	binary.BigEndian.PutUint32(b[4:], lu.blockSize)
	c.reply(b[:], uint32(len(b)))
}

func prepareReadCapacity16(c *Command) {
	c.Direction = DataIn
	if c.CDB[14]&0x01 == 0 && binary.BigEndian.Uint64(c.CDB[2:]) != 0 {
		c.fail(badCDB(2))
	}
}

// runReadCapacity16 is READ CAPACITY (16) (SBC-3 5.16).
func runReadCapacity16(c *Command) {
	lu := c.exec.at.lu
	var b [32]byte
	binary.BigEndian.PutUint64(b[0:], lu.blocks.Load()-1)
	binary.BigEndian.PutUint32(b[8:], lu.blockSize)
	binary.BigEndian.PutUint32(b[12:], lu.geometry())
	c.reply(b[:], binary.BigEndian.Uint32(c.CDB[10:]))
}

// geometry returns bytes 12 to 15 of the READ CAPACITY (16) data: physical blocks, and
// whether space can be given back.
func (lu *LogicalUnit) geometry() uint32 {
	g := uint32(lu.opts.LowestAlignedLBA)
	if e := lu.opts.PhysicalBlockExponent; e != nil {
		g |= uint32(*e) << 16
	}
	if lu.can.Discarder != nil {
		g |= 0xc000 // LBPME, LBPRZ
	}
	return g
}
