// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// ramName is what errors call a RAM store.
const ramName = "ram"

// ram is the store whose blocks are in memory: a file without a name
// (memfd_create(2)), so that another process can take it over as it is. Its
// size is the store's own, since the file may be longer for a while: see
// AdoptMemory.
//
// Nobody can seal the file (it was made without MFD_ALLOW_SEALING): a seal
// could be set by whoever may open /proc/PID/fd and would end all writing for
// good. Seals on its size would forbid what a change of the configuration does.
type ram struct{ f file }

var _ interface {
	Store
	TryReader
	TryWriter
	DurableWriter
	Discarder
	Zeroer
	Mapper
	Movable
} = (*ram)(nil)

// NewRAM returns a store of size bytes in memory, all zeros. Memory is taken
// page by page as the store is written, and given back when whole pages are
// discarded. The error is an [*Error].
func NewRAM(size int64) (Store, error) {
	fd, err := unix.MemfdCreate("gotgtd-ram", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, &Error{Op: "create", Path: ramName, Err: err}
	}
	f := os.NewFile(uintptr(fd), ramName)
	if err := unix.Ftruncate(fd, size); err != nil {
		f.Close()
		return nil, &Error{Op: "create", Path: ramName, Err: err}
	}
	r := &ram{file{path: ramName, unit: 1, sector: 1, granularity: int64(os.Getpagesize())}}
	r.f.size.Store(size)
	r.keep(f)
	return r, nil
}

// keep makes f the file that holds the blocks.
func (r *ram) keep(f *os.File) {
	r.f.main, r.f.held = f, f
	r.f.fd.Store(int64(descriptor.Number(f)))
}

// Info returns the store's properties.
func (r *ram) Info() Info {
	return Info{Type: "ram", Size: r.f.size.Load(), Granularity: r.f.granularity}
}

// ReadAt fills p from off.
func (r *ram) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return r.f.ReadAt(ctx, p, off)
}

// TryReadAt is ReadAt: there is no device to wait for.
func (r *ram) TryReadAt(p []byte, off int64) (int, error) {
	return r.f.ReadAt(context.Background(), p, off)
}

// TryWriteAt is WriteAt, likewise.
func (r *ram) TryWriteAt(p []byte, off int64) (int, error) {
	return r.f.WriteAt(context.Background(), p, off)
}

// WriteAt writes p at off. Without memory for it the error is ENOSPC or ENOMEM.
func (r *ram) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return r.f.WriteAt(ctx, p, off)
}

// WriteDurableAt is WriteAt: there is nothing more stable to write to.
func (r *ram) WriteDurableAt(ctx context.Context, p []byte, off int64) (int, error) {
	return r.f.WriteAt(ctx, p, off)
}

// Flush does nothing, as WriteDurableAt does no more than WriteAt.
func (r *ram) Flush(context.Context) error { return nil }

// Discard gives back the whole pages in the range and zeroes the rest of it.
func (r *ram) Discard(ctx context.Context, off, n int64) error { return r.f.Discard(ctx, off, n) }

// WriteZeroes zeroes the range and takes the memory for it.
func (r *ram) WriteZeroes(ctx context.Context, off, n int64) error {
	return r.f.WriteZeroes(ctx, off, n)
}

// Extent tells where there are pages.
func (r *ram) Extent(ctx context.Context, off int64) (int64, bool, error) {
	return r.f.Extent(ctx, off)
}

// Close gives the memory back, unless another process holds it too.
func (r *ram) Close() error { return r.f.Close() }

// MemoryFile returns the file that holds the blocks.
func (r *ram) MemoryFile() *os.File { return r.f.main }

// AdoptMemory makes f, from the MemoryFile of another RAM store, hold the
// blocks of this one. The store keeps its size: a shorter file grows at once,
// a longer one stays as it is until TrimMemory, since nothing may be taken
// from a process that may have to go on.
func (r *ram) AdoptMemory(f *os.File) error {
	if err := r.fit(f); err != nil {
		f.Close()
		return &Error{Op: "adopt", Path: ramName, Err: err}
	}
	old := r.f.main
	r.keep(f)
	return old.Close()
}

// fit makes f long enough.
func (r *ram) fit(f *os.File) error {
	fd := descriptor.Number(f)
	if _, err := unix.FcntlInt(uintptr(descriptor.Number(f)), unix.F_GET_SEALS, 0); err != nil {
		return errors.New("the file passed on is not in memory")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if size := r.f.size.Load(); st.Size < size {
		return unix.Ftruncate(fd, size)
	}
	return nil
}

// TrimMemory gives back what an adopted file has beyond the store's size.
func (r *ram) TrimMemory() error {
	if err := unix.Ftruncate(int(r.f.fd.Load()), r.f.size.Load()); err != nil {
		return &Error{Op: "trim", Path: ramName, Err: err}
	}
	return nil
}
