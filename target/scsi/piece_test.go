// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"slices"
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
)

// coarse is a store that frees no less than 64 MiB.
type coarse struct{ storage.Store }

func (coarse) Info() storage.Info { return storage.Info{Granularity: 64 << 20} }

// TestFreedPiece: a piece is no less than what the store frees as a whole, or nothing would be freed.
func TestFreedPiece(t *testing.T) {
	c := &Command{}
	off, n := uint64(64<<20), uint64(128<<20)
	var pieces []uint64
	c.inPieces(off, n, (&LogicalUnit{store: coarse{}}).freedPiece(), func(at, k uint64) bool {
		pieces = append(pieces, at, k)
		return true
	})
	if want := []uint64{64 << 20, 64 << 20, 128 << 20, 64 << 20}; !slices.Equal(pieces, want) {
		t.Errorf("pieces %d, want %d", pieces, want)
	}
}
