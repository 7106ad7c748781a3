// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// defaultStoredName is what systemd calls a stored descriptor without FDNAME.
const defaultStoredName = "stored"

var (
	errStoreFull = errors.New("the store is full")
	errDuplicate = errors.New("it is stored already")
)

// A storedFile is one descriptor in the store.
type storedFile struct {
	name string
	file *os.File
	poll bool // removed when it hangs up (FDPOLL is not 0)
}

// fdStore is the descriptor store of a service. It is not safe for
// concurrent use.
type fdStore struct {
	max   int
	files []*storedFile
	hups  *hangups
}

// add takes file into the store, or refuses it; then the file is still the
// caller's.
func (s *fdStore) add(name string, file *os.File, poll bool) error {
	if name == "" {
		name = defaultStoredName
	}
	if err := notify.CheckName(name); err != nil {
		return err
	}
	for _, have := range s.files {
		if same, err := sameFile(have.file, file); err != nil {
			return err
		} else if same {
			return errDuplicate
		}
	}
	if len(s.files) >= s.max {
		return fmt.Errorf("%w: %d descriptors, which is the bound", errStoreFull, len(s.files))
	}
	stored := &storedFile{name, file, poll}
	if poll {
		if err := s.hups.watch(stored); err != nil {
			return err
		}
	}
	s.files = append(s.files, stored)
	return nil
}

// remove takes out and closes what f says, and returns how many those were.
func (s *fdStore) remove(f func(*storedFile) bool) int {
	kept := s.files[:0]
	for _, have := range s.files {
		if !f(have) {
			kept = append(kept, have)
			continue
		}
		s.hups.forget(have)
		_ = have.file.Close()
	}
	removed := len(s.files) - len(kept)
	clear(s.files[len(kept):])
	s.files = kept
	return removed
}

func (s *fdStore) closeAll() { s.remove(func(*storedFile) bool { return true }) }

// sameFile reports whether a and b are descriptors of one open file.
func sameFile(a, b *os.File) (same bool, err error) {
	err = kernel.Control(a, func(fa int) error {
		return kernel.Control(b, func(fb int) error {
			same, err = sameDescription(fa, fb)
			return err
		})
	})
	return same, err
}

// sameDescription asks kcmp(2). Where the kernel lacks it or forbids it, the
// same inode is taken for the same file.
func sameDescription(a, b int) (bool, error) {
	const kcmpFile = 0
	pid := uintptr(os.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	if errno == 0 {
		return order == 0, nil
	}
	var sa, sb unix.Stat_t
	if err := unix.Fstat(a, &sa); err != nil {
		return false, err
	}
	if err := unix.Fstat(b, &sb); err != nil {
		return false, err
	}
	return sa.Dev == sb.Dev && sa.Ino == sb.Ino, nil
}
