// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"crypto/rand"
	"io"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// system is what a Node has from the operating system, and tests replace.
type system struct {
	random io.Reader // of CHAP challenges
	writev func(fd uintptr, iov []unix.Iovec) (int, error)
}

var realSystem = system{random: rand.Reader, writev: writevNoWait}

// The sockets are non-blocking, so these calls can't wait: they need not tell
// the scheduler, which is what syscall.RawSyscall leaves out.

// readNoWait reads into p, which must not be empty; EINTR is tried again.
func readNoWait(fd uintptr, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// writevNoWait writes what iov names; EINTR is tried again.
func writevNoWait(fd uintptr, iov []unix.Iovec) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
