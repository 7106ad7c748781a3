// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// opener returns a function that opens another new file at each call.
func opener(t *testing.T, o storage.Options) func() storage.Store {
	dir := t.TempDir()
	var n atomic.Int64
	return func() storage.Store {
		o := o
		o.Create = true
		o.Path = filepath.Join(dir, string(rune('a'+n.Add(1)%26)))
		os.Remove(o.Path)
		s, err := storage.OpenFile(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestFileConforms(t *testing.T) {
	storagetest.TestStore(t, opener(t, storage.Options{Size: 8 << 20}))
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	storagetest.TestDriver(t, "file", storage.Options{Path: path})
	storagetest.TestDriver(t, "file", storage.Options{Path: path, Size: 8192})
	storagetest.TestDriver(t, "file", storage.Options{Path: path, Size: 9000, BlockOptions: storage.BlockOptions{BlockSize: 4096}}) // one that grows
	storagetest.TestDriver(t, "file", storage.Options{Path: path, BlockOptions: storage.BlockOptions{BlockSize: 4096, ReadOnly: true}})
	storagetest.TestDriver(t, "file", storage.Options{Path: path, Direct: true})
}

func TestFileOfOddSizeConforms(t *testing.T) {
	storagetest.TestStore(t, opener(t, storage.Options{Size: 2<<20 + 3*512 + 100}))
}

func TestCreate(t *testing.T) {
	s, path := create(t, 64<<20)
	info := s.Info()
	if info.Size != 64<<20 || info.Type != "rdwr" || info.Path != path || info.ReadOnly {
		t.Errorf("Info is %+v", info)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 64<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("the file has %d bytes in %d blocks, want %d and sparse", st.Size, st.Blocks, 64<<20)
	}
	if st.Mode&0o777 != 0o600 {
		t.Errorf("mode is %o", st.Mode&0o777)
	}
}

// A file is not made through a symbolic link, and that is known before it is tried.
func TestCreateAtASymbolicLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "link.img")
	if err := os.Symlink("missing.img", path); err != nil {
		t.Fatal(err)
	}
	o := storage.Options{Path: path, Size: 1 << 20, Create: true}
	_, opened := storage.OpenFile(o)
	for what, err := range map[string]error{"Check": storage.Check(o), "OpenFile": opened} {
		if err == nil || !strings.Contains(err.Error(), "symbolic link to a file that is not there") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A file is not made in a folder that is missing, and that is known before it is tried.
func TestCreateInAMissingFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "disk.img")
	o := storage.Options{Path: path, Size: 1 << 20, Create: true}
	_, opened := storage.OpenFile(o)
	for what, err := range map[string]error{"Check": storage.Check(o), "OpenFile": opened} {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("its folder %q is missing", filepath.Dir(path))) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	s, path := create(t, 1<<20)
	if _, err := s.WriteAt(t.Context(), []byte("precious"), 0); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, storage.Options{Path: path, Size: 1 << 20, Create: true})
	got := make([]byte, 8)
	if _, err := s.ReadAt(t.Context(), got, 0); err != nil || string(got) != "precious" || s.Info().Size != 1<<20 {
		t.Errorf("found %q and %d bytes (%v), want what was there", got, s.Info().Size, err)
	}
}

