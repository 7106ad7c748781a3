// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/test/peer"
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
	if _, err := s.WriteAt(t.Context(), []byte("precious"), 0); err != nil {
		t.Fatal(err)
	}
	// As a successor opens it, while the predecessor serves.
	next := open(t, storage.Options{Path: path, Size: 3 << 20, InheritLock: true})
	got := make([]byte, 8)
	if _, err := next.ReadAt(t.Context(), got, 0); err != nil || string(got) != "precious" || next.Info().Size != 3<<20 {
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

// TestSizeIsTheLeastForReaders opens for reading what has another size: more is there to be
// read, less is never served.
func TestSizeIsTheLeastForReaders(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	for _, size := range []int64{512, 1 << 20} {
		s := open(t, storage.Options{Path: path, Size: size, BlockOptions: storage.BlockOptions{ReadOnly: true}, Create: true})
		if s.Info().Size != 1<<20 {
			t.Errorf("with size %d it has %d bytes", size, s.Info().Size)
		}
	}
	s, err := storage.OpenFile(storage.Options{Path: path, Size: 1<<20 + 512, BlockOptions: storage.BlockOptions{ReadOnly: true}})
	if err == nil {
		s.Close()
		t.Fatal("a file that is too short is served")
	}
	for _, part := range []string{path, "less than the size of", "opened for reading alone", "lower size or leave it out"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %q", part, err)
		}
	}
	if again := storage.Check(storage.Options{Path: path, Size: 1<<20 + 512, BlockOptions: storage.BlockOptions{ReadOnly: true}}); again == nil || again.Error() != err.Error() {
		t.Errorf("Check says %v, opening %v", again, err)
	}
	if size, _ := stat(t, path); size != 1<<20 {
		t.Errorf("the file has %d bytes", size)
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
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new file is left: %v", err)
	}
}

// TestPreallocateSmallDisk preallocates more than a file system has, and what somebody
// else takes meanwhile.
func TestPreallocateSmallDisk(t *testing.T) { inOwnMounts(t, "alloc", t.TempDir()) }

func preallocateSmallDisk(args []string) error {
	const room = 192 << 20
	dir := args[0]
	if err := mountSmall(dir, room); err != nil {
		return err
	}
	grown := filepath.Join(dir, "grown.img")
	if err := os.WriteFile(grown, make([]byte, 4096), 0o600); err != nil {
		return err
	}
	hog := filepath.Join(dir, "hog")
	for _, path := range []string{grown, filepath.Join(dir, "new.img")} {
		for _, c := range []struct {
			size, taken int64 // by somebody else, when the first piece is there
			want        string
		}{
			{256 << 20, 0, "can't preallocate 256 MiB (268435456 bytes), its file system has "},
			{160 << 20, 60 << 20, "can't preallocate 160 MiB (167772160 bytes): no space left on device: make room there, or leave preallocate out"},
		} {
			o := storage.Options{Path: path, Size: c.size, Create: path != grown, Preallocate: true, Progress: func(done, _ int64) error {
				if done == 0 {
					return nil
				}
				return takeSpace(hog, c.taken)
			}}
			_, err := storage.OpenFile(o)
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				return fmt.Errorf("%d bytes: %w, want %q", c.size, err, c.want)
			}
			if err := os.RemoveAll(hog); err != nil {
				return err
			}
			if err := checkSmallDisk(dir, grown); err != nil {
				return fmt.Errorf("%w after %d bytes of %s", err, c.size, path)
			}
		}
	}
	// With the room that it needs all goes well.
	s, err := storage.OpenFile(storage.Options{Path: grown, Size: 160 << 20, Preallocate: true})
	if err != nil {
		return err
	}
	return s.Close()
}

// checkSmallDisk finds the one file, as it was, and no more space taken.
func checkSmallDisk(dir, path string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		return fmt.Errorf("files %v (%w)", entries, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Size != 4096 || st.Blocks != 8 {
		return fmt.Errorf("the file has %d bytes in %d blocks (%w)", st.Size, st.Blocks, err)
	}
	return nil
}

// takeSpace makes a file with so many bytes of space.
func takeSpace(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fallocate(int(f.Fd()), 0, 0, n)
}

// TestPreallocateWithoutFallocate preallocates on ext2, which can't.
func TestPreallocateWithoutFallocate(t *testing.T) {
	peer.NeedRoot(t)
	inOwnMounts(t, "ext2", t.TempDir())
}

func preallocateOnExt2(args []string) error {
	image, dir := filepath.Join(args[0], "ext2.img"), filepath.Join(args[0], "mounted")
	for _, c := range [][]string{
		{"mke2fs", "-q", "-t", "ext2", image, "8m"}, {"mkdir", dir},
		{"mount", "--make-rprivate", "/"}, {"mount", "-o", "loop", image, dir},
	} {
		cmd := exec.Command(c[0], c[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%q: %w: %s", c, err, out)
		}
	}
	grown, fresh := filepath.Join(dir, "grown.img"), filepath.Join(dir, "new.img")
	if err := os.WriteFile(grown, make([]byte, 4096), 0o600); err != nil {
		return err
	}
	for _, path := range []string{grown, fresh} {
		_, err := storage.OpenFile(storage.Options{Path: path, Size: 1 << 20, Create: true, Preallocate: true})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "its file system can't preallocate (fallocate(2)): leave preallocate out") {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if st, err := os.Stat(grown); err != nil || st.Size() != 4096 {
		return fmt.Errorf("the file is another one: %v (%w)", st, err)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("a new file is left (%w)", err)
	}
	// The way out that the message names.
	s, err := storage.OpenFile(storage.Options{Path: fresh, Size: 1 << 20, Create: true})
	if err != nil {
		return err
	}
	return s.Close()
}

// TestPreallocationGoesOn ends one halfway, and finds in the next what was taken.
func TestPreallocationGoesOn(t *testing.T) {
	path, enough := newPath(t), errors.New("enough for now")
	o := storage.Options{Path: path, Size: 160 << 20, Create: true, Preallocate: true, Progress: func(done, _ int64) error {
		if done > 0 {
			return enough
		}
		return nil
	}}
	if _, err := storage.OpenFile(o); !errors.Is(err, enough) || !strings.Contains(err.Error(), path) {
		t.Fatalf("error is %v", err)
	}
	if size, space := stat(t, path); size != 0 || space < 128<<20 {
		t.Errorf("the file has %d bytes in %d of space", size, space)
	}
	o.Progress = nil
	open(t, o)
	if size, space := stat(t, path); size != 160<<20 || space < size {
		t.Errorf("then it has %d bytes in %d of space", size, space)
	}
}
