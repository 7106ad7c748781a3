// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// loopDevice returns a block device of size bytes with the given sector size.
// Where the system does not give us one (no privilege, no loop driver) it
// returns a regular file, which has to pass the same tests.
func loopDevice(t *testing.T, size int64, sector uint32) string {
	t.Helper()
	s, path := create(t, size)
	s.Close()
	dev, err := attach(path, sector)
	if err != nil {
		t.Logf("a regular file stands in for the block device: %v", err)
		return path
	}
	t.Cleanup(func() {
		defer dev.Close()
		if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			t.Errorf("can't detach %s: %v", dev.Name(), err)
		}
	})
	return dev.Name()
}

// attach makes a free loop device show a file.
func attach(path string, sector uint32) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	for range 10 { // others may take the free one before we do
		var n int
		if n, err = unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE); err != nil {
			return nil, err
		}
		var dev *os.File
		if dev, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0); err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &unix.LoopConfig{Fd: uint32(file.Fd()), Size: sector})
		if err == nil {
			return dev, nil
		}
		dev.Close()
	}
	return nil, err
}

func TestDeviceConforms(t *testing.T) {
	path := loopDevice(t, 4<<20, 512)
	if strings.HasPrefix(path, "/dev/") { // the file that stands in would grow
		s, err := storage.OpenFile(storage.Options{Path: path, Size: 1 << 30, Create: true})
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "it is a device") {
			t.Errorf("a device that is too short: %v", err)
		}
	}
	storagetest.TestStore(t, func() storage.Store {
		s, err := storage.OpenFile(storage.Options{Path: path, Size: 4 << 20, Create: true})
		if err != nil {
			t.Fatal(err)
		}
		if s.Info().Size != 4<<20 {
			t.Errorf("size is %d", s.Info().Size)
		}
		return s
	})
}

// TestDeviceOfLargeSectorsConforms serves 512 byte blocks from a device that
// can zero and discard only 4096 byte sectors.
func TestDeviceOfLargeSectorsConforms(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			path := loopDevice(t, 4<<20, 4096)
			storagetest.TestStore(t, func() storage.Store {
				s, err := storage.OpenFile(storage.Options{Path: path, Direct: direct})
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

func TestDeviceLock(t *testing.T) {
	path := loopDevice(t, 1<<20, 512)
	s := open(t, storage.Options{Path: path})
	if out, err := helper(t, "lock", path, "exclusive").CombinedOutput(); err == nil {
		t.Errorf("a second daemon may open it: %s", out)
	}
	next := open(t, storage.Options{Path: path, InheritLock: true})
	if err := next.(storage.Locked).AdoptLock(dup(t, lockFile(s))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if out, err := helper(t, "lock", path, "exclusive").CombinedOutput(); err == nil {
		t.Errorf("the lock was not passed on: %s", out)
	}
}
