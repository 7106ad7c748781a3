// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// alignment is what O_DIRECT asks of a request, in bytes, powers of two. The
// zero alignment is that of a file in the page cache, which asks nothing.
type alignment struct {
	offset int64 // of the offset and the length
	memory uintptr
}

// maxBounce is the size of the buffers in which unaligned requests are done.
const maxBounce = 1 << 20

// directAlignment returns the alignment for fd, at least a block and a sector.
func directAlignment(fd int, block, sector int64) alignment {
	a := alignment{offset: max(block, sector), memory: 4096}
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	if err == nil && st.Mask&unix.STATX_DIOALIGN != 0 {
		a.offset = max(a.offset, powerOfTwo(int64(st.Dio_offset_align)))
	}
	return a
}

func (a alignment) direct() bool { return a.offset != 0 }

// whole tells whether n is a multiple of the offset's alignment.
func (a alignment) whole(n int64) bool {
	return a.offset == 0 || n&(a.offset-1) == 0
}

// suits tells whether p and off are aligned as O_DIRECT requires.
func (a alignment) suits(p []byte, off int64) bool {
	return a.offset == 0 ||
		a.whole(off|int64(len(p))) && uintptr(unsafe.Pointer(unsafe.SliceData(p)))&(a.memory-1) == 0
}

// cover returns the aligned range around the n bytes at off, cut to what fits
// a bounce buffer, and how many of the n bytes are in it.
func (a alignment) cover(off, n int64) (start, length, part int64) {
	start = off &^ (a.offset - 1)
	end := (off + n + a.offset - 1) &^ (a.offset - 1)
	length = min(end-start, maxBounce)
	return start, length, min(n, start+length-off)
}

// readUnaligned reads into a buffer that suits, and copies. The file has the
// whole blocks around the range, because its size is a multiple of them.
func (s *file) readUnaligned(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		at := off + int64(done)
		start, length, part := s.align.cover(at, int64(len(p)-done))
		buf := s.bounce.Get(int(length))
		_, err := s.pread(buf.B, start)
		if err == nil {
			copy(p[done:], buf.B[at-start:][:part])
		}
		buf.Release()
		if err != nil {
			return done, err
		}
		done += int(part)
	}
	return len(p), nil
}

// writeUnaligned writes from a buffer that suits, after reading into it the
// blocks of which the write covers a part only.
func (s *file) writeUnaligned(p []byte, off int64, flags uintptr) (int, error) {
	s.merge.Lock()
	defer s.merge.Unlock()
	for done := 0; done < len(p); {
		at := off + int64(done)
		start, length, part := s.align.cover(at, int64(len(p)-done))
		buf := s.bounce.Get(int(length))
		var err error
		if part < length {
			_, err = s.pread(buf.B, start)
		}
		if err == nil {
			copy(buf.B[at-start:], p[done:][:part])
			_, err = s.pwrite(buf.B, start, flags)
		}
		buf.Release()
		if err != nil {
			return done, err
		}
		done += int(part)
	}
	return len(p), nil
}
