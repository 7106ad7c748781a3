// SPDX-License-Identifier: Apache-2.0

package power

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"golang.org/x/sys/unix"
)

// maxCached is how much a disk's cache holds, in bytes; what is older is on its medium.
const maxCached = 64 << 20

// A disk has a volatile write cache: what was written is on the medium after a flush, and before
// that as the disk likes. A power cut decides for each sector which of the writes since
// the flush it has kept.
type disk struct {
	sector int // what is written whole or not at all, in bytes

	mu     sync.Mutex // protects what follows
	now    []byte     // what reads give
	medium []byte
	cached []cachedWrite // in the order of their writes
	bytes  int           // of cached
	broken bool          // writes and flushes fail
}

type cachedWrite struct {
	off  int64
	data []byte
}

// newDisk makes a disk of zeros; size and sector are in bytes. Memory is used for what is written.
func newDisk(size int64, sector int) (*disk, error) {
	d := &disk{sector: sector}
	for _, part := range []*[]byte{&d.now, &d.medium} {
		m, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
		if err != nil {
			d.close()
			return nil, fmt.Errorf("can't have %d bytes of memory for a disk: %w", size, err)
		}
		*part = m
	}
	return d, nil
}

// erase makes the disk one of zeros again.
func (d *disk) erase() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cached, d.bytes = nil, 0
	return errors.Join(unix.Madvise(d.now, unix.MADV_DONTNEED), unix.Madvise(d.medium, unix.MADV_DONTNEED))
}

// close gives the memory back. Nothing may use the disk any more.
func (d *disk) close() {
	for _, part := range [][]byte{d.now, d.medium} {
		if part != nil {
			_ = unix.Munmap(part) // fails for what is not mapped only
		}
	}
	d.now, d.medium = nil, nil
}

func (d *disk) size() int64 { return int64(len(d.now)) }

// inside reports whether the disk has all of a range.
func (d *disk) inside(off int64, n int) bool {
	return off >= 0 && int64(n) <= d.size() && off <= d.size()-int64(n)
}

func (d *disk) read(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.inside(off, len(p)) {
		return unix.EINVAL
	}
	copy(p, d.now[off:])
	return nil
}

// write puts p into the cache and keeps it.
func (d *disk) write(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.inside(off, len(p)) || off%int64(d.sector) != 0 || len(p)%d.sector != 0:
		return unix.EINVAL
	case d.broken:
		return unix.EIO
	}
	copy(d.now[off:], p)
	d.cached = append(d.cached, cachedWrite{off, p})
	d.bytes += len(p)
	for d.bytes > maxCached {
		d.settle(d.cached[:1])
		d.cached = d.cached[1:]
	}
	return nil
}

// settle brings writes to the medium; the lock is held.
func (d *disk) settle(writes []cachedWrite) {
	for _, w := range writes {
		copy(d.medium[w.off:], w.data)
		d.bytes -= len(w.data)
	}
}

func (d *disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return unix.EIO
	}
	d.settle(d.cached)
	d.cached = nil
	return nil
}

// fail makes writes and flushes fail, or succeed again.
func (d *disk) fail(broken bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = broken
}

// cut is a power cut. Of what was written since the last flush the disk keeps, for each sector,
// what one of these writes has put there, or nothing of it: with probability keep/100 for each
// write. It returns how many sectors have lost their last write.
func (d *disk) cut(random *rand.Rand, keep int) (lost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	touched := make(map[int64]bool)
	for _, w := range d.cached {
		for at := 0; at < len(w.data); at += d.sector {
			s := w.off + int64(at)
			touched[s] = random.IntN(100) >= keep // whether its last write is lost
			if !touched[s] {
				copy(d.medium[s:], w.data[at:at+d.sector])
			}
		}
	}
	for s, gone := range touched {
		if gone {
			lost++
		}
		copy(d.now[s:s+int64(d.sector)], d.medium[s:])
	}
	d.cached, d.bytes = nil, 0
	return lost
}
