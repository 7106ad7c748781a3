// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadAt fills p from off. The error, an [*Error], wraps io.ErrUnexpectedEOF
// when the file ends before.
func (s *file) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := s.read(p, off)
	if err != nil {
		return n, s.fail("read", off, int64(len(p)), err)
	}
	return n, nil
}

func (s *file) read(p []byte, off int64) (int, error) {
	if err := CheckRange(off, int64(len(p)), s.size.Load()); err != nil {
		return 0, err
	}
	if !s.align.suits(p, off) {
		return s.readUnaligned(p, off)
	}
	return s.pread(p, off)
}

// TryReadAt fills p from the page cache, or returns [ErrWouldBlock] if not
// all of it is there. It leaves every other trouble to be found by ReadAt.
func (s *file) TryReadAt(p []byte, off int64) (int, error) {
	// A direct read always goes to the device.
	if s.align.direct() || s.noNowait.Load() || !inside(off, int64(len(p)), s.size.Load()) {
		return 0, ErrWouldBlock
	}
	n, errno := vector(unix.SYS_PREADV2, int(s.fd.Load()), p, off, unix.RWF_NOWAIT)
	if errno == 0 && n == len(p) {
		return n, nil
	}
	if unsupported(errno) {
		s.noNowait.Store(true)
	}
	return 0, ErrWouldBlock
}

// WriteAt writes p at off. It never makes the file longer.
func (s *file) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := s.write(p, off, 0)
	if err != nil {
		return n, s.fail("write", off, int64(len(p)), err)
	}
	return n, nil
}

// TryWriteAt writes p to the page cache, or returns [ErrWouldBlock] when that has
// made somebody wait lately.
func (s *file) TryWriteAt(p []byte, off int64) (int, error) {
	start := time.Since(began)
	if s.align.direct() || s.throttle.on(start) {
		return 0, ErrWouldBlock
	}
	n, err := s.WriteAt(context.Background(), p, off)
	s.throttle.note(start, time.Since(began))
	return n, err
}

// WriteDurableAt writes p at off and returns when it is on stable storage. As
// with Flush, a file that has been unlinked is ENOENT. An error wraps [ErrDropped] if it says
// that earlier writes may be lost, and not this one alone.
func (s *file) WriteDurableAt(_ context.Context, p []byte, off int64) (int, error) {
	n, err := s.write(p, off, dsync)
	if unsupported(err) {
		if n, err = s.write(p, off, 0); err == nil {
			err = s.sync()
		}
	} else {
		if err == nil {
			err = s.named()
		}
		err = s.witness.ask(err)
	}
	if err != nil {
		return n, s.fail("write", off, int64(len(p)), err)
	}
	return n, nil
}

// write is every write's way to the file; flags are those of pwritev2(2).
func (s *file) write(p []byte, off int64, flags uintptr) (int, error) {
	if err := s.writable(off, int64(len(p))); err != nil {
		return 0, err
	}
	if !s.align.direct() {
		return s.pwrite(p, off, flags)
	}
	if !s.align.suits(p, off) {
		return s.writeUnaligned(p, off, flags)
	}
	s.merge.RLock()
	defer s.merge.RUnlock()
	return s.pwrite(p, off, flags)
}

// writable is the gate of everything that changes a range.
func (s *file) writable(off, n int64) error {
	if s.readOnly {
		return unix.EROFS
	}
	return CheckRange(off, n, s.size.Load())
}

// fail wraps the cause of what went wrong with a range.
func (s *file) fail(op string, off, n int64, err error) error {
	return &Error{Op: op, Path: s.path, Off: off, Len: n, Err: err}
}

// pread reads until p is full. p suits the alignment.
func (s *file) pread(p []byte, off int64) (int, error) {
	fd := int(s.fd.Load())
	for n := 0; n < len(p); {
		m, err := unix.Pread(fd, p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0 || !s.align.whole(int64(m)): // a part of a block is the last
			return n + m, errPastEnd
		default:
			n += m
		}
	}
	return len(p), nil
}

// pwrite writes until p is done. p suits the alignment.
func (s *file) pwrite(p []byte, off int64, flags uintptr) (int, error) {
	fd := int(s.fd.Load())
	for n := 0; n < len(p); {
		m, errno := vector(unix.SYS_PWRITEV2, fd, p[n:], off+int64(n), flags)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return n, errno
		case m == 0:
			return n, unix.ENOSPC
		default:
			n += m
		}
	}
	return len(p), nil
}

// vector is preadv2(2) or pwritev2(2) with a single buffer. The functions of
// the same names in package unix put their vector on the heap.
func vector(trap uintptr, fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	// The offset goes in two halves, of which 64-bit systems use the first.
	n, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(uint64(off)>>32), flags)
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// unsupported tells whether err is how a system says that it has no such
// operation, or not for this file.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}
