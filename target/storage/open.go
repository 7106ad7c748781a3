// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"cmp"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/check"
	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// Options say what [OpenFile], or another [Driver], opens and how. The keys are those of a
// configuration; a field without one is the program's.
type Options struct {
	// Path is what the driver opens: for "file" a regular file or a block device.
	Path string `yaml:"path,omitempty"`

	// Size is the size in bytes of a regular file: of one that Create makes, and
	// one that is shorter grows to it, durably. One that is longer is an error,
	// since a file is never shrunk. With ReadOnly, and of a device, which do not grow, it
	// is the least that there must be: a store is never served short. 0: a file keeps its size.
	Size int64 `yaml:"size,omitempty,size"`

	// Progress, if set, is told before, while and after space is taken how many bytes
	// of how many there are. Its error ends that; what is taken by then the next
	// opening need not take again.
	Progress func(done, total int64) error

	// Create makes a sparse file of Size bytes where there is none. It also
	// gives that size to an empty file, which is what a crash during an
	// earlier creation may have left. It has no effect with ReadOnly (there is
	// nothing to be read in a new file) or InheritLock (the file that another
	// process serves is there).
	Create bool `yaml:"create,omitempty"`

	// Parameters are a driver's own, by name.
	Parameters map[string]string `yaml:"options,omitempty"`

	BlockOptions `yaml:",inline"`

	// Direct bypasses the page cache (O_DIRECT).
	Direct bool `yaml:"direct,omitempty"`

	// AllowInUse opens a device that the system uses, as one that is mounted, or a file that
	// another program has open for writing.
	AllowInUse bool `yaml:"allow-in-use,omitempty"`

	// Preallocate takes the whole space of a file that is made or grown.
	Preallocate bool `yaml:"preallocate,omitempty"`

	// Format is [FormatRaw], or empty: then a file in another format is refused.
	Format string `yaml:"format,omitempty"`

	// InheritLock opens without locking: the lock will come from the process
	// that serves the file now, by AdoptLock.
	InheritLock bool

	// Known, if set, tells whether the file was served as raw before. Then its
	// format is not looked at: a guest can write whatever it likes to the first
	// block of its disk, and must not keep it from being served.
	Known func(path string) bool
}

// BlockOptions are what a store and the logical unit over it have in common.
type BlockOptions struct {
	// ReadOnly refuses every write. A file is opened for reading alone then, under a shared lock.
	ReadOnly bool `yaml:"read-only,omitempty"`

	// BlockSize is the logical block size in bytes, 512 or 4096; 0 means 512. The
	// store's size is rounded down to whole blocks.
	BlockSize int `yaml:"block-size,omitempty"`

	// Thin says whether space is freed when an initiator says that it does not need it (UNMAP). nil: where
	// the store does so anyway, as a file does whose file system can. True asks a store that does not.
	Thin *bool `yaml:"thin,omitempty"`
}

// SetDefaults replaces a zero by its default.
func (o *BlockOptions) SetDefaults() { o.BlockSize = cmp.Or(o.BlockSize, 512) }

// Check tells of what is impossible, once the defaults are there.
func (o *BlockOptions) Check(fail check.Fail) {
	if !o.valid() {
		fail.Errorf("block-size", "%d is neither 512 nor 4096", o.BlockSize)
	}
}

func (o *BlockOptions) valid() bool { return o.BlockSize == 512 || o.BlockSize == 4096 }

// Whole returns n bytes but for those beyond the last whole block.
func (o *BlockOptions) Whole(n int64) int64 {
	if !o.valid() {
		return n
	}
	return n - n%int64(o.BlockSize)
}

// AsksThin reports whether Thin is set to true.
func (o *BlockOptions) AsksThin() bool { return o.Thin != nil && *o.Thin }

// FullyProvisioned reports whether Thin is set to false.
func (o *BlockOptions) FullyProvisioned() bool { return o.Thin != nil && !*o.Thin }

// blockSize returns BlockSize with its default.
func (o *BlockOptions) blockSize() int64 { return int64(cmp.Or(o.BlockSize, 512)) }

