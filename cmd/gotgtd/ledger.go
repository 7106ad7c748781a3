// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/internal/replace"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

const (
	ledgerName = "numbers.yaml"

	// ledgerKeeps is how long a number is kept for a target or disk that is gone.
	ledgerKeeps = 90 * 24 * time.Hour

	ledgerHead = `# The numbers that gotgtd has given to targets and logical units, and the
# stores behind them. Where a configuration leaves a number open, it is what it
# is here. gotgtd writes this file after each start and reload; edit it while
# gotgtd does not run. A line of what is gone is dropped after 90 days.
`
)

// A ledger remembers over restarts which numbers were given, in a file of the
// state folder.
type ledger struct {
	path    string    // empty: nothing is remembered
	text    []byte    // what is at path, nil if nothing is
	written time.Time // when that was written
	clock   calendar
	targets []ledgerTarget
}

type ledgerTarget struct {
	Name string      `yaml:"name"`
	TID  int         `yaml:"tid"`
	LUNs []ledgerLUN `yaml:"luns,omitempty"`
	Gone string      `yaml:"gone,omitempty"` // the day on which it went, as 2026-11-27
}

type ledgerLUN struct {
	LUN   uint16 `yaml:"lun"`
	Path  string `yaml:"path"`
	Store string `yaml:"store,omitempty"`
	Gone  string `yaml:"gone,omitempty"`
}

type ledgerFile struct {
	Targets []ledgerTarget `yaml:"targets"`
}

// openLedger reads the file of a state folder. A damaged one is an error: without
// it, disks could change their identities.
func openLedger(dir string) (*ledger, error) {
	if dir == "" {
		return &ledger{}, nil
	}
	if err := replace.MakeFolder(dir, 0o700); err != nil {
		return nil, fmt.Errorf("can't make the state folder (--state-dir): %w", err)
	}
	if err := replace.Folder(dir); err != nil {
		return nil, fmt.Errorf("can't keep anything in the state folder (--state-dir): %w", err)
	}
	l := &ledger{path: filepath.Join(dir, ledgerName)}
	text, err := readPrivate(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	var f ledgerFile
	if err == nil {
		err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict()).Decode(&f)
	}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return nil, fmt.Errorf("can't read the numbers of targets and LUNs in %q (mend it, or move it away if every number is in the configuration): %w", l.path, err)
	}
	l.targets, l.text = f.Targets, text
	return l, l.stat()
}

