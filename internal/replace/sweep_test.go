// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// deadPID is the PID of a process that was there.
func deadPID(t *testing.T) int {
	t.Helper()
	c := exec.Command("/bin/true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

// TestSweep removes what dead writers of one's own files have left, and nothing else.
func TestSweep(t *testing.T) {
	dir, dead := t.TempDir(), deadPID(t)
	path := func(format string, args ...any) string { return filepath.Join(dir, fmt.Sprintf(format, args...)) }
	gone := []string{path(".a.yaml.%d.new", dead), path(".a.yaml.%d.old", dead)}
	link, folder, held := path(".a.yaml.%d.new", dead+100000000), path(".a.yaml.%d.old", dead+100000000), path(".a.yaml.%d.new", dead+200000000)
	kept := []string{
		path("a.yaml"), path(".a.yaml.%d.new", os.Getpid()), path(".b.yaml.%d.new", dead), path(".a.yaml.%d.tmp", dead),
		path("a.yaml.%d.new", dead), path(".a.yaml.new"), path(".a.yaml.0%d.new", dead), path(".a.yaml.-%d.new", dead), held,
	}
	for _, p := range append(slices.Clone(gone), kept...) {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(path("a.yaml"), link), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	kept = append(kept, link, folder)
	writer, err := os.Open(held)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	change, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer change.Close()
	if err := errors.Join(unix.Flock(int(writer.Fd()), unix.LOCK_EX), unix.Flock(int(change.Fd()), unix.LOCK_EX)); err != nil {
		t.Fatal(err)
	}
	ours := func(name string) bool { return name == "a.yaml" }
	if removed, err := Sweep(dir, ours); len(removed) != 0 || err != nil {
		t.Errorf("during a change it removes %v, %v", removed, err)
	}
	if err := unix.Flock(int(change.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	removed, err := Sweep(dir, ours)
	slices.Sort(removed)
	if err != nil || !slices.Equal(removed, gone) {
		t.Errorf("it removes %v, %v, want %v", removed, err, gone)
	}
	for _, p := range gone {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	for _, p := range kept {
		if _, err := os.Lstat(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := Sweep(path("none"), ours); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
