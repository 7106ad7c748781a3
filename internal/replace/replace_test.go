// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "a"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o640), os.Symlink("a", link)); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), link)
	if err != nil {
		t.Fatal(err)
	}
	if string(f.Text) != "old" || f.Path != path {
		t.Errorf("%q at %s", f.Text, f.Path)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the folder is not locked: %v", err)
	}
	if err := errors.Join(f.Writable(), f.Keep(".bak"), f.Put([]byte("new"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{path: "new", link: "new", path + ".bak": "old"} {
		text, err := os.ReadFile(path)
		if err != nil || string(text) != want {
			t.Errorf("%s has %q, %v", path, text, err)
		}
	}
	for _, path := range []string{path, path + ".bak"} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != 0o640 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is none any more: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the lock stays: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 3 {
		t.Errorf("something is left: %v, %v", list, err)
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestLocked: whoever waits for another learns of it when it gives up, and who that is, and gets the
// file once it is free.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	tired := errors.New("tired")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*lockPause, tired)
	defer cancel()
	_, err = Open(ctx, path)
	var locked *LockedError
	if want := fmt.Sprintf("(PID %d)", os.Getpid()); !errors.As(err, &locked) || !errors.Is(err, tired) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
		t.Errorf("the file is locked: %v, want %q and %q in it", err, want, path)
	}
	second := make(chan error, 1)
	go func() {
		f, err := Open(t.Context(), path)
		if err == nil {
			err = f.Close()
		}
		second <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Errorf("after it was free: %v", err)
	}
}

// TestChangedMeanwhile has another program write the file before it is put, and before the
// old text is put back: what it wrote stays.
func TestChangedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := func(what, text string) {
		t.Helper()
		if now, err := os.ReadFile(path); err != nil || string(now) != text {
			t.Errorf("%s: the file has %q, %v, want %q", what, now, err, text)
		}
	}
	for _, text := range []string{"first", "second"} {
		if err := f.Put([]byte(text)); err != nil {
			t.Fatal(err)
		}
		want("put", text)
	}
	if err := os.WriteFile(path, []byte("edited"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(f.Text); !errors.Is(err, ErrChanged) {
		t.Errorf("after an edit in place: %v", err)
	}
	want("after an edit in place", "edited")
	f.Close()
	if f, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(os.WriteFile(path+"~", []byte("edited"), 0o600), os.Rename(path+"~", path)); err != nil {
		t.Fatal(err)
	}
	if err := f.Put([]byte("mine")); !errors.Is(err, ErrChanged) {
		t.Errorf("after another file was put there: %v", err)
	}
	want("after another file was put there", "edited")
}

func TestMakeFolder(t *testing.T) {
	dir := t.TempDir()
	deep, file := filepath.Join(dir, "a", "b"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := MakeFolder(deep, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(deep); err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if err := MakeFolder(file, 0o700); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file in the way: %v", err)
	}
	if err := MakeFolder(filepath.Join(file, "x"), 0o700); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file on the way: %v", err)
	}
}

// TestRestore puts the file itself back, for which a full file system needs no room.
func TestRestore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Put([]byte("new")), f.Put([]byte("newer")), f.Restore(), f.Put([]byte("newest")), f.Restore()); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || after.Size() != 3 {
		t.Errorf("another file was put back: %v, %v", after, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("something is left: %v, %v", list, err)
	}
	if f, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Put([]byte("mine")), os.WriteFile(path, []byte("edited"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := f.Restore(); !errors.Is(err, ErrChanged) {
		t.Errorf("after an edit: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "edited" {
		t.Errorf("after an edit: %q, %v", text, err)
	}
}
