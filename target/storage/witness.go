// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrDropped is written data that did not reach stable storage and is not in the cache any more: what
// was to be flushed may be lost, whatever later flushes say.
var ErrDropped = errors.New("the system could not write what was in its cache, and has dropped it")

// A witness tells whether the system has failed to write a file's pages. It reports such a failure once to each
// open file description. So of two flushes side by side on one description, which have waited for the same
// pages or for others that were lost with them, one is told and the other one succeeds. The witness has a description of its own,
// which is asked by one caller at a time, after its flush, and it remembers the answer.
type witness struct {
	mu      sync.Mutex // protects what follows
	file    *os.File   // nil: there is none, or none any more
	fd      int        // of file
	dropped error      // wraps ErrDropped
}

// open gives the witness a description of its own of the file at fd. Without /proc there is none.
func (w *witness) open(fd int, path string) error {
	for {
		n, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOENT:
			return nil
		case err != nil:
			return err
		}
		w.file, w.fd = os.NewFile(uintptr(n), path), n
		return nil
	}
}

// ask returns err, the outcome of a flush that has just ended, unless pages were dropped since the file was opened.
func (w *witness) ask(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dropped == nil && w.file != nil {
		if report := writeBackError(w.fd); report != nil {
			w.dropped = fmt.Errorf("%w: %w", ErrDropped, report)
		}
	}
	if w.dropped != nil {
		return w.dropped
	}
	return err
}

func (w *witness) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// beyond is the offset of a page that no file has.
const beyond = 1 << 62

// writeBackError returns what the system has to report to a description. It writes nothing, and as
// there is no page to be waited for it does not wait. Tests replace it.
var writeBackError = func(fd int) error {
	for {
		switch err := unix.SyncFileRange(fd, beyond, 1, unix.SYNC_FILE_RANGE_WAIT_BEFORE); err {
		case unix.EINTR:
		case unix.ENOSYS, unix.ESPIPE, unix.EINVAL, unix.EBADF: // of the call, not of the pages
			return nil
		default:
			return err
		}
	}
}
