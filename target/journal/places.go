// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"math/bits"
	"sync/atomic"
)

// places says which of the numbers from 1 on are free. The lowest is taken first, so that few pages are
// touched. One goroutine takes at a time; others may give at the same time.
type places struct {
	taken []atomic.Uint64
}

func newPlaces(n int) places {
	p := places{make([]atomic.Uint64, (n+63)/64)}
	if over := n % 64; over > 0 {
		p.taken[n/64].Store(^uint64(0) << over)
	}
	return p
}

func (p *places) take() (n int, ok bool) {
	for i := range p.taken {
		if w := p.taken[i].Load(); w != ^uint64(0) {
			b := bits.TrailingZeros64(^w)
			p.taken[i].Or(1 << b)
			return i*64 + b + 1, true
		}
	}
	return 0, false
}

// claim takes one number, and tells whether it was free.
func (p *places) claim(n int) bool {
	bit := uint64(1) << ((n - 1) % 64)
	return p.taken[(n-1)/64].Or(bit)&bit == 0
}

func (p *places) give(n int) { p.taken[(n-1)/64].And(^(uint64(1) << ((n - 1) % 64))) }

func (p *places) free(n int) bool { return p.taken[(n-1)/64].Load()>>((n-1)%64)&1 == 0 }
