// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
)

// A store is a file or device as the system knows it, whatever path leads to
// it.
type store struct {
	device uint64 // of a block device itself; otherwise of the file system
	inode  uint64 // 0 for a block device
	path   string // of a file that is not there yet; with the backend before it, of a driver's store
}

// system is what the operating system knows about stores.
type system struct {
	identify func(l *LUN) (store, error)
	check    func(o storage.Options) error // what speaks against opening
	find     func(backend string) (storage.Driver, string, bool)
}

var realSystem = system{identifyStore, storage.Check, storage.FindDriver}

// file checks a file or block device: it is there, or will be made; it can
// hold blocks; no other logical unit has it.
func (v *validator) file(t *Target, l *LUN, at string) {
	if l.Create && !l.ReadOnly || l.Size != 0 {
		v.size(l, at)
	}
	if l.Format != "" {
		v.oneOf(at+".format", l.Format, []string{storage.FormatRaw})
	}
	if l.Preallocate && l.Size == 0 {
		v.fail(at+".preallocate", "needs a size")
	}
	if !v.path(l, at) {
		return
	}
	id, err := v.system.identify(l)
	if err == nil && !v.starting {
		err = v.system.check(l.Options)
	}
	if err != nil {
		v.unavailable(t, l, at+".path", v.adviseToMake(l, err))
		return
	}
	v.leftOver(l, at)
	v.unique(id, l, at)
}

// adviseToMake adds to an error about a file that is missing how to have it made.
func (v *validator) adviseToMake(l *LUN, err error) error {
	if !errors.Is(err, os.ErrNotExist) || l.Create || v.cfg.language != formatYAML || v.cfg.Files == nil || strings.HasPrefix(l.Path, "/dev/") {
		return err
	}
	keys := "create: true"
	if l.Size == 0 {
		keys = "size and " + keys
	}
	return fmt.Errorf("%w (to have the file made, give %s)", err, keys)
}

// leftOver warns of what a file has beyond its last whole block.
func (v *validator) leftOver(l *LUN, at string) {
	_, size, err := storage.Identify(l.Path)
	if err != nil || size < l.Size && !l.ReadOnly {
		return
	}
	if n := size - l.Whole(size); n != 0 {
		v.warn(at+".path", "%q has %d bytes, no multiple of the block size, %d: the last %d bytes are left out", l.Path, size, l.BlockSize, n)
	}
}

// unavailable reports a store that can't be opened.
func (v *validator) unavailable(t *Target, l *LUN, at string, err error) {
	if v.cfg.IgnoreErrors || v.late != nil && v.late(t.Name, l.Number) {
		v.warn(at, "%w; the logical unit will not be ready", err)
		return
	}
	v.fail(at, "%w", err)
	v.errs[len(v.errs)-1].Unavailable = true
}

// unique checks that no other logical unit has the store.
func (v *validator) unique(id store, l *LUN, at string) {
	key, what := at+".path", l.Path
	if l.Path == "" {
		key, what = at+".backend", l.Backend
	}
	if first, twice := v.stores[id]; twice {
		v.fail(key, "%q is behind the logical unit at %s already", what, v.before(first))
		return
	}
	v.stores[id] = key
}

// identifyStore finds out which file or device the path of a logical unit leads
// to. If it may be missing, the directory that it would be in is what counts.
func identifyStore(l *LUN) (store, error) {
	var st unix.Stat_t
	path := l.Path
	err := unix.Stat(path, &st)
	if errors.Is(err, os.ErrNotExist) && l.Create && !l.ReadOnly {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("its folder %q is missing, and only a file is made: make the folder first", filepath.Dir(path))
		}
		if err != nil {
			return store{}, cause(err, "can't make %q", path)
		}
		return store{path: filepath.Join(dir, filepath.Base(path))}, nil
	}
	if errors.Is(err, os.ErrNotExist) && l.Create {
		return store{}, cause(errors.New("a file that is made read-only would stay empty"), "can't make %q", path)
	}
	if err != nil {
		return store{}, cause(err, "can't find %q", path)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Size == 0 && (l.Size == 0 || l.ReadOnly) {
			return store{}, cause(errors.New("it is empty"), "can't serve %q", path)
		}
		return store{device: st.Dev, inode: st.Ino}, nil
	case unix.S_IFBLK:
		return store{device: st.Rdev}, nil
	}
	return store{}, cause(errors.New("it is neither a regular file nor a block device"), "can't serve %q", path)
}
