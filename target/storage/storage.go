// SPDX-License-Identifier: Apache-2.0

// Package storage is what holds the blocks of a logical unit: a regular file,
// a block device, memory. It knows bytes and offsets, nothing of SCSI.
package storage

import (
	"context"
	"errors"
	"os"
)

// Info describes an open store.
type Info struct {
	Type        string // as tgt names it: "rdwr" for a file or device, "ram", ...
	Path        string // what was opened; empty when there is nothing to name
	ID          string // what it is, whatever its path, see [Identify]; empty when nothing tells
	Size        int64  // bytes now
	ReadOnly    bool
	Granularity int64 // bytes that a discard frees at the least, a power of two; 0 when discards free nothing
}

// A Store is the open backing store of one logical unit. Its methods are safe
// for concurrent use. A range that does not lie wholly in the store is an error,
// here and in the interfaces below; nothing makes the store longer. What a
// store can do beyond this interface it shows by implementing the ones below, of
// which [Can] makes one set; the logical unit advertises nothing that its store lacks.
//
// Every call that may wait has a context: the command's, which ends when the command is
// aborted, its session ends, its logical unit is removed, or an upgrade can't wait for it any
// longer. A call that waits for something that can be given up, such as a server, ends then,
// with an error that wraps the context's or its cause. Until it returns nothing else touches its blocks, so
// nothing of it may happen afterwards: a write has been done wholly, in part or not at all, and is
// made again if its command goes on. A call that can't be ended so goes on until its work is done. A
// store keeps neither the context nor the buffer beyond the call.
type Store interface {
	// ReadAt and WriteAt never move fewer bytes than asked without an error
	// that says why: io.ErrUnexpectedEOF when the store ends earlier than
	// Info said at open, a syscall.Errno (wrapped) when the system refused.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)

	// Flush returns once every write that returned before the call is on
	// stable storage. After a failed Flush the state of those writes is
	// unknown; the caller remembers that, not the store. One that its context has ended has
	// not failed: the next one is for the same writes too.
	Flush(ctx context.Context) error

	// Info returns the store's properties; Size is as of open or of the last
	// Refresh.
	Info() Info

	// Close releases the store and its lock. No call may be under way.
	Close() error
}

// Capabilities are what a store can do beyond [Store]. A field is nil where it can't.
type Capabilities struct {
	TryReader     TryReader
	TryWriter     TryWriter
	DurableWriter DurableWriter
	Discarder     Discarder
	Zeroer        Zeroer
	Mapper        Mapper
	Refresher     Refresher
	Spacious      Spacious
	Settler       Settler
	Locked        Locked
	Movable       Movable
}

// A Capable store says what it can do itself, where its methods alone would say too
// much: one that stands for another, or that finds out when it is opened.
type Capable interface {
	Capabilities() Capabilities
}

// Can returns what a store can do. It is the same as long as the store is open.
func Can(s Store) (c Capabilities) {
	if capable, ok := s.(Capable); ok {
		return capable.Capabilities()
	}
	c.TryReader, _ = s.(TryReader)
	c.TryWriter, _ = s.(TryWriter)
	c.DurableWriter, _ = s.(DurableWriter)
	c.Discarder, _ = s.(Discarder)
	c.Zeroer, _ = s.(Zeroer)
	c.Mapper, _ = s.(Mapper)
	c.Refresher, _ = s.(Refresher)
	c.Spacious, _ = s.(Spacious)
	c.Settler, _ = s.(Settler)
	c.Locked, _ = s.(Locked)
	c.Movable, _ = s.(Movable)
	return c
}

// ErrWouldBlock is the answer of the Try methods when the work would have to
// wait for a device. Nothing was done. Since they never wait, they have no context.
var ErrWouldBlock = errors.New("storage: would block")

// A TryReader can tell whether data is at hand. TryReadAt fills p completely
// or returns ErrWouldBlock.
type TryReader interface {
	TryReadAt(p []byte, off int64) (int, error)
}

// A TryWriter can tell whether writes are copies in memory just now. TryWriteAt is
// WriteAt, or returns ErrWouldBlock.
type TryWriter interface {
	TryWriteAt(p []byte, off int64) (int, error)
}

// A DurableWriter writes through to stable storage (Force Unit Access).
// Without it a durable write is WriteAt and then Flush.
type DurableWriter interface {
	WriteDurableAt(ctx context.Context, p []byte, off int64) (int, error)
}

// A Discarder frees the space of a range, which afterwards reads as zeros.
type Discarder interface {
	Discard(ctx context.Context, off, n int64) error
}

// A Zeroer makes a range read as zeros and keeps its space allocated.
type Zeroer interface {
	WriteZeroes(ctx context.Context, off, n int64) error
}

// A Mapper knows which parts are allocated. Extent returns the length in bytes
// of a run that starts at off (n > 0, cut off at the store's end) and whether
// it is allocated. What follows the run may be in the same state. A part that
// is not mapped reads as zeros.
type Mapper interface {
	Extent(ctx context.Context, off int64) (n int64, mapped bool, err error)
}

// A Refresher notices that its file or device has another size now, and
// returns it.
type Refresher interface {
	Refresh(ctx context.Context) (size int64, err error)
}

// A Spacious store knows what space its blocks take, and how much there is for more. One that
// finds out that it does not returns [errors.ErrUnsupported].
type Spacious interface {
	Space(ctx context.Context) (Space, error)
}

// Space is the space of a store, in bytes.
type Space struct {
	Allocated int64 `json:"allocated"` // that its blocks take
	Free      int64 `json:"free"`      // of the file system that they are in, for those who are not root
	Total     int64 `json:"total"`     // size of that file system
}

// A Settler may keep to itself what was written. Settle makes a process see it
// that has opened the store too, and is about to use it in place of this one. No
// call is under way, and nothing follows but Close, or, if this process has to
// go on after all, anything.
type Settler interface {
	Settle(ctx context.Context) error
}

// A Locked store holds a lock that keeps other daemons away. The lock belongs
// to the open file description of LockFile, so passing that descriptor to
// another process passes the lock.
type Locked interface {
	// LockFile returns the file whose description holds the lock; it stays
	// the store's.
	LockFile() *os.File
	// AdoptLock takes over a lock passed from another process, after checking
	// that f is the same file. f is the store's from then on, also on error.
	AdoptLock(f *os.File) error
	// TakeLock takes the lock of a store that was opened without it and was
	// passed none.
	TakeLock() error
}

// A Movable store keeps its blocks in memory that an open file stands for, so
// that passing the file to another process passes the blocks, without a copy.
type Movable interface {
	// MemoryFile returns the file; it stays the store's.
	MemoryFile() *os.File
	// AdoptMemory gives the store the blocks of a file from another process in
	// place of its own, before anything is read or written. Blocks that the
	// store does not have the other process keeps, and finds unchanged if it
	// goes on. f is the store's from then on, also on error.
	AdoptMemory(f *os.File) error
	// TrimMemory drops the blocks of an adopted file that the store does not
	// have. The other process must have let go of it.
	TrimMemory() error
}
