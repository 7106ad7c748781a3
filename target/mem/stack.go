// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"sync/atomic"
)

// A stack has blocks of one class that are not on loan. It needs no lock. What it refers to is
// always there: a Buffer that is of the arena is so for good.
type stack struct {
	// The index of the topmost block plus 1 in the lower half, 0 for none. The upper half changes
	// each time, so that who has looked at the topmost block notices if that was taken and put back meanwhile.
	head atomic.Uint64

	// The index plus 1 of one more block, 0 for none. Who needs one block at a time is served from
	// here, which takes fewer atomic operations.
	slot atomic.Uint32

	_ [52]byte // a cache line for each
}

// Buffer.link has the index plus 1 of the next block below in its lower half, and how many
// blocks there are from this one to the bottom in its upper half.

func (s *stack) push(k *kind, b *Buffer) {
	if s.slot.Load() != 0 || !s.slot.CompareAndSwap(0, b.index+1) {
		s.pushDeep(k, b)
	}
}

func (s *stack) pushDeep(k *kind, b *Buffer) {
	for {
		h := s.head.Load()
		top, depth := uint32(h), uint64(1)
		if top != 0 {
			depth += k.block(top-1).link.Load() >> 32
		}
		b.link.Store(depth<<32 | uint64(top))
		if s.head.CompareAndSwap(h, (h>>32+1)<<32|uint64(b.index+1)) {
			return
		}
	}
}

// pop returns a block, nil if there is none.
func (s *stack) pop(k *kind) *Buffer {
	if s.slot.Load() != 0 {
		if i := s.slot.Swap(0); i != 0 {
			return k.block(i - 1)
		}
	}
	return s.popDeep(k)
}

func (s *stack) popDeep(k *kind) *Buffer {
	for {
		h := s.head.Load()
		top := uint32(h)
		if top == 0 {
			return nil
		}
		b := k.block(top - 1)
		next := b.link.Load() & (1<<32 - 1)
		if s.head.CompareAndSwap(h, (h>>32+1)<<32|next) {
			return b
		}
	}
}

// len is how many blocks there are, if nobody changes that meanwhile.
func (s *stack) len(k *kind) (n int64) {
	if s.slot.Load() != 0 {
		n++
	}
	if top := uint32(s.head.Load()); top != 0 {
		n += int64(k.block(top-1).link.Load() >> 32)
	}
	return n
}
