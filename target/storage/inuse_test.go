// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
)

// holdForWriting plays another program: it has a file open for writing until
// its input ends.
func holdForWriting(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestFileInUse(t *testing.T) {
	s, path := create(t, 1<<20)
	// What this process has open itself, and what a daemon serves, is no stranger.
	if err := storage.Check(storage.Options{Path: path}); err != nil {
		t.Errorf("a file that a daemon serves: %v", err)
	}
	s.Close()
	cmd := helper(t, "hold", path)
	stop, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(says, make([]byte, len("held\n"))); err != nil {
		t.Fatal(err)
	}
	_, err = storage.OpenFile(storage.Options{Path: path})
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
	want := fmt.Sprintf("%s (PID %d) has it open for writing", strings.TrimSpace(string(comm)), cmd.Process.Pid)
	if !errors.Is(err, storage.ErrInUse) || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one with %q", err, want)
	}
	open(t, storage.Options{Path: path, AllowInUse: true}).Close()
	stop.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	open(t, storage.Options{Path: path}).Close()
}

func TestReadersAreNoStrangers(t *testing.T) {
	s, path := create(t, 1<<20)
	s.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	open(t, storage.Options{Path: path})
}

func TestPredecessorIsNoStranger(t *testing.T) {
	s, path := create(t, 1<<20)
	defer s.Close()
	if out, err := helper(t, "check", path).CombinedOutput(); err != nil {
		t.Errorf("as a successor: %v, %s", err, out)
	}
}

// checkAsSuccessor looks at a file that another process serves.
func checkAsSuccessor(args []string) error {
	return errors.Join(
		storage.Check(storage.Options{Path: args[0], InheritLock: true}),
		storage.Check(storage.Options{Path: args[0]}))
}

func TestLoopDeviceIsNamed(t *testing.T) {

	dev := loopDevice(t, 1<<20, 512)
	if !strings.HasPrefix(dev, "/dev/loop") {
		t.Logf("no loop device here: %s", dev)
		return
	}
	name, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(dev), "loop/backing_file"))
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(string(name))
	if err := storage.Check(storage.Options{Path: path}); err == nil || !strings.Contains(err.Error(), "the loop device "+dev) {
		t.Errorf("error is %v", err)
	}
}
