// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
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
		if got := stillKept(gone, now); got != want {
			t.Errorf("gone %q is %q, want %q", gone, got, want)
		}
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
