// SPDX-License-Identifier: Apache-2.0

// Package replace changes a file that others read and change too: all of it or
// nothing is there at any time, and one change is made after another.
package replace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// File is a file that is about to be changed. Until Close, whoever opens a
// file of the same folder with this package waits.
type File struct {
	Path string // without symbolic links
	Text []byte // as it was when it was opened

	info os.FileInfo
	dir  *os.File // locked
	old  string   // where the file of before Put is, empty: nowhere
}

// Open locks and reads a file. Until ctx ends it waits for whoever has it open with this package;
// the error is a [*LockedError] then.
func Open(ctx context.Context, path string) (*File, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	f := &File{Path: path, dir: dir}
	if err := lock(ctx, dir, path); err != nil {
		dir.Close()
		return nil, err
	}
	if f.info, err = os.Stat(path); err == nil {
		f.Text, err = os.ReadFile(path)
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return f, nil
}

// Close lets others change the file.
func (f *File) Close() error {
	if f.old != "" {
		_ = os.Remove(f.old)
	}
	return f.dir.Close()
}

// Writable returns an error if the file can't be replaced.
func (f *File) Writable() error {
	if err := unix.Access(f.dir.Name(), unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("can't write %s: no files can be made in its folder (%w): do this as its owner or as root", f.Path, err)
	}
	return nil
}

// ErrChanged is the error of [File.Put] when somebody who does not use this package has
// changed the file meanwhile.
var ErrChanged = errors.New("another program has changed it meanwhile")

// Put puts a file with this text in the place of the file, with its owner and
// mode. What an editor or another program has written there since Open, or since the last
// Put, stays: [ErrChanged]. After an error the file is as before.
func (f *File) Put(text []byte) error {
	now, err := os.Stat(f.Path)
	if err != nil {
		return err
	}
	if !f.same(now) {
		return ErrChanged
	}
	f.keepOld()
	if err := f.write(f.Path, text); err != nil {
		return errors.Join(err, f.undo())
	}
	f.info, err = os.Stat(f.Path)
	return err
}

func (f *File) same(now os.FileInfo) bool {
	return os.SameFile(now, f.info) && now.Size() == f.info.Size() && now.ModTime().Equal(f.info.ModTime())
}

// keepOld gives the file that is to be replaced another name, so that it can be put back when the file system is full.
// Where there are no such links, Restore writes the text once more.
func (f *File) keepOld() {
	if f.old != "" {
		return // it is the first one that counts
	}
	old := aside(f.Path, oldSuffix)
	if os.Link(f.Path, old) == nil {
		f.old = old
	}
}

// undo puts the old file back if the new one is in its place: what could not be done then is to make that
// durable.
func (f *File) undo() error {
	now, err := os.Stat(f.Path)
	if err != nil || os.SameFile(now, f.info) {
		return err
	}
	return f.putBack()
}

// Restore puts the file of before Put back, unless another program has changed it since.
func (f *File) Restore() error {
	now, err := os.Stat(f.Path)
	if err != nil {
		return err
	}
	if !f.same(now) {
		return ErrChanged
	}
	return f.putBack()
}

func (f *File) putBack() (err error) {
	if f.old == "" {
		err = f.write(f.Path, f.Text)
	} else if err = os.Rename(f.old, f.Path); err == nil {
		f.old = ""
		err = SyncFolder(filepath.Dir(f.Path))
	}
	if err != nil {
		return err
	}
	f.info, err = os.Stat(f.Path)
	return err
}

// Keep keeps the text that the file had beside it, with a suffix to its name.
func (f *File) Keep(suffix string) error { return f.write(f.Path+suffix, f.Text) }

func (f *File) write(path string, text []byte) error {
	st := f.info.Sys().(*syscall.Stat_t)
	return Write(path, text, f.info.Mode().Perm(), int(st.Uid), int(st.Gid))
}

// Write puts a file in place of whatever is at path, with this owner and mode.
// It is on stable storage then.
func Write(path string, text []byte, mode fs.FileMode, uid, gid int) (err error) {
	aside := aside(path, newSuffix)
	w, err := Create(aside)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(aside)
		}
	}()
	// The lock tells Sweep that somebody writes; where there is none, the PID does.
	_ = unix.Flock(descriptor.Number(w), unix.LOCK_EX|unix.LOCK_NB)
	_, err = w.Write(text)
	if uid != os.Geteuid() || gid != os.Getegid() {
		err = errors.Join(err, w.Chown(uid, gid))
	}
	err = errors.Join(err, w.Chmod(mode), w.Sync(), w.Close())
	if err == nil {
		err = os.Rename(aside, path)
	}
	if err == nil {
		err = SyncFolder(filepath.Dir(path))
	}
	return err
}

// MakeFolder makes a folder, and those above it that are missing, so that they outlast a power cut.
// One that is there is left as it is.
func MakeFolder(path string, mode fs.FileMode) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
		}
		return nil
	}
	above := filepath.Dir(path)
	if above == path {
		return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOENT}
	}
	if err := MakeFolder(above, mode); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncFolder(above)
}
