// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Folder returns why a folder is none to keep private files or sockets in, nil if it is: it
// must belong to this process's user, to root, or to one of the owners, and nobody else may be
// able to make, replace or remove files in it, nor to put another folder in its place.
func Folder(path string, owners ...int) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	trusted := func(uid uint32) bool { return trusted(uid) || slices.Contains(owners, int(uid)) }
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%q is no folder", path)
	case !trusted(st.Uid):
		return fmt.Errorf("%q belongs to another user (UID %d): give it to UID %d (chown), or name another folder", path, st.Uid, os.Geteuid())
	case others(st.Mode, st.Gid):
		return fmt.Errorf("%q can be written by others (mode %04o): take that from them (chmod go-w), or name another folder", path, st.Mode&0o7777)
	}
	err = above(path, trusted)
	if err == nil && real != path {
		err = above(real, trusted)
	}
	return err
}

// above looks at the folders on the way to one: who can rename an entry of any of them can put
// another folder in its place. In those with the sticky bit, such as /tmp, that is the
// entry's owner alone.
func above(path string, trusted func(uid uint32) bool) error {
	for path != "/" {
		path = filepath.Dir(path)
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		switch {
		case !trusted(st.Uid):
			return fmt.Errorf("%q, above it, belongs to another user (UID %d)", path, st.Uid)
		case others(st.Mode, st.Gid) && st.Mode&unix.S_ISVTX == 0:
			return fmt.Errorf("%q, above it, can be written by others (mode %04o): take that from them (chmod go-w)", path, st.Mode&0o7777)
		}
	}
	return nil
}

// trusted reports whether a user may do as this process likes anyway.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// others reports whether somebody else can write: anybody, or a group that is neither
// this process's own nor root's.
func others(mode, gid uint32) bool {
	return mode&0o002 != 0 || mode&0o020 != 0 && gid != 0 && int(gid) != os.Getegid()
}

// ReadPrivate opens a file that only this process's user or root can have written. A
// symbolic link in its place is an error.
func ReadPrivate(path string) (*os.File, error) {
	// Without O_NONBLOCK, a FIFO in the file's place would hold everything up.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%q is a symbolic link: put the file itself there", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = fmt.Errorf("%q is not a regular file", path)
	case !trusted(st.Uid):
		err = fmt.Errorf("%q belongs to another user (UID %d)", path, st.Uid)
	case others(st.Mode, st.Gid):
		err = fmt.Errorf("%q can be written by others (mode %04o): take that from them (chmod go-w)", path, st.Mode&0o7777)
	default:
		return f, nil
	}
	f.Close()
	return nil, err
}

// Create makes a file for this process's user alone, to be written and renamed. What an
// attempt of before has left there goes; anything else at path is an error, and nothing is written
// through it.
func Create(path string) (*os.File, error) {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return nil, &fs.PathError{Op: "lstat", Path: path, Err: err}
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return nil, fmt.Errorf("%q is a symbolic link, which nothing is written through: remove it", path)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("%q is in the way, and is not a regular file: remove it", path)
	case !trusted(st.Uid):
		return nil, fmt.Errorf("%q is in the way, and belongs to another user (UID %d): remove it", path, st.Uid)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
}
