// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWarm(t *testing.T) {
	const size = 4 << 20
	// Not in t.TempDir, which may be a tmpfs, where nothing is ever cold.
	dir, err := os.MkdirTemp(".", "warm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, err := newDisk(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	if cold, err := warm(path); err != nil || cold != 0 {
		t.Errorf("a file that has just been written: %d bytes are cold, %v", cold, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // dirty pages can't be dropped
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if cold, err := warm(path); err != nil || cold == 0 {
		t.Errorf("a file dropped from the page cache: %d bytes are cold, %v", cold, err)
	}
	if cold, err := warm(path); err != nil || cold != 0 {
		t.Errorf("a file that has been warmed: %d bytes are cold, %v", cold, err)
	}
	release, err := keepWarm(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if cold, err := absent(f); err != nil || cold != 0 {
		t.Errorf("a file that is kept: %d bytes are cold, %v", cold, err)
	}
	release()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if cold, err := absent(f); err != nil || cold == 0 {
		t.Errorf("a file that was kept: %d bytes are cold, %v", cold, err)
	}
}
