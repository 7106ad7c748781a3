// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestRAMConforms(t *testing.T) {
	for _, size := range []int64{storagetest.MinSize, 5<<20 + 512} {
		storagetest.TestStore(t, func() storage.Store { return storagetest.NewRAM(size) })
	}
	storagetest.TestDriver(t, "ram", storage.Options{Size: storagetest.MinSize})
}

func TestRAMSize(t *testing.T) {
	for _, size := range []int64{0, 511, 512, 16 << 40, 1 << 62} {
		s, err := storage.NewRAM(size)
		if err != nil {
			t.Errorf("a store of %d bytes: %v", size, err)
			continue
		}
		if info := s.Info(); info.Size != size || info.Type != "ram" || info.Path != "" {
			t.Errorf("a store of %d bytes is %+v", size, info)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	var e *storage.Error
	if _, err := storage.NewRAM(-1); !errors.As(err, &e) {
		t.Errorf("a store of -1 bytes: %v, want an *Error", err)
	}
}

// passed returns a store's memory as another process would get it.
func passed(t *testing.T, s storage.Store) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(s.(storage.Movable).MemoryFile().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "passed")
}

// A store that adopts another's memory has its blocks, as far as it is large,
// and zeros beyond. The other one loses nothing until the memory is trimmed.
func TestRAMAdoptsMemory(t *testing.T) {
	const size = 64 << 10
	fill := bytes.Repeat([]byte{0xa5}, size)
	for _, c := range []struct {
		name string
		size int64
	}{{"same size", size}, {"larger", 3 * size}, {"smaller", size / 2}} {
		t.Run(c.name, func(t *testing.T) {
			old, next := storagetest.NewRAM(size), storagetest.NewRAM(c.size)
			defer next.Close()
			if _, err := old.WriteAt(t.Context(), fill, 0); err != nil {
				t.Fatal(err)
			}
			m := next.(storage.Movable)
			if err := m.AdoptMemory(passed(t, old)); err != nil {
				t.Fatal(err)
			}
			if n := next.Info().Size; n != c.size {
				t.Errorf("the size is %d, want %d", n, c.size)
			}
			got := make([]byte, size)
			if _, err := old.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, fill) {
				t.Errorf("the old store has lost its contents: %v", err)
			}
			if n := old.Info().Size; n != size {
				t.Errorf("the old store has %d bytes now, had %d", n, size)
			}
			if err := old.Close(); err != nil {
				t.Error(err)
			}
			if err := m.TrimMemory(); err != nil {
				t.Error(err)
			}
			if st, err := m.MemoryFile().Stat(); err != nil || st.Size() != c.size {
				t.Errorf("the file has %d bytes, %v, want %d", st.Size(), err, c.size)
			}
			want := make([]byte, c.size)
			copy(want, fill)
			got = make([]byte, c.size)
			if _, err := next.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the new store does not have the old one's contents: %v", err)
			}
		})
	}
}

// What is not memory is refused, and the store keeps its own.
func TestRAMRefusesFile(t *testing.T) {
	s := storagetest.NewRAM(4096)
	defer s.Close()
	if _, err := s.WriteAt(t.Context(), []byte{7}, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(newPath(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.(storage.Movable).AdoptMemory(f); err == nil {
		t.Error("a file on a disk is taken for memory")
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the refused file is still open: %v", err)
	}
	got := make([]byte, 1)
	if _, err := s.ReadAt(t.Context(), got, 0); err != nil || got[0] != 7 {
		t.Errorf("the store has %v, %v", got, err)
	}
}

// Nobody can make the memory unwritable from outside.
func TestRAMCannotBeSealed(t *testing.T) {
	s := storagetest.NewRAM(4096)
	defer s.Close()
	fd := s.(storage.Movable).MemoryFile().Fd()
	if _, err := unix.FcntlInt(fd, unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err != unix.EPERM {
		t.Errorf("a seal is answered with %v, want EPERM", err)
	}
}

func TestRAMExtentsFollowPages(t *testing.T) {
	s := storagetest.NewRAM(16 << 20)
	m := s.(storage.Mapper)
	expect := func(off, want int64, wantMapped bool) {
		t.Helper()
		if n, mapped, err := m.Extent(t.Context(), off); n != want || mapped != wantMapped || err != nil {
			t.Errorf("Extent(%d) = %d, %v, %v, want %d, %v", off, n, mapped, err, want, wantMapped)
		}
	}
	expect(0, 16<<20, false)
	if _, err := s.WriteAt(t.Context(), make([]byte, 3*4096), 5<<20-512); err != nil {
		t.Fatal(err)
	}
	expect(0, 5<<20-4096, false)
	expect(5<<20-512, 512+3*4096, true)
	if err := s.(storage.Discarder).Discard(t.Context(), 5<<20, 2*4096-512); err != nil {
		t.Fatal(err)
	}
	expect(5<<20-4096, 4096, true)
	expect(5<<20, 4096, false)
	expect(5<<20+4096, 2*4096, true)
}
