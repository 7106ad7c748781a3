// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"io"
)

// Error says what a store could not do, to what, and why.
type Error struct {
	Op   string // the verb: "open", "create", "lock", "read", "write", "flush", ...
	Path string // the store
	Off  int64  // first byte of the range, when Len is not 0
	Len  int64  // bytes in the range; 0 when the operation has none
	Err  error  // the cause, often a syscall.Errno
}

// Error returns a text such as
//
//	can't write 4096 bytes at 8192 of "disk.img": no space left on device
func (e *Error) Error() string {
	if e.Len != 0 {
		return fmt.Sprintf("can't %s %d bytes at %d of %q: %v", e.Op, e.Len, e.Off, e.Path, e.Err)
	}
	return fmt.Sprintf("can't %s backing store %q: %v", e.Op, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrLocked is why a store can't be opened that someone serves already.
var ErrLocked = errors.New("another process serves it")

// errPastEnd is why a range can't be read or written that the store does not
// have: it was never there, or the file has shrunk.
var errPastEnd = fmt.Errorf("past the end of the store: %w", io.ErrUnexpectedEOF)

// CheckRange is for stores of other packages: it returns an error that wraps [io.ErrUnexpectedEOF]
// unless a store of size bytes has the n bytes at off.
func CheckRange(off, n, size int64) error {
	if !inside(off, n, size) {
		return errPastEnd
	}
	return nil
}

// inside tells whether a store of size bytes has the n bytes at off.
func inside(off, n, size int64) bool {
	return off >= 0 && n >= 0 && n <= size && off <= size-n
}
