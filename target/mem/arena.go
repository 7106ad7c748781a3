// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/internal/memfile"
)

// An Arena is memory for buffers in one shared mapping of a memory file, outside of Go's heap. Each class of
// buffers has a part of it that could hold all that there may be on loan: then no pattern of
// sizes can leave too little in one piece, and the class of a block follows from where it lies. That takes address
// space alone; pages are there only for blocks that are used. What the
// Arena knows of its blocks lies elsewhere, so that nothing in the mapping can mislead it.
type Arena struct {
	stock stock
	o     ArenaOptions
	file  *os.File
	fd    int // file's descriptor
	m     []byte
	part  int64 // bytes of each class
	page  int64 // bytes that the system gives and takes at a time
	kinds [classes]kind

	claiming atomic.Bool  // blocks are claimed, none is lent
	resident atomic.Int64 // bytes of blocks that may have pages: those on loan, and those that are idle
	keep     atomic.Int64 // most bytes that these may be, while some are idle
	told     atomic.Int64 // what Resident was told last
	moving   sync.Mutex   // held while idle blocks are on no stack

	grown chan struct{} // has a message when there is news for the owner
	stop  chan struct{}
	done  chan struct{} // closed when the owner has ended
	close sync.Once
	left  error // what Close returns
}

// ArenaOptions say how an [Arena] behaves.
type ArenaOptions struct {
	// Size is how many bytes may be on loan. Beyond that buffers may come from the heap.
	Size int64

	// Used, if set, returns the bytes on all accounts. What of these is not on loan is
	// elsewhere in the process, and the Arena keeps so much less.
	Used func() int64

	// Resident, if set, is told how many bytes of the Arena have memory now, when that has
	// changed by much. It is called on the Arena's own goroutine.
	Resident func(bytes int64)
}

// kind is a class of blocks. A block that is on loan is on no stack.
type kind struct {
	size int64
	base int64 // offset of its first block
	most uint32

	hot  []stack // released a moment ago, by different goroutines; a power of two
	warm stack   // released before
	cold stack   // without pages

	chunks []atomic.Pointer[chunk] // the blocks that have been used so far, and some more
	mu     sync.Mutex              // protects making chunks, and what follows
	carved uint32                  // blocks that have been used so far are below this index
}

// chunk is so many blocks at once.
type chunk [256]Buffer

func (k *kind) block(i uint32) *Buffer {
	return &k.chunks[i/uint32(len(chunk{}))].Load()[i%uint32(len(chunk{}))]
}

// NewArena returns an Arena that [Arena.Close] ends.
func NewArena(o ArenaOptions) (*Arena, error) {
	if o.Size > maxPart {
		return nil, fmt.Errorf("mem: an arena can't have %d bytes, %d at most", o.Size, int64(maxPart))
	}
	part := (max(o.Size, 1) + MaxSize - 1) / MaxSize * MaxSize
	file, err := memfile.New("gotgtd-buffers", part*classes)
	if err != nil {
		return nil, fmt.Errorf("mem: can't make a memory file of %d bytes for buffers: %w", part*classes, err)
	}
	a, err := mapArena(file, part, o)
	if err != nil {
		file.Close()
		return nil, err
	}
	a.start()
	return a, nil
}

// maxPart is the most that a class has: twice as much in 4 KiB blocks could not be counted.
const maxPart = 1 << 43

