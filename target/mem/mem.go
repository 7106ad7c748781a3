// SPDX-License-Identifier: Apache-2.0

// Package mem hands out the buffers that carry data segments between the
// network and the backing stores. All of a daemon's bulk memory comes from
// here, so that it is bounded in one place and could one day come from a
// mapping that outlives the process.
package mem

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffers come in powers of two from MinSize to MaxSize bytes.
const (
	MinSize = 4 << 10
	MaxSize = 16 << 20

	minShift = 12
	classes  = 13 // 4 KiB, 8 KiB, ... 16 MiB
)

// A Buffer is a block of memory on loan from a [Pool]. B starts page aligned,
// holds arbitrary bytes at first, and may be resliced by its holder.
type Buffer struct {
	B []byte

	full  []byte // the whole block
	pool  *Pool
	class int
}

// Release gives b back; neither b nor b.B may be used afterwards. Releasing
// a nil Buffer does nothing.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	p := b.pool
	p.used.Add(-int64(len(b.full)))
	b.B = nil
	p.free[b.class].Put(b)
}

// A Pool lends buffers and counts the bytes on loan. The zero Pool is ready
// to use and safe for concurrent use.
type Pool struct {
	used atomic.Int64 // bytes on loan
	free [classes]sync.Pool
}

var common Pool // of those who have none

// Get lends a buffer with len(B) == n bytes, 0 <= n <= MaxSize. It panics on
// any other n: lengths that come from an initiator are checked before.
// A nil Pool lends what a common one has.
func (p *Pool) Get(n int) *Buffer {
	if p == nil {
		p = &common
	}
	if n < 0 || n > MaxSize {
		panic("mem: buffer size out of range")
	}
	c := 0
	if n > MinSize {
		c = bits.Len(uint(n-1)) - minShift
	}
	b, _ := p.free[c].Get().(*Buffer)
	if b == nil {
		// Blocks of whole pages are page aligned in Go's heap, as O_DIRECT wants.
		b = &Buffer{full: make([]byte, MinSize<<c), pool: p, class: c}
	}
	p.used.Add(int64(len(b.full)))
	b.B = b.full[:n]
	return b
}

// Used returns the bytes on loan now.
func (p *Pool) Used() int64 { return p.used.Load() }
