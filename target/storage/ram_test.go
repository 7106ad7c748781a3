// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestRAMConforms(t *testing.T) {
	for _, size := range []int64{storagetest.MinSize, 5<<20 + 512} {
		storagetest.TestStore(t, func() storage.Store { return storage.NewRAM(size) })
	}
}

func TestRAMSize(t *testing.T) {
	for size, want := range map[int64]int64{-1: 0, 0: 0, 512: 512, storage.MaxRAM: storage.MaxRAM, 1 << 62: storage.MaxRAM} {
		if info := storage.NewRAM(size).Info(); info.Size != want || info.Type != "ram" {
			t.Errorf("a store of %d bytes is %+v, want %d bytes", size, info, want)
		}
	}
}

func TestRAMExtentsFollowPages(t *testing.T) {
	s := storage.NewRAM(16 << 20)
	m := s.(storage.Mapper)
	expect := func(off, want int64, wantMapped bool) {
		t.Helper()
		if n, mapped, err := m.Extent(off); n != want || mapped != wantMapped || err != nil {
			t.Errorf("Extent(%d) = %d, %v, %v, want %d, %v", off, n, mapped, err, want, wantMapped)
		}
	}
	expect(0, 16<<20, false)
	if _, err := s.WriteAt(make([]byte, 3*4096), 5<<20-512); err != nil {
		t.Fatal(err)
	}
	expect(0, 5<<20-4096, false)
	expect(5<<20-512, 512+3*4096, true)
	if err := s.(storage.Discarder).Discard(5<<20, 2*4096-512); err != nil {
		t.Fatal(err)
	}
	expect(5<<20-4096, 4096, true)
	expect(5<<20, 4096, false)
	expect(5<<20+4096, 2*4096, true)
}
