// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"encoding/binary"
	"fmt"
)

// A stamp is what the [Verifier] writes into a block: where it belongs, which
// write put it there, and after that bytes that follow from both.
type stamp struct {
	seed, lba, number uint64
}

const stampLen = 24 // bytes of a block before the pattern

// fill writes the stamp over a whole block.
func (s stamp) fill(block []byte) {
	binary.LittleEndian.PutUint64(block, s.seed)
	binary.LittleEndian.PutUint64(block[8:], s.lba)
	binary.LittleEndian.PutUint64(block[16:], s.number)
	word := s.first()
	for i := stampLen; i < len(block); i += 8 {
		word = next64(word)
		binary.LittleEndian.PutUint64(block[i:], word)
	}
}

// check returns what is wrong with a block that should hold the stamp.
func (s stamp) check(block []byte) error {
	got := readStamp(block)
	if got != s {
		return fmt.Errorf("holds the stamp of LBA %d, write %d, seed %#x; want LBA %d, write %d, seed %#x",
			got.lba, got.number, got.seed, s.lba, s.number, s.seed)
	}
	word := s.first()
	for i := stampLen; i < len(block); i += 8 {
		word = next64(word)
		if have := binary.LittleEndian.Uint64(block[i:]); have != word {
			return fmt.Errorf("holds write %d, but at byte %d are %016x, want %016x", s.number, i, have, word)
		}
	}
	return nil
}

func readStamp(block []byte) stamp {
	return stamp{binary.LittleEndian.Uint64(block), binary.LittleEndian.Uint64(block[8:]), binary.LittleEndian.Uint64(block[16:])}
}

func (s stamp) first() uint64 {
	return s.seed ^ s.lba*0x9e3779b97f4a7c15 ^ s.number*0xc2b2ae3d27d4eb4f | 1
}

// next64 is a step of a xorshift generator.
func next64(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	return x ^ x<<17
}
