// SPDX-License-Identifier: Apache-2.0

// Package memfile makes memory files that keep their size, to be mapped by one process after the other.
package memfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// seals make sure that no access to a mapping can fail because the file is shorter by now.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// New makes a sparse file that will stay as long as it is.
func New(name string, size int64) (*os.File, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil && uint64(size) > limit.Cur {
		// The kernel would end the process.
		return nil, fmt.Errorf("RLIMIT_FSIZE is %d: raise it", limit.Cur)
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.Ftruncate(fd, size); err != nil {
		f.Close()
		return nil, os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, os.NewSyscallError("sealing", err)
	}
	return f, nil
}

// Sealed tells whether a file that another process has made will stay as long as it is.
func Sealed(f *os.File) error {
	has, err := unix.FcntlInt(uintptr(descriptor.Number(f)), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("must be sealed, this one has no seals: %w", err)
	}
	if has&seals != seals {
		return fmt.Errorf("must be sealed: its seals are %#x, %#x are needed", has, seals)
	}
	return nil
}
