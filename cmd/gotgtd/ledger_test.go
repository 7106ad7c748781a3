// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/test/peer"
)

func running(targets ...plan.Target) *plan.Running { return &plan.Running{Targets: targets} }

// TestLedger notes what runs, forgets a disk and a target, and reads the file
// anew each time.
func TestLedger(t *testing.T) {
	dir := t.TempDir()
	reopen := func() *ledger {
		t.Helper()
		l, err := openLedger(dir)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a := plan.Target{Name: "iqn.2026-11.test:a", TID: 2, LUNs: []plan.LUN{{LUN: 1, Path: "/one", Store: "file:1"}, {LUN: 2, Path: "/two: # x", Store: "file:2"}}}
	b := plan.Target{Name: "iqn.2026-11.test:b", TID: 1}
	if err := reopen().note(running(a, b)); err != nil {
		t.Fatal(err)
	}
	want := config.Numbers{}
	want.Set(a.Name, 2, "/one", 1)
	want.Set(a.Name, 2, "/two: # x", 2)
	want.Set(b.Name, 1, "", 0)
	for i, u := range a.LUNs {
		want.SetStore(a.Name, u.Store, config.StoreNumber{LUN: uint16(i + 1), Path: u.Path, Existed: reopen().written})
	}
	if d := cmp.Diff(want, reopen().numbers()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	a.LUNs = a.LUNs[:1]
	a.LUNs[0].Store = "file:9"
	l := reopen()
	if d := cmp.Diff([]string{"/one"}, l.moved(running(a))); d != "" {
		t.Errorf("moved (-want +got):\n%s", d)
	}
	if err := l.note(running(a)); err != nil {
		t.Fatal(err)
	}
	delete(want[a.Name].Stores, "file:1")
	want.SetStore(a.Name, "file:9", config.StoreNumber{LUN: 1, Path: "/one", Existed: reopen().written})
	want.SetStore(a.Name, "file:2", config.StoreNumber{LUN: 2, Path: "/two: # x"}) // nothing says that a file of this ID is this one
	if d := cmp.Diff(want, reopen().numbers()); d != "" {
		t.Errorf("what is gone is forgotten (-want +got):\n%s", d)
	}
}

// TestLedgerKnowsStores: a disk that is served by another path is not gone, and one that
// exchanged its path with another has not moved.
func TestLedgerKnowsStores(t *testing.T) {
	l, err := openLedger(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	luns := []plan.LUN{{LUN: 1, Path: "/one", Store: "file:1"}, {LUN: 2, Path: "/two", Store: "device:naa.5000"}}
	served := running(plan.Target{Name: "iqn.2026-11.test:a", TID: 1, LUNs: luns})
	if err := l.note(served); err != nil {
		t.Fatal(err)
	}
	luns[0].Path, luns[1].Path = luns[1].Path, luns[0].Path
	if list := l.moved(served); len(list) > 0 {
		t.Errorf("moved: %v", list)
	}
	luns[0].Path = "/link"
	if err := l.note(served); err != nil {
		t.Fatal(err)
	}
	want := config.Numbers{}
	want.Set("iqn.2026-11.test:a", 1, "/link", 1)
	want.Set("iqn.2026-11.test:a", 1, "/one", 2)
	want.SetStore("iqn.2026-11.test:a", "file:1", config.StoreNumber{LUN: 1, Path: "/link", Existed: l.written})
	want.SetStore("iqn.2026-11.test:a", "device:naa.5000", config.StoreNumber{LUN: 2, Existed: l.written})
	if d := cmp.Diff(want, l.numbers()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestLedgerForgetsAtLast(t *testing.T) {
	now := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	for gone, want := range map[string]string{"": "2026-11-27", "2026-10-01": "2026-10-01", "2026-01-01": ""} {
		if got := (days{now, now}).stillKept(gone); got != want {
			t.Errorf("gone %q is %q, want %q", gone, got, want)
		}
	}
}

// TestLedgerAndTheClock sets the clock onwards by 100 days while generations follow each other. What
// went 40 days before that is kept; what was written down before they began is forgotten by the
// clock that was right then.
func TestLedgerAndTheClock(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	gone := now.Add(-140 * day).Format(time.DateOnly)
	for _, tt := range []struct {
		what  string
		clock calendar
		want  int
	}{
		{"set onwards since", calendar{now.Add(-100 * day), boottime.Of(now)}, 1},
		{"right", calendar{now, boottime.Of(now)}, 0},
		{"set back since", calendar{now.Add(100 * day), boottime.Of(now)}, 0},
		{"right for 100 days", calendar{now.Add(-100 * day), boottime.Of(now.Add(-100 * day))}, 0},
	} {
		l, err := openLedger(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		l.clock, l.targets = tt.clock, []ledgerTarget{{Name: "iqn.2026-11.test:a", TID: 1, Gone: gone}}
		if err := l.note(running()); err != nil {
			t.Fatal(err)
		}
		if len(l.targets) != tt.want {
			t.Errorf("%s: %d targets are kept, want %d", tt.what, len(l.targets), tt.want)
		}
	}
}

// TestLostLedger takes the file away from under a daemon, and the folder: what was given stays, also what
// is kept for a disk that is gone, and is written down again. That is said, and so it is at a start
// that does not find the file.
func TestLostLedger(t *testing.T) {
	dir := t.TempDir()
	state, file := filepath.Join(dir, "state"), filepath.Join(dir, "targets.conf")
	write := func(disks ...string) {
		t.Helper()
		text := "<target iqn.2026-11.test:c>\n"
		for _, name := range disks {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			text += "backing-store " + path + "\n"
		}
		if err := os.WriteFile(file, []byte(text+"</target>\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b", "c")
	d := startDaemonSaying(t, "no numbers of targets and LUNs are known", "--config", file, "--state-dir", state)
	// noted waits until the file has this in it: a process writes it when it serves, and nothing
	// else after that.
	noted := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := peer.Until(ctx, func() error {
			text, err := os.ReadFile(filepath.Join(state, ledgerName))
			if err == nil && !strings.Contains(string(text), what) {
				err = fmt.Errorf("the file has %q", text)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	noted("path:")
	write("c")
	d.output(t, "upgrade")
	noted("gone:")
	for range 2 {
		if err := os.RemoveAll(state); err != nil {
			t.Fatal(err)
		}
		d.output(t, "upgrade")
		d.waitFor(t, "is not there; they stay as they were given")
		noted("gone:")
		l, err := openLedger(state)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.numbers()["iqn.2026-11.test:c"].LUNs; got[filepath.Join(dir, "b")] != 1 || got[filepath.Join(dir, "c")] != 2 {
			t.Errorf("the numbers are %v", got)
		}
	}
	stopOther(t, d.status(t).PID)
}

// TestUnwritableLedger: that the file can't be written shows, and nothing is left of the attempt.
func TestUnwritableLedger(t *testing.T) {
	dir := t.TempDir()
	l, err := openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.writable(), l.tryToWrite()); err != nil {
		t.Errorf("it can be written: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("left are %v, %v", list, err)
	}
	l.path = filepath.Join("/proc/self", ledgerName) // where nobody makes files
	if err := l.tryToWrite(); err == nil {
		t.Error("an attempt where no files can be made succeeds")
	}
	if err := (&ledger{}).tryToWrite(); err != nil {
		t.Errorf("without a state folder: %v", err)
	}
}

// TestDamagedLedger must not be taken for none: disks would change.
func TestDamagedLedger(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ledgerName)
	for _, text := range []string{
		"targets: [", "targets:\n  - nam: x\n", "targets: [{name: x, tid: 0}]", "targets: [{name: x, tid: 65536}]",
		"targets: [{name: x, tid: 1, luns: [{lun: 16384, path: /a}]}]", "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openLedger(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if l, err := openLedger(""); err != nil || l.note(running()) != nil {
		t.Error("without a state folder nothing is noted, and nothing is wrong")
	}
}

func TestStateFolderIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if _, err := openLedger(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state folder: %v, %v", info, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(file); err == nil || !strings.Contains(err.Error(), "--state-dir") || !strings.Contains(err.Error(), file) {
		t.Errorf("a file for a state folder: %v", err)
	}
}

// TestStateFolderOfOthers: what is kept in it decides which disk is which, and who has it reserved.
func TestStateFolderOfOthers(t *testing.T) {
	dir := t.TempDir()
	victim, noted := filepath.Join(t.TempDir(), "victim"), filepath.Join(dir, ledgerName)
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Symlink(victim, noted)); err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(dir); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("the numbers at the end of a link: %v", err)
	}
	if err := errors.Join(os.Remove(noted), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := openLedger(dir); err == nil || !strings.Contains(err.Error(), "--state-dir") || !strings.Contains(err.Error(), "can be written by others") {
		t.Errorf("a folder of everybody's: %v", err)
	}
}

// TestPlanKnowsNotedNumbers: what a plan says of a target that comes is what it gets,
// though the number of one that has gone is kept, and that of one that comes back is its old one.
func TestPlanKnowsNotedNumbers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gotgtd.yaml")
	if err := os.WriteFile(file, []byte(changedConfig), 0o640); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", file, "--state-dir", t.TempDir())
	const b, c = "iqn.2026-11.test:b", "iqn.2026-11.test:c"
	d.output(t, "target", "add", b)
	d.output(t, "target", "remove", b)
	for name, tid := range map[string]string{c: "3", b: "2"} {
		if out := d.output(t, "target", "add", name); !strings.Contains(out, "new, TID "+tid) {
			t.Errorf("the plan says of %s:\n%s", name, out)
		}
		if out := d.output(t, "target", "list"); !strings.Contains(out, "\n"+tid+"    "+name) {
			t.Errorf("%s is not target %s:\n%s", name, tid, out)
		}
	}
}