// readPrivate reads a file of the state folder.
func readPrivate(path string) ([]byte, error) {
	f, err := replace.ReadPrivate(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// check finds numbers that can't be: somebody may have edited the file, and the messages about
// the configuration that they end up in would name that.
func (f *ledgerFile) check() error {
	for _, t := range f.Targets {
		if t.TID < 1 || t.TID > config.MaxTID {
			return fmt.Errorf("target %q has TID %d, which is none of 1 to %d", t.Name, t.TID, config.MaxTID)
		}
		for _, u := range t.LUNs {
			if u.LUN > scsi.MaxLUN {
				return fmt.Errorf("target %q has LUN %d, which is none of 0 to %d", t.Name, u.LUN, scsi.MaxLUN)
			}
		}
	}
	return nil
}

// numbers returns what is remembered.
func (l *ledger) numbers() config.Numbers {
	return l.some(func(ledgerTarget, ledgerLUN) bool { return true })
}

// kept returns those of what is gone.
func (l *ledger) kept() config.Numbers {
	return l.some(func(t ledgerTarget, u ledgerLUN) bool { return t.Gone != "" || u.Gone != "" })
}

// some returns the numbers of the logical units that want returns true for. A target without
// any is asked for once, with a logical unit that is not one.
func (l *ledger) some(want func(ledgerTarget, ledgerLUN) bool) config.Numbers {
	n := config.Numbers{}
	for _, t := range l.targets {
		if want(t, ledgerLUN{}) {
			n.Set(t.Name, t.TID, "", 0)
		}
		for _, u := range t.LUNs {
			if !want(t, u) {
				continue
			}
			n.Set(t.Name, t.TID, u.Path, u.LUN)
			if u.Store != "" {
				n.SetStore(t.Name, u.Store, l.store(u, t.Gone == "" && u.Gone == ""))
			}
		}
	}
	return n
}

// store is what is known of a store that was served. One that was served to the last existed
// when the file was written.
func (l *ledger) store(u ledgerLUN, last bool) config.StoreNumber {
	number := config.StoreNumber{LUN: u.LUN}
	if !storage.Lasting(u.Store) {
		number.Path = u.Path
	}
	if last {
		number.Existed = l.written
	}
	return number
}

// moved lists the paths that lead to another store than when they were last
// served, as a logical unit of the same number.
func (l *ledger) moved(r *plan.Running) []string {
	was := make(map[string]ledgerLUN)
	for _, t := range l.targets {
		for _, u := range t.LUNs {
			was[t.Name+"\x00"+u.Path] = u
		}
	}
	var list []string
	for _, t := range r.Targets {
		for _, u := range t.LUNs {
			if old := was[t.Name+"\x00"+u.Path]; old.Store != "" && u.Store != "" && old.Store != u.Store && old.LUN == u.LUN {
				list = append(list, u.Path)
			}
		}
	}
	return list
}

// served tells whether a file was served from a path before.
func (l *ledger) served(path string) bool {
	for _, t := range l.targets {
		for _, u := range t.LUNs {
			if u.Path == path && u.Store != "" {
				return true
			}
		}
	}
	return false
}

// note writes down what is served. What is there no more is kept for a while.
func (l *ledger) note(r *plan.Running) error {
	if l.path == "" {
		return nil
	}
	d := days{today: time.Now()}
	if d.early = l.clock.now(); d.early.After(d.today) {
		d.early = d.today
	}
	var targets []ledgerTarget
	for _, t := range r.Targets {
		n := ledgerTarget{Name: t.Name, TID: t.TID}
		for _, u := range t.LUNs {
			n.LUNs = append(n.LUNs, ledgerLUN{LUN: u.LUN, Path: u.Path, Store: u.Store})
		}
		targets = append(targets, n)
	}
	for _, old := range l.targets {
		i := slices.IndexFunc(targets, func(t ledgerTarget) bool { return t.Name == old.Name })
		if i < 0 {
			if old.Gone = d.stillKept(old.Gone); old.Gone != "" {
				targets = append(targets, old)
			}
			continue
		}
		targets[i].remember(old.LUNs, d)
	}
	l.targets = targets
	text, err := yaml.Marshal(ledgerFile{targets})
	if err != nil {
		return fmt.Errorf("can't write %q: %w", l.path, err)
	}
	text = append([]byte(ledgerHead), text...)
	if bytes.Equal(text, l.text) {
		return nil
	}
	if err := replace.Write(l.path, text, 0o600, os.Getuid(), os.Getgid()); err != nil {
		return err
	}
	l.text = text
	return l.stat()
}

// stat notes when the file was written, by the clock of those who make files.
func (l *ledger) stat() error {
	info, err := os.Stat(l.path)
	if err == nil {
		l.written = info.ModTime()
	}
	return err
}

// remember keeps what is known of logical units that were there before.
func (t *ledgerTarget) remember(old []ledgerLUN, d days) {
	byPath, stores, numbers := make(map[string]*ledgerLUN), make(map[string]bool), make(map[uint16]bool)
	for i := range t.LUNs {
		u := &t.LUNs[i]
		byPath[u.Path], stores[u.Store], numbers[u.LUN] = u, true, true
	}
	var gone []ledgerLUN
	for _, u := range old {
		if n := byPath[u.Path]; n != nil {
			if n.Store == "" && !stores[u.Store] { // one that can't be opened now is known all the same
				n.Store = u.Store
			}
			continue
		}
		if u.Store != "" && stores[u.Store] {
			continue // it is there, by another path
		}
		if u.Gone = d.stillKept(u.Gone); u.Gone != "" && !numbers[u.LUN] {
			gone = append(gone, u)
		}
	}
	t.LUNs = append(t.LUNs, gone...)
}

// calendar is a time by the clock as it was set when the first of a line of generations began, and by
// one that nobody sets. Numbers are not forgotten because the clock is set onwards by mistake.
type calendar struct {
	Wall  time.Time      `json:"wall"`
	Stamp boottime.Stamp `json:"stamp"`
}

// newCalendar begins with the clock as it is.
func newCalendar() calendar {
	now := time.Now()
	return calendar{now, boottime.Of(now)}
}

// now is the time as it would be had nobody set the clock.
func (c calendar) now() time.Time { return c.Wall.Add(time.Since(c.Stamp.Time())) }

// days are today by the clock, for what is written down, and the earlier of that and of
// what the calendar says, for what is forgotten.
type days struct{ today, early time.Time }

// stillKept returns the day on which something went, today if that is new, and
// nothing if it is too long ago.
func (d days) stillKept(gone string) string {
	if gone == "" {
		return d.today.Format(time.DateOnly)
	}
	if day, err := time.Parse(time.DateOnly, gone); err == nil && d.early.Sub(day) > ledgerKeeps {
		return ""
	}
	return gone
}

// adopt notes numbers that a predecessor has kept, when the file is lost. Those of what runs are noted
// with that; the rest is gone from today on.
func (l *ledger) adopt(known config.Numbers) {
	for _, name := range slices.Sorted(maps.Keys(known)) {
		t := ledgerTarget{Name: name, TID: known[name].TID}
		stores := make(map[uint16]string)
		for id, s := range known[name].Stores {
			stores[s.LUN] = id
		}
		for _, path := range slices.Sorted(maps.Keys(known[name].LUNs)) {
			n := known[name].LUNs[path]
			t.LUNs = append(t.LUNs, ledgerLUN{LUN: n, Path: path, Store: stores[n]})
		}
		l.targets = append(l.targets, t)
	}
}

// lost tells whether there is no file where one should be.
func (l *ledger) lost() bool { return l.path != "" && l.text == nil }

// writable returns why the file could not be written now. A folder that is not there is made at
// the next reload.
func (l *ledger) writable() error {
	if l.path == "" {
		return nil
	}
	if err := unix.Access(filepath.Dir(l.path), unix.W_OK|unix.X_OK); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// trySuffix ends the name of a file that is written to see whether one can be.
const trySuffix = ".try"

// tryToWrite is writable, and finds out more: whether there is room.
func (l *ledger) tryToWrite() error {
	if l.path == "" {
		return nil
	}
	try := l.path + trySuffix
	if err := replace.Write(try, []byte(cmp.Or(string(l.text), ledgerHead)), 0o600, os.Getuid(), os.Getgid()); err != nil {
		return err
	}
	return os.Remove(try)
}
