// SPDX-License-Identifier: Apache-2.0

//go:build race

package mem

import (
	"bytes"
	"fmt"
	"sync/atomic"
)

// guard finds faults of holders. The race detector does not see what lies in a mapping. So a block is
// filled with a pattern when it is released: who still reads it has the wrong data, and who still
// writes it is found when the block is lent again.
type guard struct {
	onLoan atomic.Bool
	filled bool // with the pattern; whoever has the block off loan
}

// guarded is how much of a block is looked at, in bytes. More would make tests slow.
const guarded = 64 << 10

var pattern = bytes.Repeat([]byte{0xdb}, guarded)

func (g *guard) lent(b *Buffer) {
	if g.onLoan.Swap(true) {
		panic("mem: a buffer is lent twice")
	}
	if p := b.whole(); g.filled && !bytes.Equal(p[:min(len(p), guarded)], pattern[:min(len(p), guarded)]) {
		panic(fmt.Sprintf("mem: a buffer of %d bytes was written after its release", len(p)))
	}
}

func (g *guard) released(b *Buffer) {
	if !g.onLoan.Swap(false) {
		panic("mem: buffer released twice")
	}
	copy(b.whole(), pattern)
	g.filled = true
}

// forgotten says that the block's pages are given back.
func (g *guard) forgotten() { g.filled = false }