// mapArena maps a file of so many bytes for each class.
func mapArena(f *os.File, part int64, o ArenaOptions) (*Arena, error) {
	fd := descriptor.Number(f)
	m, err := unix.Mmap(fd, 0, int(part*classes), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mem: can't map %d bytes for buffers: %w", part*classes, err)
	}
	_ = unix.Madvise(m, unix.MADV_DONTDUMP) // data of initiators, and much of it
	a := &Arena{
		o: o, file: f, fd: fd, m: m, part: part, page: int64(os.Getpagesize()),
		grown: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	a.stock.arena = a
	a.keep.Store(part)
	for i := range a.kinds {
		k := &a.kinds[i]
		k.size, k.base = MinSize<<i, part*int64(i)
		k.most = uint32(part / k.size)
		k.hot = make([]stack, stacks())
		k.chunks = make([]atomic.Pointer[chunk], (int(k.most)+len(chunk{})-1)/len(chunk{}))
	}
	return a, nil
}

// stacks is how many of a kind are hot: as many as may be used at a time, a power of two.
func stacks() int {
	n := 1
	for n < min(runtime.GOMAXPROCS(0), 32) {
		n *= 2
	}
	return n
}

func (a *Arena) start() {
	arenas.add(a)
	go a.own()
}

// Pool returns a Pool that lends from the Arena, and from the heap if that has nothing. On a nil
// Arena all is of the heap.
func (a *Arena) Pool() *Pool {
	if a == nil {
		return new(Pool)
	}
	return &Pool{shared: &a.stock}
}

// File returns the memory file, for a successor to adopt. It stays the Arena's.
func (a *Arena) File() *os.File { return a.file }

// Offset returns where in the Arena's file the block of b is, and false if it is in
// none. Together with the size of the block it is the block's name for another process.
func (b *Buffer) Offset() (offset int64, ok bool) {
	if !b.mapped {
		return 0, false
	}
	return b.stock.arena.kinds[b.class].offset(b.index), true
}

func (k *kind) offset(i uint32) int64 { return k.base + int64(i)*k.size }

// here tells goroutines apart by their stacks, so that each finds again what it has released
// itself, mostly, and two don't get into each other's way, mostly.
func here() uint {
	var local byte
	const ratio = 0x9e3779b97f4a7c15 // spreads neighbours
	return uint(uint64(uintptr(unsafe.Pointer(&local))) >> 13 * ratio >> 48)
}

// take returns a block that is not on loan, nil if there is none.
func (a *Arena) take(class int) *Buffer {
	k := &a.kinds[class]
	if b := k.hot[here()&uint(len(k.hot)-1)].pop(k); b != nil {
		return b
	}
	return a.takeOther(k)
}

// takeOther returns a block that somebody else has released, or that was released before.
func (a *Arena) takeOther(k *kind) *Buffer {
	if b := k.warm.pop(k); b != nil {
		return b
	}
	for i := range k.hot {
		if b := k.hot[i].pop(k); b != nil {
			return b
		}
	}
	return a.takeCold(k)
}

// takeCold returns a block that has no pages yet.
func (a *Arena) takeCold(k *kind) *Buffer {
	if a.claiming.Load() {
		return nil
	}
	b := k.cold.pop(k)
	if b == nil {
		if b = a.carve(k); b == nil {
			return nil
		}
	}
	a.grow(k.size)
	return b
}

// carve returns a block that was never used.
func (a *Arena) carve(k *kind) *Buffer {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.carved == k.most {
		return nil
	}
	k.carved++
	return a.makeLocked(k, k.carved-1)
}

// makeLocked makes a Buffer of a block. The caller holds k.mu.
func (a *Arena) makeLocked(k *kind, i uint32) *Buffer {
	place := &k.chunks[i/uint32(len(chunk{}))]
	if place.Load() == nil {
		place.Store(new(chunk))
	}
	b := k.block(i)
	b.base, b.stock, b.index, b.mapped = &a.m[k.offset(i)], &a.stock, i, true
	b.class = uint8(k.base / a.part)
	return b
}

func (a *Arena) put(b *Buffer) {
	k := &a.kinds[b.class]
	k.hot[here()&uint(len(k.hot)-1)].push(k, b)
}

// ErrOnLoan is the answer of [Arena.Close] when buffers have not been released.
var ErrOnLoan = errors.New("mem: buffers of the arena are still on loan")

// Close gives everything back. If buffers are on loan it returns [ErrOnLoan], and the mapping
// stays until the end of the process: who holds them may still use them.
// Nothing may be lent any more. Closing a nil Arena does nothing.
func (a *Arena) Close() error {
	if a == nil {
		return nil
	}
	a.close.Do(func() {
		close(a.stop)
		<-a.done
		if a.resident.Load() > a.idle() {
			a.left = ErrOnLoan
			return
		}
		arenas.remove(a)
		a.left = errors.Join(unix.Munmap(a.m), a.file.Close())
	})
	return a.left
}
