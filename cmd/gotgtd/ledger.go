// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/gotgtd/gotgtd/internal/replace"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/scsi"
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
	path    string // empty: nothing is remembered
	text    []byte // what is at path
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
	if err := os.MkdirAll(dir, 0o700); err != nil {
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
	return l, nil
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
		if t.TID < 1 || t.TID > 65535 {
			return fmt.Errorf("target %q has TID %d, which is none of 1 to 65535", t.Name, t.TID)
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
	n := config.Numbers{}
	for _, t := range l.targets {
		n.Set(t.Name, t.TID, "", 0)
		for _, u := range t.LUNs {
			n.Set(t.Name, t.TID, u.Path, u.LUN)
		}
	}
	return n
}

// kept returns those of what is gone.
func (l *ledger) kept() config.Numbers {
	n := config.Numbers{}
	for _, t := range l.targets {
		if t.Gone != "" {
			n.Set(t.Name, t.TID, "", 0)
		}
		for _, u := range t.LUNs {
			if t.Gone != "" || u.Gone != "" {
				n.Set(t.Name, t.TID, u.Path, u.LUN)
			}
		}
	}
	return n
}

// moved lists the paths that lead to another store than when they were last
// served.
func (l *ledger) moved(r *plan.Running) []string {
	was := make(map[string]string)
	for _, t := range l.targets {
		for _, u := range t.LUNs {
			was[t.Name+"\x00"+u.Path] = u.Store
		}
	}
	var list []string
	for _, t := range r.Targets {
		for _, u := range t.LUNs {
			if old := was[t.Name+"\x00"+u.Path]; old != "" && u.Store != "" && old != u.Store {
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
	now := time.Now()
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
			if old.Gone = stillKept(old.Gone, now); old.Gone != "" {
				targets = append(targets, old)
			}
			continue
		}
		targets[i].remember(old.LUNs, now)
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
	return nil
}

// remember keeps what is known of logical units that were there before.
func (t *ledgerTarget) remember(old []ledgerLUN, now time.Time) {
	byPath, numbers := make(map[string]*ledgerLUN), make(map[uint16]bool)
	for i := range t.LUNs {
		byPath[t.LUNs[i].Path], numbers[t.LUNs[i].LUN] = &t.LUNs[i], true
	}
	var gone []ledgerLUN
	for _, u := range old {
		if n := byPath[u.Path]; n != nil {
			if n.Store == "" { // one that can't be opened now is known all the same
				n.Store = u.Store
			}
			continue
		}
		if u.Gone = stillKept(u.Gone, now); u.Gone != "" && !numbers[u.LUN] {
			gone = append(gone, u)
		}
	}
	t.LUNs = append(t.LUNs, gone...)
}

// stillKept returns the day on which something went, today if that is new, and
// nothing if it is too long ago.
func stillKept(gone string, now time.Time) string {
	if gone == "" {
		return now.Format(time.DateOnly)
	}
	if day, err := time.Parse(time.DateOnly, gone); err == nil && now.Sub(day) > ledgerKeeps {
		return ""
	}
	return gone
}
