// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// Length returns the length of a store's regular file, in bytes, as another process may have made it since the store was
// opened. Other stores, and those that are only read, have none.
func Length(s Store) (n int64, ok bool) {
	if _, st := growable(s); st != nil {
		return st.Size, true
	}
	return 0, false
}

// CutBack gives the file of a store the length back that Length has told, if it is longer now. That is for a process
// that has grown it (see [Options.Size]) and did not come to serve it: with the old size in the configuration
// the file would be refused. Nothing is cut away that was written: the file is left as it is then, which is an error.
func CutBack(s Store, length int64) error {
	f, st := growable(s)
	if st == nil || st.Size <= length {
		return nil
	}
	err := cutHole(descriptor.Number(f), length)
	if err != nil {
		err = fmt.Errorf("it has %s, which a process has made of %s that then failed to serve it: %w", bytesText(st.Size), bytesText(length), err)
		return &Error{Op: "shorten", Path: s.Info().Path, Err: err}
	}
	return nil
}

// growable returns the file of a store whose file may have been grown, and nil otherwise.
func growable(s Store) (*os.File, *unix.Stat_t) {
	if s == nil {
		return nil, nil
	}
	l, info := Can(s).Locked, s.Info()
	if l == nil || info.ReadOnly {
		return nil, nil
	}
	f := l.LockFile()
	if f == nil {
		return nil, nil
	}
	var st unix.Stat_t
	if unix.Fstat(descriptor.Number(f), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !leadsTo(info.Path, &st) {
		return nil, nil
	}
	return f, &st
}

// cutHole makes a file shorter, durably, if there is nothing in what is cut off.
func cutHole(fd int, length int64) error {
	if !holeBeyond(fd, length) {
		return errors.New("something was written beyond that, so it stays so long: raise size in the configuration, or leave it out")
	}
	if err := unix.Ftruncate(fd, length); err != nil {
		return err
	}
	return unix.Fsync(fd)
}

// holeBeyond tells whether a file holds nothing from an offset on. Space that was taken and not written to is nothing.
func holeBeyond(fd int, off int64) bool {
	_, err := unix.Seek(fd, off, unix.SEEK_DATA)
	return err == unix.ENXIO
}