// OpenFile opens a regular file or a block device as a store and locks it
// against other daemons. Every error is an [*Error]; it wraps [ErrLocked] when
// another process serves the file.
//
// The store implements every optional interface of this package. What a file
// system or device can't do is done by writing zeros; whether discards free
// anything is in Info's Granularity.
func OpenFile(o Options) (Store, error) {
	o.SetDefaults()
	if err := check.Errors(o.BlockOptions.Check); err != nil {
		return nil, &Error{Op: "open", Path: o.Path, Err: err}
	}
	if err := Check(o); err != nil {
		return nil, err
	}
	f, err := openOrCreate(&o)
	if err != nil {
		return nil, err
	}
	s, err := newFile(f, &o)
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// openOrCreate opens the file that o names, makes it if it has to, and locks it.
func openOrCreate(o *Options) (*os.File, error) {
	create := o.Create && !o.ReadOnly && !o.InheritLock
	f, err := openPath(o, 0)
	made := create && errors.Is(err, unix.ENOENT)
	if made {
		if err := o.checkSize(); err != nil {
			return nil, err
		}
		f, err = openPath(o, unix.O_CREAT|unix.O_EXCL)
	}
	if made && errors.Is(err, unix.EEXIST) { // somebody else was faster
		made = false
		f, err = openPath(o, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := prepare(f, o, create); err != nil {
		if made && !errors.Is(err, ErrLocked) {
			unmake(f, o.Path)
		}
		f.Close()
		return nil, err
	}
	return f, nil
}

// unmake removes a file that was made in vain, unless space was taken that the next
// opening goes on with. We have its lock.
func unmake(f *os.File, path string) {
	var st unix.Stat_t
	if unix.Fstat(descriptor.Number(f), &st) == nil && st.Size == 0 && st.Blocks == 0 && leadsTo(path, &st) {
		_ = os.Remove(path)
	}
}

// leadsTo tells whether a path leads to a file.
func leadsTo(path string, file *unix.Stat_t) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Ino == file.Ino && st.Dev == file.Dev
}

// openPath is open(2) with o's flags and more.
func openPath(o *Options, more int) (*os.File, error) {
	// A FIFO would block in open(2) but for O_NONBLOCK; to files and block
	// devices, the only types that prepare lets pass, it means nothing.
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK | more
	if o.ReadOnly {
		flags = flags&^unix.O_RDWR | unix.O_RDONLY
	}
	if o.Direct {
		flags |= unix.O_DIRECT
	}
	for {
		fd, err := unix.Open(o.Path, flags, 0o600)
		if err == nil {
			return os.NewFile(uintptr(fd), o.Path), nil
		}
		if err != unix.EINTR {
			return nil, &Error{Op: "open", Path: o.Path, Err: err}
		}
	}
}

// prepare checks f's type, locks it, and gives it its size if it is to be
// created or to grow.
func prepare(f *os.File, o *Options, create bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(descriptor.Number(f), &st); err != nil {
		return &Error{Op: "open", Path: o.Path, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return &Error{Op: "open", Path: o.Path, Err: errors.New("neither a regular file nor a block device")}
	}
	if !o.InheritLock {
		if err := lock(f, o.Path, o.ReadOnly, kind == unix.S_IFBLK); err != nil {
			return err
		}
	}
	if kind != unix.S_IFREG || o.ReadOnly || o.Size == 0 && !create {
		return nil
	}
	// The size of before the lock may be that of a creation under way.
	if err := unix.Fstat(descriptor.Number(f), &st); err != nil {
		return &Error{Op: "open", Path: o.Path, Err: err}
	}
	if st.Size != 0 && st.Size >= o.Size {
		return nil
	}
	if !leadsTo(o.Path, &st) { // somebody has made it in vain, and removed it
		return &Error{Op: "open", Path: o.Path, Err: errors.New("it was removed while it was opened: try again")}
	}
	return allot(f, o, st.Size)
}
