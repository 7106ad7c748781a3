// SPDX-License-Identifier: Apache-2.0

// Package mem hands out the buffers that carry data segments between the
// network and the backing stores. All of a daemon's bulk memory comes from
// here, and what it is for is charged with it: see package account.
//
// Buffers come from an [Arena], one shared mapping, or else from Go's heap.
package mem

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/gotgtd/gotgtd/target/account"
)

// Buffers come in powers of two from MinSize to MaxSize bytes.
const (
	MinSize = 4 << 10
	MaxSize = 16 << 20

	minShift = 12
	classes  = 13 // 4 KiB, 8 KiB, ... 16 MiB
)

// A Buffer is a block of memory on loan from a [Pool]. B starts page aligned,
// holds arbitrary bytes at first, and may be resliced by its holder, but not become nil.
type Buffer struct {
	B []byte

	base    *byte // of the whole block
	stock   *stock
	account *account.Account // charged with the block; nil for none
	link    atomic.Uint64    // where it is on a stack of the arena
	index   uint32           // within its class of the arena
	class   uint8
	mapped  bool // of the arena, not of the heap
	guard
}

func (b *Buffer) size() int64 { return MinSize << (b.class & 31) }

// whole is the block. What lies in the arena must not be used after the release.
func (b *Buffer) whole() []byte { return unsafe.Slice(b.base, b.size()) }

// Release gives b back; neither b nor b.B may be used afterwards. Releasing
// a nil Buffer does nothing, and one that has been released before panics if that can be seen.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	if b.B == nil {
		panic("mem: buffer released twice")
	}
	b.guard.released(b)
	s, a, n := b.stock, b.account, b.size()
	b.B, b.account = nil, nil
	if a == nil {
		s.used.Add(-n)
	}
	if b.mapped {
		s.arena.put(b)
	} else {
		s.heap[b.class].Put(b)
	}
	a.Release(n) // now: who waits for the bytes finds the block
}

// A Pool lends buffers, and counts the bytes on loan or charges an account with them. The
// zero Pool is ready to use, lends from the heap, counts, and is safe for concurrent use.
type Pool struct {
	own     stock
	shared  *stock // of another Pool or an Arena; nil: own
	account *account.Account
}

// stock is what is lent.
type stock struct {
	used  atomic.Int64 // bytes on loan that are on no account
	arena *Arena       // nil: all is of the heap
	heap  [classes]sync.Pool
}

var common Pool // of those who have none

// For returns a Pool with the same buffers that charges an account with them.
func (p *Pool) For(a *account.Account) *Pool { return &Pool{shared: p.stock(), account: a} }

func (p *Pool) stock() *stock {
	switch {
	case p == nil:
		return &common.own
	case p.shared != nil:
		return p.shared
	}
	return &p.own
}

// Get lends a buffer with len(B) == n bytes, 0 <= n <= MaxSize, and charges the account
// without asking. It panics on any other n: lengths that come from an initiator are checked before.
// A nil Pool lends what a common one has.
func (p *Pool) Get(n int) *Buffer {
	c := class(n)
	a := p.charged()
	a.Charge(MinSize << c)
	return p.stock().lend(a, c, n)
}

// TryGet is Get if the account may have the buffer. Otherwise it returns nil.
func (p *Pool) TryGet(n int) *Buffer {
	c := class(n)
	a := p.charged()
	if !a.Admit(MinSize << c) {
		return nil
	}
	return p.stock().lend(a, c, n)
}

func (p *Pool) charged() *account.Account {
	if p == nil {
		return nil
	}
	return p.account
}

// class returns which buffers hold n bytes.
func class(n int) int {
	if n < 0 || n > MaxSize {
		panic("mem: buffer size out of range")
	}
	if n <= MinSize {
		return 0
	}
	return bits.Len(uint(n-1)) - minShift
}

func (s *stock) lend(a *account.Account, class, n int) *Buffer {
	var b *Buffer
	if s.arena != nil {
		b = s.arena.take(class)
	}
	if b == nil {
		b = s.ofHeap(class)
	}
	if b.account = a; a == nil {
		s.used.Add(b.size())
	}
	b.guard.lent(b)
	b.B = b.whole()[:n]
	return b
}

func (s *stock) ofHeap(class int) *Buffer {
	if b, _ := s.heap[class].Get().(*Buffer); b != nil {
		return b
	}
	// Blocks of whole pages are page aligned in Go's heap, as O_DIRECT wants.
	return &Buffer{base: unsafe.SliceData(make([]byte, MinSize<<class)), stock: s, class: uint8(class)}
}

// Used returns the bytes on loan now that are on no account.
func (p *Pool) Used() int64 { return p.stock().used.Load() }
