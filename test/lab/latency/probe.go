// SPDX-License-Identifier: Apache-2.0

package latency

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// BlockSize is the size of an operation, in bytes.
const BlockSize = 4096

// Probe reads and writes.
type Probe struct {
	Device interface {
		io.ReaderAt
		io.WriterAt
	}
	// Offset and Size are the part of the device that is used, in bytes, both
	// multiples of BlockSize.
	Offset, Size int64
	// Pause is the time between two operations.
	Pause time.Duration
}

// Run writes each block of the part once and then reads and writes blocks of it at
// random, until ctx ends. A read must give what was written last. Each operation is passed to
// done when it has ended, with its error, after which Run goes on. The error of
// Run itself is about its arguments or memory.
func (p Probe) Run(ctx context.Context, done func(Operation)) error {
	blocks := p.Size / BlockSize
	if blocks <= 0 || p.Offset%BlockSize != 0 || p.Size%BlockSize != 0 {
		return fmt.Errorf("%d bytes from %d are not whole blocks of %d bytes", p.Size, p.Offset, BlockSize)
	}
	// Pages of their own are aligned as direct I/O needs it.
	memory, err := unix.Mmap(-1, 0, 2*BlockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("can't get memory: %w", err)
	}
	defer unix.Munmap(memory)
	expected, back := memory[:BlockSize], memory[BlockSize:]
	written := make([]uint64, blocks) // the number that each block was written with; 0: unknown
	for n := uint64(1); ctx.Err() == nil; n++ {
		block, write := int64(n-1), true
		if block >= blocks {
			block, write = rand.Int64N(blocks), n%2 == 0
		}
		if written[block] == 0 {
			write = true // nobody knows what is there
		}
		at := p.Offset + block*BlockSize
		o := Operation{Write: write, Start: time.Now()}
		if write {
			fill(expected, block, n)
			_, err = p.Device.WriteAt(expected, at)
			written[block] = n
			if err != nil {
				written[block] = 0
			}
		} else {
			_, err = p.Device.ReadAt(back, at)
		}
		o.Took = time.Since(o.Start)
		if err == nil && !write {
			err = compare(back, expected, block, written[block])
		}
		if err != nil {
			o.Error = err.Error()
		}
		done(o)
		select {
		case <-ctx.Done():
		case <-time.After(p.Pause):
		}
	}
	return nil
}

// fill makes the contents of a block that was written as number n: they differ in every
// 16 bytes from those of any other block and number.
func fill(b []byte, block int64, n uint64) {
	for i := 0; i < len(b); i += 16 {
		binary.BigEndian.PutUint64(b[i:], uint64(block)<<16|uint64(i/16))
		binary.BigEndian.PutUint64(b[i+8:], n)
	}
}

func compare(got, expected []byte, block int64, n uint64) error {
	fill(expected, block, n)
	for i := range got {
		if got[i] != expected[i] {
			return fmt.Errorf("block %d, written as number %d, is wrong from byte %d on: %x, not %x", block, n, i, got[i&^15:i&^15+16], expected[i&^15:i&^15+16])
		}
	}
	return nil
}
