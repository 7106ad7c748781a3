// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/proc"
	"github.com/gotgtd/gotgtd/target/storage"
)

// lockByPath opens the store at a path and succeeds if it may.
func lockByPath(args []string) error {
	s, err := storage.OpenFile(storage.Options{Path: args[0], BlockOptions: storage.BlockOptions{ReadOnly: args[1] == "shared"}})
	if err != nil {
		return err
	}
	return s.Close()
}

// keepLock plays a successor: it opens the store at a path without locking,
// adopts the lock of descriptor 3, says so, and goes on until its input ends.
func keepLock(args []string) error {
	s, err := storage.OpenFile(storage.Options{Path: args[0], InheritLock: true})
	if err != nil {
		return err
	}
	if err := s.(storage.Locked).AdoptLock(os.NewFile(3, "lock")); err != nil {
		return err
	}
	fmt.Println("adopted")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Close()
}

// takeLock locks descriptor 3, which others share.
func takeLock([]string) error { return unix.Flock(3, unix.LOCK_EX) }

func lockFile(s storage.Store) *os.File { return s.(storage.Locked).LockFile() }

// dup returns what passing a file to another process gives: another
// descriptor of the same description.
func dup(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func TestLockKeepsOthersOut(t *testing.T) {
	s, path := create(t, 1<<20)
	for _, how := range []string{"exclusive", "shared"} {
		out, err := helper(t, "lock", path, how).CombinedOutput()
		want := fmt.Sprintf("can't lock backing store %q: another process serves it: %s\n", path, proc.Name(os.Getpid()))
		if err == nil || string(out) != want {
			t.Errorf("%s: %v, %q, want %q", how, err, out, want)
		}
	}
	if _, err := storage.OpenFile(storage.Options{Path: path}); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("opening twice in one process: %v, want ErrLocked", err)
	}
	s.Close()
	if out, err := helper(t, "lock", path, "exclusive").CombinedOutput(); err != nil {
		t.Errorf("after Close: %v, %s", err, out)
	}
}

// The process that has locked the file is gone, and who has the lock from it is found all the same.
func TestLockOfADeadProcess(t *testing.T) {
	s, path := create(t, 1<<20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dead := helper(t, "take")
	dead.ExtraFiles = []*os.File{f}
	if out, err := dead.CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	out, err := helper(t, "lock", path, "exclusive").CombinedOutput()
	if want := "another process serves it: " + proc.Name(os.Getpid()); err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, %q, want %q", err, out, want)
	}
}

func TestReadersShare(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	open(t, storage.Options{Path: path, BlockOptions: storage.BlockOptions{ReadOnly: true}})
	if out, err := helper(t, "lock", path, "shared").CombinedOutput(); err != nil {
		t.Errorf("a second reader: %v, %s", err, out)
	}
	if out, err := helper(t, "lock", path, "exclusive").CombinedOutput(); err == nil {
		t.Errorf("a writer beside a reader may open: %s", out)
	}
}

func TestLockGoesToSuccessor(t *testing.T) {
	s, path := create(t, 1<<20)
	successor := helper(t, "keep", path)
	successor.ExtraFiles = []*os.File{lockFile(s)}
	stop, err := successor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := successor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := successor.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("adopted\n"))
	if _, err := io.ReadFull(says, line); err != nil {
		t.Errorf("the successor could not adopt the lock: %v", err)
	}
	s.Close()
	if out, err := helper(t, "lock", path, "exclusive").CombinedOutput(); err == nil {
		t.Errorf("the lock is lost after the predecessor's Close: %s", out)
	}
	stop.Close()
	if err := successor.Wait(); err != nil {
		t.Errorf("successor: %v", err)
	}
	if out, err := helper(t, "lock", path, "exclusive").CombinedOutput(); err != nil {
		t.Errorf("after the successor's end: %v, %s", err, out)
	}
}

