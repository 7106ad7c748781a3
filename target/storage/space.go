// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zeroRange = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
)

// zeros is what is written where zeros can't be had otherwise. Nothing ever
// writes to it, so the system backs it with its one page of zeros. It begins
// at a page, as O_DIRECT wants.
var (
	zeroPages [1<<20 + 4096]byte
	zeros     = zeroPages[-uintptr(unsafe.Pointer(&zeroPages))&4095:][: 1<<20 : 1<<20]
)

// Discard frees the range as far as whole units of Info's Granularity lie in
// it. All of it reads as zeros afterwards, also where nothing can be freed.
func (s *file) Discard(ctx context.Context, off, n int64) error {
	err := s.writable(off, n)
	if err == nil && n > 0 {
		err = unix.EOPNOTSUPP
		if s.granularity > 0 {
			err = s.allocate(ctx, punchHole, off, n)
		}
		if unsupported(err) {
			err = s.writeZeros(ctx, off, n)
		}
	}
	if err != nil {
		return s.fail("discard", off, n, err)
	}
	return nil
}

// WriteZeroes makes the range read as zeros and keeps its space, quickly where
// the file system or device can.
func (s *file) WriteZeroes(ctx context.Context, off, n int64) error {
	err := s.writable(off, n)
	if err == nil && n > 0 {
		err = unix.EOPNOTSUPP
		if !s.noZeroRange.Load() {
			err = s.allocate(ctx, zeroRange, off, n)
		}
		if unsupported(err) {
			s.noZeroRange.Store(true)
			err = s.writeZeros(ctx, off, n)
		}
	}
	if err != nil {
		return s.fail("zero", off, n, err)
	}
	return nil
}

// allocate is fallocate(2) for a mode that leaves zeros behind. A device takes
// only whole sectors of it; the ends are written.
func (s *file) allocate(ctx context.Context, mode uint32, off, n int64) error {
	end := off + n
	first := (off + s.sector - 1) / s.sector * s.sector
	last := end / s.sector * s.sector
	if first >= last {
		return s.writeZeros(ctx, off, n)
	}
	if err := s.fallocate(mode, first, last-first); err != nil {
		return err
	}
	if err := s.writeZeros(ctx, off, first-off); err != nil {
		return err
	}
	return s.writeZeros(ctx, last, end-last)
}

func (s *file) fallocate(mode uint32, off, n int64) error {
	s.merge.RLock()
	defer s.merge.RUnlock()
	for {
		err := unix.Fallocate(int(s.fd.Load()), mode, off, n)
		if err != unix.EINTR {
			return err
		}
	}
}

func (s *file) writeZeros(ctx context.Context, off, n int64) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		m := min(n, int64(len(zeros)))
		if _, err := s.write(zeros[:m], off, 0); err != nil {
			return err
		}
		off += m
		n -= m
	}
	return nil
}

// Extent tells where the file has data, as far as the file system says. Space
// that is allocated but was never written counts as a hole, since it reads as
// zeros just so. What can't tell its holes (a device) is all data.
func (s *file) Extent(_ context.Context, off int64) (int64, bool, error) {
	size := s.size.Load()
	left := size - off
	if off < 0 || left <= 0 {
		return 0, false, s.fail("map", off, left, errPastEnd)
	}
	fd := int(s.fd.Load())
	data, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: // only a hole from here
		return left, false, nil
	case err == unix.EINVAL || unsupported(err):
		return left, true, nil
	case err != nil:
		return 0, false, s.fail("map", off, left, err)
	}
	// A block that has any data in it is data.
	if hole := (data - off) / s.unit * s.unit; hole > 0 {
		return min(hole, left), false, nil
	}
	hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
	if err != nil && err != unix.ENXIO { // ENXIO: cut off in between
		return 0, false, s.fail("map", off, left, err)
	}
	n := (hole - off + s.unit - 1) / s.unit * s.unit
	// Where a discard came in between, one block's worth is still true enough.
	return min(max(n, s.unit), left), true, nil
}

// Space tells what the file takes of its file system. Of a device that is not known.
func (s *file) Space(context.Context) (Space, error) {
	if s.device {
		return Space{}, errors.ErrUnsupported
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	fd := int(s.fd.Load())
	if err := unix.Fstat(fd, &st); err != nil {
		return Space{}, &Error{Op: "measure", Path: s.path, Err: err}
	}
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return Space{}, &Error{Op: "measure", Path: s.path, Err: err}
	}
	return Space{Allocated: st.Blocks * 512, Free: int64(fs.Bavail) * fs.Bsize, Total: int64(fs.Blocks) * fs.Bsize}, nil
}

// discardGranularity returns how many bytes a discard frees at the least in
// the open file of size bytes, 0 when none are freed.
func discardGranularity(fd int, st *unix.Stat_t, size int64) int64 {
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return queueGranularity(deviceQueue("/sys", st.Rdev))
	}
	// Whether the file system can punch holes is found out by punching one
	// where the file has nothing to lose: past its end.
	past := (max(size, st.Size) + 1<<20) &^ (1<<20 - 1)
	if err := unix.Fallocate(fd, punchHole, past, 4096); err != nil {
		return 0
	}
	return powerOfTwo(int64(st.Blksize))
}
