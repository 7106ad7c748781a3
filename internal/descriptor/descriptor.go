// SPDX-License-Identifier: Apache-2.0

// Package descriptor is for system calls on an open file. [os.File.Fd] is not: it makes the
// open file description blocking if Go had made it non-blocking, and that for every process
// that shares it. One that serves the same socket would hang in its next call.
package descriptor

import "syscall"

// Number returns the number of c's descriptor and leaves the blocking mode as it is. It is
// valid until c is closed, and -1 if c is closed already.
func Number(c syscall.Conn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1
	}
	number := -1
	if raw.Control(func(fd uintptr) { number = int(fd) }) != nil {
		return -1
	}
	return number
}
