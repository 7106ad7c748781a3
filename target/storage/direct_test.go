// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestDirectConforms(t *testing.T) {
	storagetest.TestStore(t, opener(t, storage.Options{Size: 2 << 20, Direct: true, BlockOptions: storage.BlockOptions{BlockSize: 512}}))
}

func TestDirectWithLargeBlocksConforms(t *testing.T) {
	// With 4096 byte blocks every smaller request of the suite is unaligned.
	storagetest.TestStore(t, opener(t, storage.Options{Size: 2<<20 + 4096 + 512, Direct: true, BlockOptions: storage.BlockOptions{BlockSize: 4096}}))
}

// TestDirectMergesKeepNeighbours has unaligned writes race for the parts of one
// aligned unit: none may bring back what another has replaced.
func TestDirectMergesKeepNeighbours(t *testing.T) {
	s := open(t, storage.Options{Path: newPath(t), Size: 1 << 20, Create: true, Direct: true, BlockOptions: storage.BlockOptions{BlockSize: 4096}})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 100 {
				p := bytes.Repeat([]byte{byte(i + 1)}, 512)
				if _, err := s.WriteAt(t.Context(), p, int64(w)*512); err != nil {
					t.Errorf("WriteAt: %v", err)
					return
				}
				got := make([]byte, 512)
				if _, err := s.ReadAt(t.Context(), got, int64(w)*512); err != nil || !bytes.Equal(got, p) {
					t.Errorf("block %d: a neighbour's write brought back old data (%v)", w, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestDirectLargeUnaligned(t *testing.T) {
	s := open(t, storage.Options{Path: newPath(t), Size: 4 << 20, Create: true, Direct: true})
	want := bytes.Repeat([]byte("direct!"), 400_000)
	const off = 4095
	if n, err := s.WriteAt(t.Context(), want, off); n != len(want) || err != nil {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	got := make([]byte, len(want)+2)
	if n, err := s.ReadAt(t.Context(), got, off-1); n != len(got) || err != nil {
		t.Fatalf("ReadAt = %d, %v", n, err)
	}
	if got[0] != 0 || got[len(got)-1] != 0 || !bytes.Equal(got[1:len(got)-1], want) {
		t.Error("read back other bytes than were written")
	}
}

func TestDirectShrunkFile(t *testing.T) {
	path := newPath(t)
	s := open(t, storage.Options{Path: path, Size: 1 << 20, Create: true, Direct: true})
	if err := os.Truncate(path, 512<<10+100); err != nil {
		t.Fatal(err)
	}
	var pool mem.Pool
	buf := pool.Get(8192)
	defer buf.Release()
	if _, err := s.ReadAt(t.Context(), buf.B, 512<<10-4096); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAt across the new end: %v, want unexpected EOF", err)
	}
	if _, err := s.ReadAt(t.Context(), buf.B[1:513], 768<<10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("unaligned ReadAt past the new end: %v, want unexpected EOF", err)
	}
}
