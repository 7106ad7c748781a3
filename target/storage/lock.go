// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/internal/proc"
)

// udev holds a shared lock on a disk while it probes it, for instance right
// after a daemon that served the disk has closed it. So an attempt at the lock is
// repeated udevTries times, udevPause apart.
const (
	udevTries = 20
	udevPause = 50 * time.Millisecond
)

// LockFile returns the file whose description holds the lock. After an opening with
// InheritLock it is the store's own file, which holds no lock until AdoptLock.
func (s *file) LockFile() *os.File {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	return s.held
}

// AdoptLock takes over the lock that f's description holds, and keeps f until
// Close. f must be the same file or device as the store's. A lock that is
// missing, or only shared where this store writes, is taken here; an exclusive
// one stays so even for a store that only reads, since the process that passed
// it may have to go on. On error f is closed.
func (s *file) AdoptLock(f *os.File) error {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if err := s.adoptLocked(f); err != nil {
		f.Close()
		return err
	}
	if s.held != s.main {
		s.held.Close()
	}
	s.held = f
	s.unread.Store(true)
	return nil
}

func (s *file) adoptLocked(f *os.File) error {
	var mine, theirs unix.Stat_t
	if err := unix.Fstat(int(s.fd.Load()), &mine); err != nil {
		return &Error{Op: "lock", Path: s.path, Err: err}
	}
	if err := unix.Fstat(descriptor.Number(f), &theirs); err != nil {
		return &Error{Op: "lock", Path: s.path, Err: err}
	}
	if !sameFile(&mine, &theirs) {
		return &Error{Op: "lock", Path: s.path, Err: errors.New("the lock passed on is another file's")}
	}
	if s.readOnly {
		if heldLock(f) != 0 {
			return nil
		}
		return lock(f, s.path, true, s.device)
	}
	// A description that has the exclusive lock already keeps it. Looking in /proc first
	// took half of the pause of an upgrade with 1,000 stores.
	err := lock(f, s.path, false, s.device)
	if err != nil {
		// Where flock(2) refuses to turn a shared lock into an exclusive one, the shared
		// lock is lost: take it again. It does not matter if there was none and this fails.
		_ = flock(f, unix.LOCK_SH)
	}
	return err
}

// TakeLock takes the lock of a store that was opened with InheritLock and was
// passed none. A lock that the store has already stays as it is. The error is
// an [*Error], an [ErrLocked] when another process serves the file.
func (s *file) TakeLock() error {
	s.lockMu.Lock()
	defer s.lockMu.Unlock()
	if heldLock(s.main) != 0 || s.held != s.main {
		return nil
	}
	return lock(s.main, s.path, s.readOnly, s.device)
}

// sameFile tells whether two descriptors lead to the same blocks. A device may
// have several nodes.
func sameFile(a, b *unix.Stat_t) bool {
	if a.Mode&unix.S_IFMT == unix.S_IFBLK && b.Mode&unix.S_IFMT == unix.S_IFBLK {
		return a.Rdev == b.Rdev
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}

// lock takes the lock that keeps other daemons away from f. It is flock(2)'s
// and not fcntl(2)'s because it belongs to the open file description and so
// goes with the descriptor to another process.
func lock(f *os.File, path string, shared, device bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	err := flock(f, how)
	for try := 1; device && err == unix.EWOULDBLOCK && try < udevTries; try++ {
		time.Sleep(udevPause)
		err = flock(f, how)
	}
	if err == unix.EWOULDBLOCK {
		err = findHolder(f)
	}
	if err != nil {
		return &Error{Op: "lock", Path: path, Err: err}
	}
	return nil
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(descriptor.Number(f), how|unix.LOCK_NB)
		if err != unix.EINTR {
			return err
		}
	}
}

// A holder is the process whose lock is in the way; 0 is an unknown one.
type holder int

// Error says who serves the file.
func (h holder) Error() string {
	switch int(h) {
	case 0:
		return ErrLocked.Error()
	case os.Getpid():
		return "this process serves it already"
	}
	return fmt.Sprintf("%v: %s", ErrLocked, proc.Name(int(h)))
}

// Is makes every holder an ErrLocked.
func (h holder) Is(err error) bool { return err == ErrLocked }

// findHolder returns the holder of the lock on f's file.
func findHolder(f *os.File) holder {
	var st unix.Stat_t
	if unix.Fstat(descriptor.Number(f), &st) != nil {
		return 0
	}
	list, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer list.Close()
	pid := lockHolder(list, &st)
	// A process that is no more has passed the lock on to one that lives.
	if pid > 0 && unix.Kill(pid, 0) == unix.ESRCH {
		pid = sharer(&st)
	}
	return holder(pid)
}

// sharer finds a process that has a descriptor with a lock of flock(2) on a file; 0 if it can't be seen.
func sharer(st *unix.Stat_t) int {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range procs {
		if _, locks := opensForWriting(dir, st); locks {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			return pid
		}
	}
	return 0
}

// lockHolder finds in /proc/locks (proc(5)) which process took the flock on a
// file; 0 if it is not listed.
func lockHolder(list io.Reader, st *unix.Stat_t) int {
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		// 1: FLOCK ADVISORY WRITE 812 fe:01:131 0 EOF
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "FLOCK" || f[5] != inode {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}

// heldLock returns the kind of flock that f's description holds, LOCK_EX or
// LOCK_SH, or 0 when it holds none or the system does not tell.
func heldLock(f *os.File) int {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", descriptor.Number(f)))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(info)) {
		// lock: 1: FLOCK ADVISORY WRITE 812 fe:01:131 0 EOF
		w := strings.Fields(line)
		if len(w) < 5 || w[0] != "lock:" || w[2] != "FLOCK" {
			continue
		}
		if w[4] == "WRITE" {
			return unix.LOCK_EX
		}
		return unix.LOCK_SH
	}
	return 0
}
