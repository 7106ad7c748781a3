// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestIdentity looks at a file by two names, at another in its place, and at
// one that grows.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	make1 := func(path string, size int64) {
		t.Helper()
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	make1(path, 1<<20)
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFile(Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := s.Info().ID
	if id == "" {
		t.Fatal("an open file has no ID")
	}
	look := func(path string) (string, int64) {
		t.Helper()
		id, size, err := Identify(path)
		if err != nil {
			t.Fatal(err)
		}
		return id, size
	}
	if got, size := look(link); got != id || size != 1<<20 {
		t.Errorf("by another name: %s of %d bytes, want %s", got, size, id)
	}
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if got, size := look(path); got != id || size != 2<<20 {
		t.Errorf("after growing: %s of %d bytes, want %s", got, size, id)
	}
	other := filepath.Join(dir, "new")
	make1(other, 1<<20)
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if got, _ := look(path); got == id {
		t.Error("another file in the same place is taken for the first one")
	}
	if _, _, err := Identify(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there has an identity")
	}
}

// TestExisted asks when a file was made.
func TestExisted(t *testing.T) {
	before := time.Now().Add(-time.Hour)
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, before, before); err != nil { // that it was changed says nothing
		t.Fatal(err)
	}
	for at, want := range map[time.Time]bool{before: false, time.Now().Add(time.Hour): true} {
		if got := Existed(path, at); got != want {
			t.Errorf("%v: %v, want %v", at, got, want)
		}
	}
	if Existed(path+".none", time.Now().Add(time.Hour)) {
		t.Error("a file that is not there existed")
	}
}

func TestLasting(t *testing.T) {
	for id, want := range map[string]bool{
		"device:naa.5000c500a1b2c3d4": true, "device:LVM-hPLCnI2bXyG": true, "device:eui.0025-part1": true,
		"device:8:16": false, "file:8:1:131": false, "loop:file:8:1:131+0": false, "": false,
	} {
		if got := Lasting(id); got != want {
			t.Errorf("%q: %v, want %v", id, got, want)
		}
	}
}
