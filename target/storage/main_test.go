// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/target/storage"
)

// roleVar makes this binary act as the helper process of a test.
const roleVar = "STORAGE_TEST_ROLE"

// roles are the helper processes. What one returns is its whole result.
var roles = map[string]func(args []string) error{
	"fill":  fillSmallDisk,
	"alloc": preallocateSmallDisk,
	"ext2":  preallocateOnExt2,
	"lock":  lockByPath,
	"keep":  keepLock,
	"take":  takeLock,
	"hold":  holdForWriting,
	"check": checkAsSuccessor,
	"drop":  dropWrites,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := roles[role](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// helper returns a command that runs a role of this binary.
func helper(t *testing.T, role string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	return cmd
}

// newPath returns a path for a disk that is not there yet.
func newPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "disk.img")
}

// open opens a store that is closed at the end of the test.
func open(t *testing.T, o storage.Options) storage.Store {
	t.Helper()
	s, err := storage.OpenFile(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// create opens a new store of size bytes.
func create(t *testing.T, size int64) (s storage.Store, path string) {
	t.Helper()
	path = newPath(t)
	return open(t, storage.Options{Path: path, Size: size, Create: true}), path
}