func TestCreateGoesOnAfterACrash(t *testing.T) {
	path := newPath(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := open(t, storage.Options{Path: path, Size: 1 << 20, Create: true}); s.Info().Size != 1<<20 {
		t.Errorf("size is %d", s.Info().Size)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	missing, small, fifo := filepath.Join(dir, "missing"), filepath.Join(dir, "small"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(small, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		o    storage.Options
		want string
	}{
		{"missing", storage.Options{Path: missing, Size: 1 << 20}, "can't open backing store"},
		{"read-only can't create", storage.Options{Path: missing, Size: 1 << 20, Create: true, BlockOptions: storage.BlockOptions{ReadOnly: true}}, "no such file"},
		{"inherited can't create", storage.Options{Path: missing, Size: 1 << 20, Create: true, InheritLock: true}, "no such file"},
		{"no size", storage.Options{Path: missing, Create: true}, "can't create backing store"},
		{"less than a block", storage.Options{Path: missing, Create: true, Size: 4095, BlockOptions: storage.BlockOptions{BlockSize: 4096}}, "less than one block"},
		{"no whole block", storage.Options{Path: small, BlockOptions: storage.BlockOptions{BlockSize: 4096}}, "no block of 4096 bytes"},
		{"block size", storage.Options{Path: small, BlockOptions: storage.BlockOptions{BlockSize: 1024}}, "block-size: 1024"},
		{"directory", storage.Options{Path: dir, BlockOptions: storage.BlockOptions{ReadOnly: true}}, "neither a regular file nor a block device"},
		{"fifo", storage.Options{Path: fifo, BlockOptions: storage.BlockOptions{ReadOnly: true}}, "neither a regular file nor a block device"},
		{"character device", storage.Options{Path: os.DevNull}, "neither a regular file nor a block device"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := storage.OpenFile(test.o)
			var e *storage.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want a storage.Error with %q", err, test.want)
			}
		})
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failed open left a file behind (%v)", err)
	}
}

func TestReadOnly(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	s = open(t, storage.Options{Path: path, BlockOptions: storage.BlockOptions{ReadOnly: true}})
	if info := s.Info(); !info.ReadOnly || info.Granularity != 0 {
		t.Errorf("Info is %+v", info)
	}
	p := make([]byte, 512)
	if _, err := s.ReadAt(t.Context(), p, 0); err != nil {
		t.Errorf("ReadAt: %v", err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Errorf("Flush: %v", err)
	}
	for name, change := range map[string]func() error{
		"WriteAt":        func() error { _, err := s.WriteAt(t.Context(), p, 0); return err },
		"WriteDurableAt": func() error { _, err := s.(storage.DurableWriter).WriteDurableAt(t.Context(), p, 0); return err },
		"Discard":        func() error { return s.(storage.Discarder).Discard(t.Context(), 0, 512) },
		"WriteZeroes":    func() error { return s.(storage.Zeroer).WriteZeroes(t.Context(), 0, 512) },
	} {
		if err := change(); !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
}

func TestBytesAtAnyOffset(t *testing.T) {
	s, _ := create(t, 1<<20)
	if _, err := s.WriteAt(t.Context(), []byte("odd"), 4095); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := s.ReadAt(t.Context(), got, 4094); err != nil || string(got) != "\x00odd\x00" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestShrunkFile(t *testing.T) {
	s, path := create(t, 1<<20)
	if err := os.Truncate(path, 512<<10); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8192)
	n, err := s.ReadAt(t.Context(), p, 512<<10-4096)
	if !errors.Is(err, io.ErrUnexpectedEOF) || n != 4096 {
		t.Errorf("ReadAt across the new end = %d, %v, want 4096 and unexpected EOF", n, err)
	}
	if _, err := s.(storage.TryReader).TryReadAt(p, 512<<10); err != storage.ErrWouldBlock {
		t.Errorf("TryReadAt past the new end: %v, want ErrWouldBlock", err)
	}
	size, err := s.(storage.Refresher).Refresh(t.Context())
	if size != 512<<10 || err != nil || s.Info().Size != size {
		t.Errorf("Refresh = %d, %v, Info says %d", size, err, s.Info().Size)
	}
	if _, err := s.WriteAt(t.Context(), p, 512<<10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("WriteAt past the new end: %v, want unexpected EOF", err)
	}
}

func TestGrownFile(t *testing.T) {
	s, path := create(t, 1<<20)
	if err := os.Truncate(path, 2<<20+100); err != nil {
		t.Fatal(err)
	}
	if size, err := s.(storage.Refresher).Refresh(t.Context()); size != 2<<20 || err != nil {
		t.Errorf("Refresh = %d, %v", size, err)
	}
	if _, err := s.WriteAt(t.Context(), make([]byte, 512), 2<<20-512); err != nil {
		t.Errorf("WriteAt: %v", err)
	}
}

func TestVanishedFile(t *testing.T) {
	s, path := create(t, 1<<20)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Flush: %v, want ENOENT", err)
	}
	if _, err := s.(storage.DurableWriter).WriteDurableAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("WriteDurableAt: %v, want ENOENT", err)
	}
	if _, err := s.(storage.Refresher).Refresh(t.Context()); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("Refresh: %v, want ENOENT", err)
	}
}

func TestClosed(t *testing.T) {
	s, _ := create(t, 1<<20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteAt(t.Context(), make([]byte, 512), 0); !errors.Is(err, syscall.EBADF) {
		t.Errorf("WriteAt: %v, want EBADF", err)
	}
	if err := s.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v, want ErrClosed", err)
	}
}

func TestErrorText(t *testing.T) {
	for want, err := range map[string]error{
		`can't write 4096 bytes at 8192 of "disk.img": no space left on device`: &storage.Error{
			Op: "write", Path: "disk.img", Off: 8192, Len: 4096, Err: syscall.ENOSPC},
		`can't flush backing store "disk.img": input/output error`: &storage.Error{
			Op: "flush", Path: "disk.img", Err: syscall.EIO},
	} {
		if err.Error() != want {
			t.Errorf("error is %q, want %q", err, want)
		}
	}
}

func TestTryReadTellsWhatIsCached(t *testing.T) {
	s, _ := create(t, 1<<20)
	want := bytes.Repeat([]byte("data"), 1024)
	if _, err := s.WriteAt(t.Context(), want, 4096); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	n, err := s.(storage.TryReader).TryReadAt(got, 4096)
	if err != nil && err != storage.ErrWouldBlock {
		t.Fatalf("TryReadAt: %v", err)
	}
	if err == nil && (n != len(got) || !bytes.Equal(got, want)) {
		t.Errorf("TryReadAt returned %d bytes that are not those written", n)
	}
}
