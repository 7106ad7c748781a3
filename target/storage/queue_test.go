// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// writeTree makes files with the given content below dir.
func writeTree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQueueGranularity(t *testing.T) {
	for _, test := range []struct {
		name                       string
		granularity, discard, zero string
		want                       int64
	}{
		{"both", "4096\n", "2147450880\n", "2147450880\n", 4096},
		{"no discard", "4096\n", "0\n", "65536\n", 0},
		{"no write zeroes", "4096\n", "65536\n", "0\n", 0},
		{"no granularity", "0\n", "65536\n", "65536\n", 0},
		{"not a power of two", "12288\n", "65536\n", "65536\n", 16384},
		{"nonsense", "many\n", "65536\n", "65536\n", 0},
		{"negative", "-512\n", "65536\n", "65536\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			writeTree(t, dir, map[string]string{
				"discard_granularity":    test.granularity,
				"discard_max_bytes":      test.discard,
				"write_zeroes_max_bytes": test.zero,
			})
			if got := queueGranularity(dir); got != test.want {
				t.Errorf("granularity is %d, want %d", got, test.want)
			}
		})
	}
	if got := queueGranularity(filepath.Join(t.TempDir(), "none")); got != 0 {
		t.Errorf("granularity of an unknown device is %d", got)
	}
}

func TestDeviceQueueOfPartition(t *testing.T) {
	sys := t.TempDir()
	writeTree(t, sys, map[string]string{
		"devices/sda/queue/discard_granularity": "512",
		"devices/sda/sda1/partition":            "1",
		"dev/block/.keep":                       "",
	})
	for name, to := range map[string]string{"8:0": "../../devices/sda", "8:1": "../../devices/sda/sda1"} {
		if err := os.Symlink(to, filepath.Join(sys, "dev/block", name)); err != nil {
			t.Fatal(err)
		}
	}
	for minor := range uint32(2) {
		dir := deviceQueue(sys, unix.Mkdev(8, minor))
		if got := queueLimit(dir, "discard_granularity"); got != 512 {
			t.Errorf("device 8:%d: %q has granularity %d", minor, dir, got)
		}
	}
}

func TestPowerOfTwo(t *testing.T) {
	for n, want := range map[int64]int64{-1: 0, 0: 0, 1: 1, 2: 2, 3: 4, 4096: 4096, 4097: 8192, 1 << 62: 1 << 62, 1<<62 + 1: 0} {
		if got := powerOfTwo(n); got != want {
			t.Errorf("powerOfTwo(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestLockHolder(t *testing.T) {
	const locks = `1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF
2: FLOCK  ADVISORY  WRITE 12 08:01:78 0 EOF
3: FLOCK  ADVISORY  WRITE 13 103:02:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 14 08:01:77 0 EOF
short
4: FLOCK  ADVISORY  WRITE 15 08:01:77 0 EOF
`
	for _, test := range []struct {
		major, minor uint32
		ino          uint64
		want         int
	}{
		{8, 1, 77, 15},
		{8, 1, 78, 12},
		{259, 2, 77, 13},
		{8, 1, 79, 0},
	} {
		st := unix.Stat_t{Dev: unix.Mkdev(test.major, test.minor), Ino: test.ino}
		if got := lockHolder(strings.NewReader(locks), &st); got != test.want {
			t.Errorf("holder of %d:%d:%d is %d, want %d", test.major, test.minor, test.ino, got, test.want)
		}
	}
}

func TestLockedSaysWhenItIsThisProcess(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if got := heldLock(f); got != unix.LOCK_EX {
		t.Errorf("held lock is %d, want LOCK_EX", got)
	}
	if err := findHolder(f); err.Error() != "this process serves it already" || !errors.Is(err, ErrLocked) {
		t.Errorf("error is %v, want an ErrLocked that says that it is this process", err)
	}
}
