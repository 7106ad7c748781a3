// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A store is a file or device as the system knows it, whatever path leads to
// it.
type store struct {
	device uint64 // of a block device itself; otherwise of the file system
	inode  uint64 // 0 for a block device
	path   string // for a file that is not there yet
}

// file checks a file or block device: it is there, or will be made; it can
// hold blocks; no other logical unit has it.
func (v *validator) file(t *Target, l *LUN, at string) {
	if l.Create {
		v.size(l, at)
	}
	if l.Create && l.ReadOnly {
		v.fail(at+".create", "a file that is made read-only stays empty")
	}
	if !v.path(l, at) {
		return
	}
	id, err := identifyStore(l.Path, l.Create)
	switch {
	case err != nil && v.cfg.IgnoreErrors:
		v.warn(at+".path", "%w; the logical unit will be missing", err)
		return
	case err != nil:
		v.fail(at+".path", "%w", err)
		return
	}
	if first, twice := v.stores[id]; twice {
		v.fail(at+".path", "%q is behind the logical unit at %s already", l.Path, v.before(first))
		return
	}
	v.stores[id] = at + ".path"
}

// identifyStore finds out which file or device path leads to. If it may be
// missing, the directory that it would be in is what counts.
func identifyStore(path string, mayBeMissing bool) (store, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if errors.Is(err, os.ErrNotExist) && mayBeMissing {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return store{}, cause(err, "can't make %q", path)
		}
		return store{path: filepath.Join(dir, filepath.Base(path))}, nil
	}
	if err != nil {
		return store{}, cause(err, "can't find %q", path)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Size == 0 {
			return store{}, cause(errors.New("it is empty"), "can't serve %q", path)
		}
		return store{device: st.Dev, inode: st.Ino}, nil
	case unix.S_IFBLK:
		return store{device: st.Rdev}, nil
	}
	return store{}, cause(errors.New("it is neither a regular file nor a block device"), "can't serve %q", path)
}
