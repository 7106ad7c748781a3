// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// warm makes sure that all of a file is in the page cache. It returns how many
// bytes were not and have been read in.
func warm(path string) (cold int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if cold, err = absent(f); err != nil || cold == 0 {
		return 0, err
	}
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{f}, make([]byte, 1<<20)); err != nil {
		return 0, err
	}
	left, err := absent(f)
	if err == nil && left > 0 {
		err = fmt.Errorf("%d bytes of %s do not stay in the page cache", left, path)
	}
	return cold, err
}

// keepWarm keeps all of a file in the page cache until release is called, which a
// kernel that reclaims what looks cold would not do by itself. It needs the right
// to lock that much memory.
func keepWarm(path string) (release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := mapWhole(f)
	if err != nil {
		return nil, err
	}
	if err := unix.Mlock(m); err != nil {
		_ = unix.Munmap(m)
		return nil, fmt.Errorf("can't lock %s into memory: %w", path, err)
	}
	return func() { _ = unix.Munmap(m) }, nil
}

// These hide the short cuts that io.CopyBuffer would take past its buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// absent returns how many bytes of a file are not in the page cache (mincore(2)).
func absent(f *os.File) (bytes int64, err error) {
	m, err := mapWhole(f)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(m)
	page := os.Getpagesize()
	present := make([]byte, (len(m)+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&present[0])))
	if errno != 0 {
		return 0, fmt.Errorf("can't tell what of %s is in the page cache: %w", f.Name(), errno)
	}
	for _, p := range present {
		if p&1 == 0 {
			bytes += int64(page)
		}
	}
	return bytes, nil
}

// mapWhole maps a file, which must not be empty.
func mapWhole(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("can't map %s: %w", f.Name(), err)
	}
	return m, nil
}
