// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
)

// stat returns the bytes of a file and those that its blocks have.
func stat(t *testing.T, path string) (size, space int64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Size, st.Blocks * 512
}

func TestSizeGrowsAFile(t *testing.T) {
	s, path := create(t, 1<<20)
	if _, err := s.WriteAt([]byte("precious"), 0); err != nil {
		t.Fatal(err)
	}
	// As a successor opens it, while the predecessor serves.
	next := open(t, storage.Options{Path: path, Size: 3 << 20, InheritLock: true})
	got := make([]byte, 8)
	if _, err := next.ReadAt(got, 0); err != nil || string(got) != "precious" || next.Info().Size != 3<<20 {
		t.Errorf("found %q and %d bytes (%v), want what was there and 3 MiB", got, next.Info().Size, err)
	}
	if s.Info().Size != 1<<20 {
		t.Errorf("the predecessor has %d bytes now", s.Info().Size)
	}
}

func TestSizeNeverShrinks(t *testing.T) {
	s, path := create(t, 2<<20)
	s.Close()
	_, err := storage.OpenFile(storage.Options{Path: path, Size: 1 << 20})
	if err == nil {
		t.Fatal("a file shrinks")
	}
	for _, want := range []string{"2 MiB (2097152 bytes)", "1 MiB (1048576 bytes)", "raise size, or leave it out"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %q", err, want)
		}
	}
	if size, _ := stat(t, path); size != 2<<20 {
		t.Errorf("the file has %d bytes", size)
	}
}

func TestSizeIsNothingToReaders(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	for _, size := range []int64{512, 2 << 20} {
		s := open(t, storage.Options{Path: path, Size: size, ReadOnly: true, Create: true})
		if s.Info().Size != 1<<20 {
			t.Errorf("with size %d it has %d bytes", size, s.Info().Size)
		}
	}
}

func TestPreallocate(t *testing.T) {
	path := newPath(t)
	var done, total int64
	o := storage.Options{Path: path, Size: 4 << 20, Create: true, Preallocate: true, Progress: func(d, n int64) error { done, total = d, n; return nil }}
	open(t, o).Close()
	if size, space := stat(t, path); size != 4<<20 || space < size {
		t.Errorf("the file has %d bytes in %d of space", size, space)
	}
	if done != 4<<20 || total != 4<<20 {
		t.Errorf("the progress is %d of %d", done, total)
	}
	o.Size = 8 << 20
	open(t, o).Close()
	if size, space := stat(t, path); size != 8<<20 || space < size {
		t.Errorf("when grown it has %d bytes in %d of space", size, space)
	}
	done = 0
	open(t, o).Close()
	if done != 0 {
		t.Error("a file that is long enough is preallocated again")
	}
}

func TestPreallocateWithoutSpace(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	_, before := stat(t, path)
	_, err := storage.OpenFile(storage.Options{Path: path, Size: 1 << 60, Preallocate: true})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "can't preallocate 1048576 TiB") {
		t.Errorf("error is %v", err)
	}
	if size, space := stat(t, path); size != 1<<20 || space != before {
		t.Errorf("the file has %d bytes in %d of space, %d before", size, space, before)
	}
	other := newPath(t)
	if _, err := storage.OpenFile(storage.Options{Path: other, Size: 1 << 60, Create: true, Preallocate: true}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error is %v", err)
	}
	if st, err := os.Stat(other); err == nil && st.Size() != 0 {
		t.Errorf("a new file has %d bytes", st.Size())
	}
}