func TestAbandonedHandoffKeepsLock(t *testing.T) {
	s, path := create(t, 1<<20)
	next, err := storage.OpenFile(storage.Options{Path: path, BlockOptions: storage.BlockOptions{ReadOnly: true}, InheritLock: true})
	if err != nil {
		t.Fatal(err)
	}
	f := dup(t, lockFile(s))
	if err := next.(storage.Locked).AdoptLock(f); err != nil {
		t.Fatal(err)
	}
	if lockFile(next) != f {
		t.Error("LockFile is not what was adopted")
	}
	next.Close()
	for _, how := range []string{"exclusive", "shared"} {
		if out, err := helper(t, "lock", path, how).CombinedOutput(); err == nil {
			t.Errorf("%s: the lock is no longer what it was: %s", how, out)
		}
	}
}

func TestAdoptTightensLock(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	reader := open(t, storage.Options{Path: path, BlockOptions: storage.BlockOptions{ReadOnly: true}})
	writer := open(t, storage.Options{Path: path, InheritLock: true})
	if err := writer.(storage.Locked).AdoptLock(dup(t, lockFile(reader))); err != nil {
		t.Fatal(err)
	}
	if out, err := helper(t, "lock", path, "shared").CombinedOutput(); err == nil {
		t.Errorf("a writer's lock is still shared: %s", out)
	}
}

func TestAdoptCantTightenBesideReaders(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	reader := open(t, storage.Options{Path: path, BlockOptions: storage.BlockOptions{ReadOnly: true}})
	other := open(t, storage.Options{Path: path, BlockOptions: storage.BlockOptions{ReadOnly: true}})
	writer := open(t, storage.Options{Path: path, InheritLock: true})
	if err := writer.(storage.Locked).AdoptLock(dup(t, lockFile(reader))); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("AdoptLock beside another reader: %v, want ErrLocked", err)
	}
	other.Close()
	if out, err := helper(t, "lock", path, "exclusive").CombinedOutput(); err == nil {
		t.Errorf("the first reader has lost its lock: %s", out)
	}
}

func TestAdoptTakesMissingLock(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, storage.Options{Path: path, InheritLock: true})
	if err := s.(storage.Locked).AdoptLock(f); err != nil {
		t.Fatal(err)
	}
	if out, err := helper(t, "lock", path, "shared").CombinedOutput(); err == nil {
		t.Errorf("nothing is locked: %s", out)
	}
}

func TestAdoptRefusesAnotherFile(t *testing.T) {
	mine, _ := create(t, 1<<20)
	theirs, _ := create(t, 1<<20)
	f := dup(t, lockFile(theirs))
	err := mine.(storage.Locked).AdoptLock(f)
	if err == nil || !strings.Contains(err.Error(), "another file") {
		t.Errorf("AdoptLock: %v, want a refusal", err)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the refused file is still open (%v)", err)
	}
}

func TestTakeLock(t *testing.T) {
	s, path := create(t, 1<<20)
	next := open(t, storage.Options{Path: path, InheritLock: true}).(storage.Locked)
	if err := next.TakeLock(); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("TakeLock while the file is served: %v, want ErrLocked", err)
	}
	if err := s.(storage.Locked).TakeLock(); err != nil {
		t.Errorf("TakeLock of a store that has its lock: %v", err)
	}
	s.Close()
	if err := next.TakeLock(); err != nil {
		t.Errorf("TakeLock of a free file: %v", err)
	}
	if out, err := helper(t, "lock", path, "shared").CombinedOutput(); err == nil {
		t.Errorf("nothing is locked: %s", out)
	}
}

func TestTakeLockKeepsAdoptedOne(t *testing.T) {
	s, path := create(t, 1<<20)
	next := open(t, storage.Options{Path: path, InheritLock: true}).(storage.Locked)
	f := dup(t, lockFile(s))
	if err := next.AdoptLock(f); err != nil {
		t.Fatal(err)
	}
	if err := next.TakeLock(); err != nil || next.LockFile() != f {
		t.Errorf("TakeLock after AdoptLock: %v, LockFile is another: %v", err, next.LockFile() != f)
	}
}
