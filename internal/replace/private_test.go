// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/test/peer"
)

// refused expects an error that says all of want.
func refused(t *testing.T, what string, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v, want it to say %q", what, err, w)
		}
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	inner, link := filepath.Join(dir, "inner"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(inner, 0o755), os.Symlink(inner, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{inner, link} {
		if err := Folder(path); err != nil {
			t.Errorf("a folder of one's own: %v", err)
		}
	}
	chmod := func(path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	chmod(inner, 0o777|os.ModeSticky)
	refused(t, "a folder like /tmp", Folder(inner), inner, "mode 1777", "chmod go-w")
	refused(t, "a link to it", Folder(link), link, "mode 1777")
	chmod(inner, 0o777)
	refused(t, "a folder of everybody's", Folder(inner), inner, "mode 0777", "chmod go-w")
	chmod(inner, 0o755)
	chmod(dir, 0o777)
	refused(t, "a folder that can be replaced", Folder(inner), dir, "above it")
	chmod(dir, 0o777|os.ModeSticky)
	if err := Folder(inner); err != nil {
		t.Errorf("a folder in one like /tmp: %v", err)
	}
	refused(t, "nothing", Folder(filepath.Join(dir, "none")), "none")
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, "a file", Folder(filepath.Join(dir, "file")), "is no folder")
}

// TestOwners needs files of another user, which only root can make.
func TestOwners(t *testing.T) {
	peer.NeedRoot(t)
	const other = 12345
	dir := t.TempDir()
	inner, file := filepath.Join(dir, "inner"), filepath.Join(dir, "file")
	if err := errors.Join(os.Mkdir(inner, 0o755), os.WriteFile(file, nil, 0o600), os.Chown(inner, other, -1), os.Chown(file, other, -1)); err != nil {
		t.Fatal(err)
	}
	refused(t, "a folder of another user", Folder(inner), inner, "another user")
	if err := Folder(inner, other); err != nil {
		t.Errorf("a folder of somebody who may: %v", err)
	}
	_, err := ReadPrivate(file)
	refused(t, "to read a file of another user", err, file, "another user")
	_, err = Create(file)
	refused(t, "to make a file where one of another user is", err, file, "another user")
	if err := errors.Join(os.Chown(inner, 0, other), os.Chmod(inner, 0o775)); err != nil {
		t.Fatal(err)
	}
	refused(t, "a folder of another group", Folder(inner), inner, "mode 0775")
	if err := os.Chown(inner, other, 0); err != nil {
		t.Fatal(err)
	}
	refused(t, "a folder below that of another user", Folder(inner), inner, "another user")
}

// TestNothingThroughLinks: neither what is at the end of a link nor a FIFO is read or written.
func TestNothingThroughLinks(t *testing.T) {
	dir := t.TempDir()
	victim, link, fifo := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), os.Symlink(victim, link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	_, err := Create(link)
	refused(t, "to write through a link", err, link, "symbolic link")
	_, err = ReadPrivate(link)
	refused(t, "to read through a link", err, link, "symbolic link")
	_, err = Create(fifo)
	refused(t, "to write a FIFO", err, fifo, "not a regular file")
	_, err = ReadPrivate(fifo)
	refused(t, "to read a FIFO", err, fifo, "not a regular file")
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the end of the link holds %q, %v", b, err)
	}
	if err := os.Chmod(victim, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = ReadPrivate(victim)
	refused(t, "to read what everybody can write", err, victim, "mode 0666")
}

// TestCreate writes anew what an attempt of before has left.
func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("what is left"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != 0 || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	g, err := ReadPrivate(path)
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
}
