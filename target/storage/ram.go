// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"sync"
	"sync/atomic"
)

// MaxRAM is the size in bytes of the largest RAM store.
const MaxRAM = 16 << 40

const (
	pageSize  = 4096
	leafPages = 512
	leafSize  = leafPages * pageSize
	stripes   = 64
)

type page [pageSize]byte

// A leaf leads to the pages of 2 MiB.
type leaf [leafPages]*page

// ram is the store whose blocks are in memory. Page i of the store is
// dir[i/leafPages][i%leafPages]; one that is absent reads as zeros.
type ram struct {
	size int64
	dir  []atomic.Pointer[leaf] // leaves come and stay

	// stripe[i%stripes] protects page i, pointer and content.
	stripe [stripes]struct {
		sync.RWMutex
		_ [64]byte // its neighbours go into other cache lines
	}
}

var _ interface {
	Store
	TryReader
	DurableWriter
	Discarder
	Zeroer
	Mapper
} = (*ram)(nil)

// NewRAM returns a store of size bytes in memory, all zeros. Memory is taken
// page by page as the store is written, and given back when whole pages are
// discarded. A size below 0 counts as 0, one above [MaxRAM] as MaxRAM.
func NewRAM(size int64) Store {
	size = min(max(size, 0), MaxRAM)
	return &ram{size: size, dir: make([]atomic.Pointer[leaf], (size+leafSize-1)/leafSize)}
}

// Info returns the store's properties.
func (r *ram) Info() Info { return Info{Type: "ram", Size: r.size, Granularity: pageSize} }

// Flush does nothing: this store has nothing more stable to write to.
func (r *ram) Flush() error { return nil }

// Close does nothing: the memory is given back with the store.
func (r *ram) Close() error { return nil }

// ReadAt fills p from off.
func (r *ram) ReadAt(p []byte, off int64) (int, error) {
	if err := r.check("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), int(pageSize-off%pageSize))
		r.readPage(rest[:n], off)
		rest, off = rest[n:], off+int64(n)
	}
	return len(p), nil
}

// TryReadAt is ReadAt, which never waits for a device.
func (r *ram) TryReadAt(p []byte, off int64) (int, error) { return r.ReadAt(p, off) }

// WriteAt writes p at off.
func (r *ram) WriteAt(p []byte, off int64) (int, error) {
	if err := r.check("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		n := min(len(rest), int(pageSize-off%pageSize))
		r.writePage(rest[:n], off)
		rest, off = rest[n:], off+int64(n)
	}
	return len(p), nil
}

// WriteDurableAt is WriteAt: nothing in this store outlives the process.
func (r *ram) WriteDurableAt(p []byte, off int64) (int, error) { return r.WriteAt(p, off) }

// Discard gives back the whole pages in the range and zeroes the rest of it.
func (r *ram) Discard(off, n int64) error {
	if err := r.check("discard", off, n); err != nil {
		return err
	}
	for n > 0 {
		m := min(n, pageSize-off%pageSize)
		if r.dir[off/leafSize].Load() == nil {
			m = min(n, leafSize-off%leafSize)
		} else {
			r.discardPage(off, m)
		}
		off, n = off+m, n-m
	}
	return nil
}

// WriteZeroes zeroes the range and takes the memory for it.
func (r *ram) WriteZeroes(off, n int64) error {
	if err := r.check("zero", off, n); err != nil {
		return err
	}
	for n > 0 {
		m := min(n, pageSize-off%pageSize)
		r.writePage(zeros[:m], off)
		off, n = off+m, n-m
	}
	return nil
}

// Extent tells where there are pages.
func (r *ram) Extent(off int64) (int64, bool, error) {
	if off < 0 || off >= r.size {
		return 0, false, &Error{Op: "map", Path: "ram", Off: off, Len: r.size - off, Err: errPastEnd}
	}
	_, mapped := r.mapped(off)
	end := off
	for end < r.size {
		n, m := r.mapped(end)
		if m != mapped {
			break
		}
		end += n
	}
	return min(end, r.size) - off, mapped, nil
}

func (r *ram) check(op string, off, n int64) error {
	if inside(off, n, r.size) {
		return nil
	}
	return &Error{Op: op, Path: "ram", Off: off, Len: n, Err: errPastEnd}
}

// readPage fills p from within the page at off.
func (r *ram) readPage(p []byte, off int64) {
	l := r.dir[off/leafSize].Load()
	if l == nil {
		clear(p)
		return
	}
	i := off / pageSize
	mu := &r.stripe[i%stripes]
	mu.RLock()
	defer mu.RUnlock()
	if pg := l[i%leafPages]; pg != nil {
		copy(p, pg[off%pageSize:])
	} else {
		clear(p)
	}
}

// writePage puts p into the page at off.
func (r *ram) writePage(p []byte, off int64) {
	d := &r.dir[off/leafSize]
	if d.Load() == nil {
		d.CompareAndSwap(nil, new(leaf))
	}
	l := d.Load()
	i := off / pageSize
	mu := &r.stripe[i%stripes]
	mu.Lock()
	defer mu.Unlock()
	pg := l[i%leafPages]
	if pg == nil {
		pg = new(page)
		l[i%leafPages] = pg
	}
	copy(pg[off%pageSize:], p)
}

// discardPage frees the page at off if n is all of it, and else zeroes n
// bytes. The page's leaf is there.
func (r *ram) discardPage(off, n int64) {
	l := r.dir[off/leafSize].Load()
	i := off / pageSize
	mu := &r.stripe[i%stripes]
	mu.Lock()
	defer mu.Unlock()
	switch pg := l[i%leafPages]; {
	case n == pageSize:
		l[i%leafPages] = nil
	case pg != nil:
		clear(pg[off%pageSize:][:n])
	}
}

// mapped tells whether the page at off is there, and how many bytes, from off
// to the end of the page or of a missing leaf, that goes for.
func (r *ram) mapped(off int64) (int64, bool) {
	l := r.dir[off/leafSize].Load()
	if l == nil {
		return leafSize - off%leafSize, false
	}
	i := off / pageSize
	mu := &r.stripe[i%stripes]
	mu.RLock()
	defer mu.RUnlock()
	return pageSize - off%pageSize, l[i%leafPages] != nil
}
