// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/internal/memfile"
)

// A Journal is the journal of one process, or of its predecessor as long as nobody has called [Journal.Take].
type Journal struct {
	file  *os.File
	m     []byte
	g     geometry
	arena int64 // bytes of the arena

	mu    sync.Mutex    // protects what follows
	owned bool          // it may be written
	free  [kinds]places // regions
	lsn   uint64        // of the last control transaction

	// stored, if set, is told of each store: n bytes at an offset have another content now. Only tests of this package set it.
	stored func(off, n int64)
}

// Options say how many regions a journal has. They are the limits of what the process admits, plus whom
// it would rather leave unprotected than refuse.
type Options struct {
	Sessions, Connections, Units int

	// Arena is where the buffers are. The journal has offsets in it.
	Arena *os.File
}

// New makes an empty journal, which [Journal.Close] gives back.
func New(o Options) (*Journal, error) {
	h := header{}
	for k, n := range [kinds]int{o.Sessions, o.Connections, o.Units} {
		h.regions[k] = uint32(max(0, min(n, maxRegions+1)))
	}
	if err := errors.Join(h.check(), h.of(o.Arena)); err != nil {
		return nil, err
	}
	g := newGeometry(h.regions)
	file, err := memfile.New("gotgtd-journal", g.size)
	if err != nil {
		return nil, fmt.Errorf("journal: can't make a memory file of %d bytes: %w", g.size, err)
	}
	j, err := mapJournal(file, g, h.bytes)
	if err != nil {
		file.Close()
		return nil, err
	}
	h.encode(j.m)
	j.store(atCommitted, 1)
	j.store(atApplied, 1)
	j.store(atEpoch, 1)
	j.lsn, j.owned = 1, true
	return j, nil
}

func mapJournal(file *os.File, g geometry, arena int64) (*Journal, error) {
	m, err := unix.Mmap(descriptor.Number(file), 0, int(g.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("journal: can't map %d bytes: %w", g.size, err)
	}
	j := &Journal{file: file, m: m, g: g, arena: arena}
	for k, n := range g.regions {
		j.free[k] = newPlaces(int(n))
	}
	return j, nil
}

// Open reads the journal of a predecessor, which must be dead or frozen, and changes nothing. arena is that of the
// predecessor. What is in it [Journal.Recover] says; [Journal.Take] makes it this process's. The
// file belongs to the Journal, unless there is an error. [ErrForeign] says that the journal may be sound, for another reader.
func Open(file, arena *os.File) (*Journal, error) {
	var st unix.Stat_t
	if err := unix.Fstat(descriptor.Number(file), &st); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := memfile.Sealed(file); err != nil {
		return nil, fmt.Errorf("journal: the file %w", err)
	}
	p := make([]byte, headerLen+4)
	if n, err := unix.Pread(descriptor.Number(file), p, 0); n < len(p) {
		return nil, fmt.Errorf("journal: the file is no journal: it has %d bytes (%v)", n, err)
	}
	var h, own header
	if err := errors.Join(h.decode(p), own.of(arena)); err != nil {
		return nil, err
	}
	g := newGeometry(h.regions)
	switch {
	case h.boot != own.boot:
		return nil, fmt.Errorf("journal: %w: it is of the boot %x, this one is %x: sessions must log in again", ErrForeign, h.boot, own.boot)
	case st.Size != g.size:
		return nil, fmt.Errorf("journal: the file has %d bytes, and its header says %d", st.Size, g.size)
	case h.arena != own.arena || h.bytes != own.bytes:
		return nil, fmt.Errorf("journal: it belongs to the arena with inode %d and %d bytes, not to that with inode %d and %d", h.arena, h.bytes, own.arena, own.bytes)
	}
	return mapJournal(file, g, h.bytes)
}

// File returns the memory file, for a successor. It stays the Journal's.
func (j *Journal) File() *os.File { return j.file }

// Close gives the mapping and this process's file back. Nothing of the journal may be used any more.
func (j *Journal) Close() error { return errors.Join(unix.Munmap(j.m), j.file.Close()) }

// The words. An aligned word can't tear, and the compiler moves no other store across an atomic one. That is
// all that is needed: at the death of a process every store before that point is in memory, and none behind it.

func (j *Journal) at(off int64) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&j.m[off&^7])) }

func (j *Journal) load(off int64) uint64 { return j.at(off).Load() }

func (j *Journal) store(off int64, v uint64) {
	j.at(off).Store(v)
	j.wrote(off, 8)
}

// wrote ends a change of n bytes, which took place in any order.
func (j *Journal) wrote(off, n int64) {
	if j.stored != nil {
		j.stored(off, n)
	}
}

// stale returns where the next version of a record goes in a transaction: over the older of its two
// versions, or once more to where this transaction has put it.
func (j *Journal) stale(first, second int64, tag uint64) int64 {
	a, b := le.Uint64(j.m[first:]), le.Uint64(j.m[second:])
	if a == tag || b != tag && a <= b {
		return first
	}
	return second
}

// inForce returns where the version in force is: false if no version is.
func (j *Journal) inForce(first, second int64, committed uint64) (int64, bool) {
	a, b := le.Uint64(j.m[first:]), le.Uint64(j.m[second:])
	if a > committed {
		a = 0
	}
	if b > committed {
		b = 0
	}
	switch {
	case a == 0 && b == 0:
		return 0, false
	case a >= b:
		return first, true
	}
	return second, true
}

// open takes a free region, which is all zeros.
func (j *Journal) open(kind int) (n uint32, serial uint64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.owned {
		return 0, 0, errors.New("journal: it is another process's: take it first")
	}
	i, ok := j.free[kind].take()
	if !ok {
		return 0, 0, fmt.Errorf("journal: all %d regions of kind %s are in use", j.g.regions[kind], kindName[kind])
	}
	serial = j.load(atLastSerial) + 1
	j.store(atLastSerial, serial) // before its use: what names a closed region must never name a later one
	return uint32(i), serial, nil
}

// close gives a region back, with its memory. From its first store on a successor knows nothing of it.
func (j *Journal) close(kind int, n uint32) error {
	j.store(j.g.word(kind, n), 0)
	if err := j.clean(j.g.region(kind, n), regionSize[kind]); err != nil {
		return fmt.Errorf("journal: a region of kind %s can't be used again: %w", kindName[kind], err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.free[kind].give(int(n))
	return nil
}

// clean makes a range zeros, without memory.
func (j *Journal) clean(off, n int64) error {
	err := unix.Fallocate(descriptor.Number(j.file), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err == nil {
		j.wrote(off, n)
	}
	return err
}

// SetLastTSIH notes the last TSIH that was given, before it is told to anybody.
func (j *Journal) SetLastTSIH(v uint16) { j.store(atLastTSIH, uint64(v)) }
