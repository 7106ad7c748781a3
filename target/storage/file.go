// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/target/mem"
)

// file is the store of a regular file or a block device; a RAM store is built on
// one. A system call on a file can't be ended, so contexts count only between the
// calls of what is zeroed by writing.
type file struct {
	path        string
	id          string
	main        *os.File     // what reads and writes go to
	fd          atomic.Int64 // main's descriptor; -1 once closed
	size        atomic.Int64 // bytes, whole units
	unit        int64        // size is rounded down to a multiple of it
	granularity int64
	sector      int64 // fallocate(2) wants multiples of it: 1 but on devices
	device      bool
	readOnly    bool
	linked      bool // the file had a name at open, as far as the system tells
	align       alignment

	noNowait    atomic.Bool // RWF_NOWAIT was refused
	noZeroRange atomic.Bool // FALLOC_FL_ZERO_RANGE was refused
	throttle    throttle

	// merge keeps the other writes out while an unaligned direct one reads
	// the blocks at its ends, changes a part of them, and writes them back.
	merge  sync.RWMutex
	bounce mem.Pool // for what is unaligned

	lockMu sync.Mutex // protects held
	held   *os.File   // whose description holds the lock: main, or an adopted one
	// unread says that held is a predecessor's, and may have an error to report of what that wrote.
	unread atomic.Bool

	witness witness // of what can be written
}

var _ interface {
	Store
	TryReader
	TryWriter
	DurableWriter
	Discarder
	Zeroer
	Mapper
	Refresher
	Spacious
	Locked
} = (*file)(nil)

// newFile makes a store of f, which is locked and of the right type. On error
// f stays the caller's.
func newFile(f *os.File, o *Options) (*file, error) {
	fd := descriptor.Number(f)
	fail := func(err error) (*file, error) {
		return nil, &Error{Op: "open", Path: o.Path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	s := &file{
		path:     o.Path,
		id:       identity(&st),
		main:     f,
		device:   st.Mode&unix.S_IFMT == unix.S_IFBLK,
		readOnly: o.ReadOnly,
		linked:   st.Nlink > 0,
		held:     f,
	}
	s.fd.Store(int64(fd))
	var err error
	if s.sector, s.align, s.unit, err = o.units(fd, s.device); err != nil {
		return fail(err)
	}
	size, err := s.measure()
	if err != nil {
		return fail(err)
	}
	if size == 0 {
		return fail(fmt.Errorf("it holds no block of %d bytes", s.unit))
	}
	if err := o.tooShort(size, s.unit, s.device); err != nil {
		return fail(err)
	}
	s.size.Store(size)
	if s.readOnly {
		return s, nil
	}
	s.granularity = discardGranularity(fd, &st, size)
	if err := s.witness.open(fd, o.Path); err != nil {
		return fail(fmt.Errorf("once more, to be told of write errors: %w", err))
	}
	return s, nil
}

// units returns the sector of a file or device, the alignment that o makes it need, and what the size of
// its store is a multiple of.
func (o *Options) units(fd int, device bool) (sector int64, a alignment, unit int64, err error) {
	sector, unit = 1, o.blockSize()
	if device {
		n, err := unix.IoctlGetUint32(fd, unix.BLKSSZGET)
		if err != nil {
			return 0, a, 0, err
		}
		sector = int64(n)
	}
	if o.Direct {
		a = directAlignment(fd, unit, sector)
		unit = a.offset
	}
	return sector, a, unit, nil
}

// tooShort says why what has size bytes, in units, is not served: it has less than asked for
// and does not grow.
func (o *Options) tooShort(size, unit int64, device bool) error {
	if size-size%unit >= o.Size-o.Size%unit {
		return nil
	}
	rigid := "somebody has cut it while it was opened"
	switch {
	case device:
		rigid = "it is a device"
	case o.ReadOnly:
		rigid = "it is opened for reading alone"
	}
	return fmt.Errorf("it has %s, less than the size of %s, and does not grow, as %s: find out where the rest is, or lower size or leave it out",
		bytesText(size), bytesText(o.Size), rigid)
}

// Info returns the store's properties.
func (s *file) Info() Info {
	return Info{Type: "rdwr", Path: s.path, ID: s.id, Size: s.size.Load(), ReadOnly: s.readOnly, Granularity: s.granularity}
}

// Flush makes completed writes durable, as fdatasync(2) does. It fails with
// ENOENT when the file has been unlinked: what it holds will not outlive this
// process, whatever the disk says.
func (s *file) Flush(context.Context) error {
	if err := s.sync(); err != nil {
		return &Error{Op: "flush", Path: s.path, Err: err}
	}
	return nil
}

// sync is fdatasync(2), and the check that it was of any use.
func (s *file) sync() error {
	err := syncDescription(int(s.fd.Load()))
	if err == nil {
		err = s.syncInherited()
	}
	if err == nil {
		err = s.named()
	}
	return s.witness.ask(err)
}

// syncInherited flushes by way of the predecessor's description, once. The system reports a write
// that has failed in the background once to each description, and to one that is opened
// later only if nobody was told before. So if another program has flushed the file between that failure and
// the upgrade, the predecessor's description alone has the report.
func (s *file) syncInherited() error {
	if !s.unread.Load() {
		return nil
	}
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	err := syncDescription(descriptor.Number(s.held))
	s.unread.Store(false)
	return err
}

func syncDescription(fd int) error {
	for {
		if err := fdatasync(fd); err != unix.EINTR {
			return err
		}
	}
}

// named returns ENOENT when the file has lost its last name.
func (s *file) named() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.fd.Load()), &st); err != nil {
		return err
	}
	return s.vanished(&st)
}

// vanished is named for a file whose status is known.
func (s *file) vanished(st *unix.Stat_t) error {
	if s.linked && st.Nlink == 0 {
		return unix.ENOENT
	}
	return nil
}

// measure returns the size now, in bytes, rounded down to whole units.
func (s *file) measure() (int64, error) {
	fd := int(s.fd.Load())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if err := s.vanished(&st); err != nil {
		return 0, err
	}
	size := st.Size
	if s.device {
		var err error
		if size, err = deviceSize(fd); err != nil {
			return 0, err
		}
	}
	return size - size%s.unit, nil
}

// Refresh measures the file anew. A vanished file is ENOENT.
func (s *file) Refresh(context.Context) (int64, error) {
	size, err := s.measure()
	if err != nil {
		return 0, &Error{Op: "measure", Path: s.path, Err: err}
	}
	s.size.Store(size)
	return size, nil
}

// Close releases the store, and its lock unless another process holds the
// lock's file too. Calls after Close fail with EBADF.
func (s *file) Close() error {
	if s.fd.Swap(-1) < 0 {
		return &Error{Op: "close", Path: s.path, Err: fs.ErrClosed}
	}
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	var err error
	if s.held != s.main {
		err = s.held.Close()
	}
	if err = errors.Join(err, s.witness.close(), s.main.Close()); err != nil {
		return &Error{Op: "close", Path: s.path, Err: err}
	}
	return nil
}
