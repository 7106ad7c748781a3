// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/internal/memfile"
	"github.com/gotgtd/gotgtd/target/account"
)

// AdoptArena returns an Arena over the file of another process's, which does not use it any
// more. What of it is on loan is said by [Arena.Claim], then [Arena.Settle] frees the rest.
// Until then all buffers come from the heap. The file belongs to the Arena, unless there is an error.
func AdoptArena(f *os.File, o ArenaOptions) (*Arena, error) {
	var st unix.Stat_t
	if err := unix.Fstat(descriptor.Number(f), &st); err != nil {
		return nil, fmt.Errorf("mem: the file of an arena: %w", err)
	}
	part := st.Size / classes
	if st.Size <= 0 || st.Size%(classes*MaxSize) != 0 || part > maxPart {
		return nil, fmt.Errorf("mem: a file of %d bytes is none of an arena: it must be a multiple of %d", st.Size, classes*MaxSize)
	}
	if err := memfile.Sealed(f); err != nil {
		return nil, fmt.Errorf("mem: the file of an arena %w", err)
	}
	a, err := mapArena(f, part, o)
	if err != nil {
		return nil, err
	}
	a.claiming.Store(true)
	a.start()
	return a, nil
}

// Claim lends the block at an offset of the file, with len(B) == n bytes, as it was lent when the other process
// had it, and charges the account without asking; nil for none. offset is what [Buffer.Offset]
// was there. A block can be claimed once.
func (a *Arena) Claim(offset int64, n int, charged *account.Account) (*Buffer, error) {
	if offset < 0 || offset >= int64(len(a.m)) {
		return nil, fmt.Errorf("mem: no block at %d, the arena has %d bytes", offset, len(a.m))
	}
	k := &a.kinds[offset/a.part]
	switch at := offset - k.base; {
	case at%k.size != 0:
		return nil, fmt.Errorf("mem: no block begins at %d: blocks of %d bytes are there", offset, k.size)
	case n < 0 || int64(n) > k.size:
		return nil, fmt.Errorf("mem: the block at %d has %d bytes, not %d", offset, k.size, n)
	}
	b, err := a.claimBlock(k, uint32((offset-k.base)/k.size))
	if err != nil {
		return nil, err
	}
	a.grow(k.size)
	charged.Charge(k.size)
	if b.account = charged; charged == nil {
		a.stock.used.Add(k.size)
	}
	b.guard.lent(b)
	b.B = b.whole()[:n]
	return b, nil
}

// claimBlock makes the Buffer of a block that has none yet.
func (a *Arena) claimBlock(k *kind, i uint32) (*Buffer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !a.claiming.Load() {
		return nil, errors.New("mem: blocks can be claimed of an arena that was adopted, before it is settled")
	}
	if c := k.chunks[i/uint32(len(chunk{}))].Load(); c != nil && c[i%uint32(len(chunk{}))].mapped {
		return nil, fmt.Errorf("mem: the block at %d is claimed already", k.offset(i))
	}
	k.carved = max(k.carved, i+1)
	return a.makeLocked(k, i), nil
}

// Settle ends the claims: what nobody has claimed is free, and its pages are given back. It is called once.
func (a *Arena) Settle() error {
	var errs []error
	for i := range a.kinds {
		k := &a.kinds[i]
		k.mu.Lock()
		errs = append(errs, a.settleLocked(k))
		k.mu.Unlock()
	}
	a.claiming.Store(false)
	return errors.Join(errs...)
}

// settleLocked gives back the pages of a kind's blocks that have no Buffer, and makes one of those among them.
func (a *Arena) settleLocked(k *kind) error {
	var errs []error
	from := uint32(0) // nothing is claimed from here on
	for i := uint32(0); i < k.carved; i++ {
		if c := k.chunks[i/uint32(len(chunk{}))].Load(); c != nil && c[i%uint32(len(chunk{}))].mapped {
			errs = append(errs, a.holeOf(k, from, i))
			from = i + 1
			continue
		}
		k.cold.push(k, a.makeLocked(k, i))
	}
	return errors.Join(append(errs, a.holeOf(k, from, k.most))...)
}

// holeOf gives back the pages of the blocks from one index to before another.
func (a *Arena) holeOf(k *kind, from, to uint32) error {
	if from == to {
		return nil
	}
	if err := a.hole(k.offset(from), int64(to-from)*k.size); err != nil {
		return fmt.Errorf("mem: memory of buffers that nobody claims is not given back: %w", err)
	}
	return nil
}
