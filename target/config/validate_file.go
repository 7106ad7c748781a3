// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage/plugin"
)

// A store is a file or device as the system knows it, whatever path leads to
// it.
type store struct {
	device uint64 // of a block device itself; otherwise of the file system
	inode  uint64 // 0 for a block device
	path   string // of a file that is not there yet; with the backend before it, of a plug-in's store
}

// system is what the operating system knows about stores.
type system struct {
	identify func(path string, mayBeMissing bool) (store, error)
	inUse    func(path string) bool // whether the system uses a block device

	registered func(plugin string) error // nil if gotgt's registry has the plug-in
}

var realSystem = system{identifyStore, deviceInUse, plugin.Registered}

// isDevice reports whether the store is a block device.
func (s store) isDevice() bool { return s.inode == 0 && s.path == "" }

// deviceInUse reports whether a block device is mounted, a part of a RAID or
// used by the system in another way: Linux lets no one open it exclusively
// then. That gotgtd itself has it open does not count.
func deviceInUse(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.EBUSY)
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
	id, err := v.system.identify(l.Path, l.Create)
	if err == nil && id.isDevice() && !l.AllowInUse && v.system.inUse(l.Path) {
		err = fmt.Errorf("%q is in use by the system, mounted perhaps (see allow-in-use)", l.Path)
	}
	if err != nil {
		v.unavailable(at+".path", err)
		return
	}
	v.unique(id, l, at)
}

// unavailable reports a store that can't be opened.
func (v *validator) unavailable(at string, err error) {
	if v.cfg.IgnoreErrors {
		v.warn(at, "%w; the logical unit will be missing", err)
		return
	}
	v.fail(at, "%w", err)
}

// unique checks that no other logical unit has the store.
func (v *validator) unique(id store, l *LUN, at string) {
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
