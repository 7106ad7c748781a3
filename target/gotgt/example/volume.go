// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
	"golang.org/x/sys/unix"
)

// A volume is a disk in memory: a mapped file, on a tmpfs most likely, so that
// it outlives the process and the next one maps the same pages. It is what
// gotgt calls a remote backing store.
type volume struct {
	file *os.File
	fd   int // file's descriptor

	mu   sync.RWMutex // protects what follows; held exclusively to write
	data []byte       // the mapping
}

var _ api.RemoteBackingStore = (*volume)(nil)

// openVolume maps the file at path, and makes it so many bytes long if it is
// new.
func openVolume(path string, size int64) (*volume, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("can't open the volume: %w", &os.PathError{Op: "open", Path: path, Err: err})
	}
	file := os.NewFile(uintptr(fd), path)
	v := &volume{file: file, fd: fd}
	st, err := file.Stat()
	if err == nil && st.Size() > 0 {
		size = st.Size()
	}
	if err == nil {
		err = v.resize(size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("can't open the volume: %w", err), file.Close())
	}
	return v, nil
}

// resize gives the volume another size.
func (v *volume) resize(size int64) error {
	if size <= 0 {
		return fmt.Errorf("a volume can't have %d bytes", size)
	}
	if err := v.file.Truncate(size); err != nil {
		return err
	}
	data, err := unix.Mmap(v.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.data
	v.data = data
	if old == nil {
		return nil
	}
	return unix.Munmap(old)
}

// close lets go of the memory, which stays in the file.
func (v *volume) close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	data := v.data
	v.data = nil
	return errors.Join(unix.Munmap(data), v.file.Close())
}

// size returns the size in bytes.
func (v *volume) size() int64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return int64(len(v.data))
}

// partLocked returns the n bytes at off.
func (v *volume) partLocked(off, n int64) ([]byte, error) {
	if size := int64(len(v.data)); off < 0 || n < 0 || n > size || off > size-n {
		return nil, io.ErrUnexpectedEOF
	}
	return v.data[off : off+n], nil
}

// ReadAt fills p.
func (v *volume) ReadAt(p []byte, off int64) (int, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	part, err := v.partLocked(off, int64(len(p)))
	return copy(p, part), err
}

// WriteAt writes p.
func (v *volume) WriteAt(p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	part, err := v.partLocked(off, int64(len(p)))
	return copy(part, p), err
}

// Sync has nothing to do: the pages are the next process's too.
func (v *volume) Sync() (int, error) { return 0, nil }

// Unmap makes n bytes at off zeros and gives their pages back.
func (v *volume) Unmap(off, n int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, err := v.partLocked(off, n); err != nil {
		return 0, err
	}
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if err := unix.Fallocate(v.fd, punch, off, n); err != nil {
		return 0, fmt.Errorf("can't free %d bytes at %d: %w", n, off, err)
	}
	return int(n), nil
}
