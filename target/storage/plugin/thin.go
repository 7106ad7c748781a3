// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bytes"
	"context"
	"errors"

	"github.com/gostor/gotgt/pkg/api"
)

// maxUnmap is the longest range, in bytes, that the plug-in is asked to free at
// a time: gotgt's descriptors count bytes in 32 bits.
const maxUnmap = 1 << 30

// pieceSize is how much is read at a time to see that it is zeros, in bytes.
const pieceSize = 1 << 20

// Discard has the plug-in free a range. gotgt's interface does not say what
// the range reads as afterwards, so that is looked up, and what is not zeros is
// made so.
func (s *store) Discard(ctx context.Context, off, n int64) error {
	if err := s.check("discard", off, n); err != nil {
		return err
	}
	if err := s.discard(ctx, off, n); err != nil {
		return s.fail("discard", off, n, err)
	}
	return nil
}

func (s *store) discard(ctx context.Context, off, n int64) error {
	s.settled.Store(false)
	piece := make([]byte, min(n, pieceSize))
	for end := off + n; off < end; {
		unmapped := min(end-off, maxUnmap)
		d := api.UnmapBlockDescriptor{Offset: uint64(off), TL: uint32(unmapped)}
		if err := contained(func() error { return s.bs.Unmap([]api.UnmapBlockDescriptor{d}) }); err != nil {
			return err
		}
		for last := off + unmapped; off < last; off += int64(len(piece)) {
			piece = piece[:min(last-off, int64(cap(piece)))]
			if err := s.zero(ctx, piece, off); err != nil {
				return err
			}
		}
	}
	return nil
}

// zero writes zeros where there are none. p is scratch, as long as the range.
func (s *store) zero(ctx context.Context, p []byte, off int64) error {
	if _, err := s.ReadAt(ctx, p, off); err != nil {
		return errors.Unwrap(err)
	}
	if allZero(p) {
		return nil
	}
	clear(p)
	return s.write(p, off)
}

// allZero reports whether p has nothing but zeros. Each byte is compared with the next one,
// which the library does for many of them at a time.
func allZero(p []byte) bool {
	return len(p) == 0 || p[0] == 0 && bytes.Equal(p[:len(p)-1], p[1:])
}
