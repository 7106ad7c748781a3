// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/test/peer"
)

// footprint compares what a late generation has with what an early one had:
// nothing may add up from one generation to the next.
type footprint struct {
	d        *daemon
	upgrades int
	files    map[string]int // open files of the second generation, by what they are
	threads  int
	names    []string // in the daemon's folder
	early    int64    // least resident memory of the generations about the 10th, KiB
	late     int64    // of the last ones
}

// newFootprint upgrades once: a successor has the lock of its predecessor
// besides its own file, so that the second generation is the measure.
func newFootprint(t *testing.T, d *daemon, upgrades int) *footprint {
	t.Helper()
	mustUpgrade(t, d)
	d.awaitAlone(t)
	f := &footprint{d: d, upgrades: upgrades, names: d.names(t)}
	f.files, f.threads = d.resources(t)
	return f
}

// generation looks at the generation after upgrade n, counted from 0. Memory
// depends on where the garbage collector is, so it takes the least of a few.
func (f *footprint) generation(t *testing.T, n int) {
	t.Helper()
	const few = 5
	least := func(v *int64) {
		if kib := f.d.residentMemory(t); *v == 0 || kib < *v {
			*v = kib
		}
	}
	if n >= 10-few/2 && n <= 10+few/2 {
		least(&f.early)
	}
	if n >= f.upgrades-few {
		least(&f.late)
	}
}

// check compares at the end.
func (f *footprint) check(t *testing.T) {
	t.Helper()
	t.Logf("resident memory: generation 10 %d KiB, generation %d %d KiB", f.early, f.upgrades, f.late)
	if f.upgrades > 20 && f.late > f.early*11/10 {
		t.Errorf("generation 10 has %d KiB in memory, generation %d %d KiB", f.early, f.upgrades, f.late)
	}
	f.d.awaitAlone(t)
	files, threads := f.d.resources(t)
	if diff := cmp.Diff(f.files, files); diff != "" {
		t.Errorf("open files of generation 2 and of generation %d:\n%s", f.upgrades+2, diff)
	}
	if threads > f.threads+16 {
		t.Errorf("generation 2 has %d threads, generation %d %d", f.threads, f.upgrades+2, threads)
	}
	if diff := cmp.Diff(f.names, f.d.names(t)); diff != "" {
		t.Errorf("files in the daemon's folder:\n%s", diff)
	}
}

// awaitAlone waits until the generation that serves is alone, with no other
// living, none waiting to be collected, and no child. A predecessor is there for
// a moment after the upgrade.
func (d *daemon) awaitAlone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := peer.Until(ctx, d.alone); err != nil {
		t.Error(err)
	}
}

// servingPID returns the PID of the generation that serves.
func (d *daemon) servingPID(t *testing.T) int {
	t.Helper()
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.PID
}

var inode = regexp.MustCompile(`\[?[0-9]+\]?`)

// resources counts the open files of the generation that serves, by what they
// are, and its threads. The connections over which it is asked are left out, so
// that what is in the control socket's backlog makes no difference.
func (d *daemon) resources(t *testing.T) (files map[string]int, threads int) {
	t.Helper()
	pid := d.servingPID(t)
	files = make(map[string]int)
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	tcp := inodes(t, pid, "tcp")
	for _, p := range list {
		what, err := os.Readlink(p)
		if err != nil {
			continue // it was a connection that has ended
		}
		if socket, ok := strings.CutPrefix(what, "socket:"); ok && !tcp[strings.Trim(socket, "[]")] {
			continue
		}
		files[inode.ReplaceAllString(strings.TrimPrefix(what, d.dir), "")]++
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return files, len(tasks)
}

// inodes returns the inode numbers of the sockets of a protocol in a process's
// network namespace.
func inodes(t *testing.T, pid int, protocol string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, protocol))
	if err != nil {
		t.Fatal(err)
	}
	const column = 9
	found := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > column {
			found[fields[column]] = true
		}
	}
	return found
}

// residentMemory returns the VmRSS of the generation that serves, in KiB. It
// has just started.
func (d *daemon) residentMemory(t *testing.T) (kib int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.servingPID(t)))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// names returns what is in the daemon's folder: sockets and locks are there.
func (d *daemon) names(t *testing.T) (names []string) {
	t.Helper()
	list, err := os.ReadDir(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// alone is what awaitAlone waits for.
func (d *daemon) alone() error {
	_ = d.reap()
	d.mu.Lock()
	uncollected := len(d.pids)
	d.mu.Unlock()
	living, err := d.generations()
	if err != nil {
		return err
	}
	if len(living) != 1 || uncollected != 1 {
		return fmt.Errorf("generations %v live, and %d are not collected", living, uncollected)
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", living[0]))
	if err != nil {
		return err
	}
	for _, p := range lists {
		if children, err := os.ReadFile(p); err == nil && len(children) > 0 {
			return fmt.Errorf("the serving generation has children: %s", children)
		}
	}
	return nil
}
