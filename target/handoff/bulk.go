// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"fmt"
	"iter"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// featureBulk is what a successor must know to find data that lies behind the
// snapshot in the memfd, and not in it.
const featureBulk = "bulk data behind the snapshot"

// bulkAtLeast is from how many bytes on data lies behind the snapshot. Shorter data is
// cheaper to encode than to write by a system call of its own.
const bulkAtLeast = 4 << 10

// bulky is a state that may hold many megabytes of data.
type bulky interface {
	// Bulk yields pointers to the data in the state. Writer and reader identify data by its
	// place in this sequence, so a later version appends to it and never inserts.
	Bulk() iter.Seq[*[]byte]
}

// Extent says where data of a state lies behind the snapshot.
type Extent struct {
	Index  int   `cbor:"1,keyasint"` // of what Bulk yields, counted from 0
	Offset int64 `cbor:"2,keyasint"` // bytes behind the end of the snapshot
	Length int64 `cbor:"3,keyasint"` // bytes
}

// takeBulk moves the large data of a state out of it, to be written behind the snapshot, and
// records where. It returns how many bytes of data stay in the state.
func (s *Snapshot) takeBulk(section string, state bulky) (left int) {
	var extents []Extent
	index := 0
	for p := range state.Bulk() {
		if n := len(*p); s.apart && n >= bulkAtLeast {
			extents = append(extents, Extent{index, s.bulkSize, int64(n)})
			s.bulk = append(s.bulk, *p)
			s.bulkSize += int64(n)
			*p = nil
		} else {
			left += n
		}
		index++
	}
	if len(extents) == 0 {
		return left
	}
	if s.Extents == nil {
		s.Extents = make(map[string][]Extent)
		s.Needs = append(slices.Clip(s.Needs), featureBulk)
	}
	s.Extents[section] = extents
	return left
}

// giveBulk puts data that lies behind the snapshot back into a state.
func (s *Snapshot) giveBulk(section string, state any) error {
	extents := s.Extents[section]
	if len(extents) == 0 {
		return nil
	}
	d, ok := state.(bulky)
	if !ok {
		return fmt.Errorf("section %q has no place for bulk data", section)
	}
	index := 0
	for p := range d.Bulk() {
		if len(extents) == 0 {
			return nil
		}
		if e := extents[0]; e.Index == index {
			size := int64(len(s.mapped))
			if e.Offset < 0 || e.Length < 0 || e.Offset > size || e.Length > size-e.Offset {
				return fmt.Errorf("section %q has bulk data at %d+%d, of %d bytes", section, e.Offset, e.Length, size)
			}
			*p = s.mapped[e.Offset:][:e.Length:e.Length]
			extents = extents[1:]
		}
		index++
	}
	if len(extents) > 0 {
		return fmt.Errorf("section %q has no place %d for bulk data", section, extents[0].Index)
	}
	return nil
}

// mapMemory maps a memfd with size bytes in it, to be read.
func mapMemory(f *os.File, size int64) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(descriptor.Number(f), &st); err != nil {
		return nil, err
	}
	if st.Size < size {
		return nil, fmt.Errorf("memfd of %d bytes, want %d", st.Size, size)
	}
	// All of it is read once: to fault the pages in one by one takes longer.
	return unix.Mmap(descriptor.Number(f), 0, int(size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// release lets go of the memory that the snapshot came in.
func (s *Snapshot) release() {
	if s.memory != nil {
		_ = unix.Munmap(s.memory)
		s.memory, s.mapped = nil, nil
	}
}
