// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnixListeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path) // has the path in the table, too
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := UnixListeners(path); !slices.Equal(got, []int{os.Getpid()}) {
		t.Errorf("listeners are %v, want %d", got, os.Getpid())
	}
	if got := UnixListeners(path + ".none"); len(got) > 0 {
		t.Errorf("of a socket that is not there: %v", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := UnixListeners(path); len(got) > 0 {
		t.Errorf("nobody listens any more: %v", got)
	}
}

func TestLocker(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := Locker(f); got != "another process" {
		t.Errorf("before it is locked: %s", got)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if got := Locker(f); got != Name(os.Getpid()) {
		t.Errorf("it is locked by %s, want %s", got, Name(os.Getpid()))
	}
}
