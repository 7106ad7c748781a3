// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInheritedError: what the system reports of a predecessor's writes to the predecessor's file
// description alone, the successor's first flush says, and no later one.
func TestInheritedError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	was, err := OpenFile(Options{Path: path, Size: 1 << 20, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	next, err := OpenFile(Options{Path: path, InheritLock: true})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(was.(Locked).LockFile().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := next.(Locked).AdoptLock(os.NewFile(uintptr(fd), path)); err != nil {
		t.Fatal(err)
	}
	if err := was.Close(); err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	var asked []int
	defer func(f func(int) error) { fdatasync = f }(fdatasync)
	fdatasync = func(n int) error {
		asked = append(asked, n)
		if n == fd {
			return unix.EIO
		}
		return nil
	}
	if err := next.Flush(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("the first flush: %v, want EIO", err)
	}
	if !slices.Contains(asked, fd) {
		t.Errorf("the predecessor's description %d was not asked: %v", fd, asked)
	}
	if err := next.Flush(t.Context()); err != nil {
		t.Errorf("the second flush: %v", err)
	}
}
