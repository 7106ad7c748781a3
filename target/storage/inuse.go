// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/internal/proc"
)

// ErrInUse is a device that the system uses, or a file that another program has
// open for writing.
var ErrInUse = errors.New("it is in use")

// ErrWritten is the [ErrInUse] of a file that another program has open for writing.
var ErrWritten = fmt.Errorf("%w", ErrInUse)

// checkUse returns an error if another program uses the file or device. A daemon that holds
// the lock does not count as one: it is the predecessor of this process, or, when a
// configuration is only checked, the daemon that serves the file.
func (o *Options) checkUse(f *os.File, st *unix.Stat_t, device bool) error {
	switch {
	case o.AllowInUse:
		return nil
	case device && deviceInUse(o.Path):
		return fmt.Errorf("%w by the system, mounted perhaps (see allow-in-use)", ErrInUse)
	case device:
		return nil
	}
	// Programs that inspect each new file close it again soon, so this is tried several times.
	for try := 1; hasWriters(f) && !o.served(f, st); try++ {
		switch w := findWriter(st); {
		case w.own:
			return nil
		case w.name != "":
			return fmt.Errorf("%w: %s has it open for writing: end that, or set allow-in-use", ErrWritten, w.name)
		case try == udevTries:
			return fmt.Errorf("%w: a program that this one can't see has it open for writing: end that, or set allow-in-use", ErrWritten)
		}
		time.Sleep(udevPause)
	}
	return nil
}

// deviceInUse reports whether a block device is mounted, a part of a RAID or
// used by the system in another way: open(2) with O_EXCL fails with EBUSY then. That
// gotgtd itself has it open does not count, since it opens without O_EXCL.
func deviceInUse(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.EBUSY)
}

// hasWriters tells whether any process has the file open for writing: then the kernel
// refuses a read lease (fcntl(2), F_SETLEASE). f itself is open for reading only. On a
// file system without leases the answer is no.
func hasWriters(f *os.File) bool {
	_, err := unix.FcntlInt(uintptr(descriptor.Number(f)), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(uintptr(descriptor.Number(f)), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return err == unix.EAGAIN
}

// served tells whether a daemon holds the lock of the file.
func (o *Options) served(f *os.File, st *unix.Stat_t) bool {
	if !o.InheritLock {
		return lockListed(st)
	}
	// With 1,000 files, an attempt at the lock is quicker than reading /proc/locks. If
	// it succeeds, the lock is given up at once: no other daemon asks for it during an upgrade.
	if err := flock(f, unix.LOCK_EX); err != nil {
		return err == unix.EWOULDBLOCK
	}
	_ = flock(f, unix.LOCK_UN)
	return false
}

// lockListed tells whether anybody has a lock of flock(2) on the file, also one
// whose process is in another PID namespace.
func lockListed(st *unix.Stat_t) bool {
	list, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false
	}
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(list)) {
		if w := strings.Fields(line); len(w) > 5 && w[1] == "FLOCK" && w[5] == inode {
			return true
		}
	}
	return false
}

// A writer is a process, or a loop device, that has a file open for writing.
type writer struct {
	name string // empty: not found
	own  bool   // this process, or a daemon with the lock, and no other that can be seen
}

// findWriter looks for a process or a loop device that has a file open for writing.
func findWriter(st *unix.Stat_t) writer {
	var w writer
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range procs {
		writes, locks := opensForWriting(dir, st)
		pid := filepath.Base(dir)
		switch {
		case locks:
			// A daemon that shares the lock. /proc/locks may have left it out, as it is
			// read in pieces while others lock and unlock.
			return writer{own: true}
		case !writes || w.name != "":
		case pid == strconv.Itoa(os.Getpid()):
			w.own = true
		default:
			number, _ := strconv.Atoi(pid)
			w = writer{name: proc.Name(number)}
		}
	}
	if w.name != "" {
		return w
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range loops {
		var back unix.Stat_t
		dir := filepath.Dir(filepath.Dir(name))
		if unix.Stat(attribute(dir, "loop/backing_file"), &back) == nil && sameFile(&back, st) {
			return writer{name: "the loop device /dev/" + filepath.Base(dir)}
		}
	}
	return w
}

// opensForWriting tells whether the process of a folder in /proc has a file open
// for writing, and whether it has a lock of flock(2) on it. One that may not be
// looked at has not.
func opensForWriting(proc string, st *unix.Stat_t) (writes, locks bool) {
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return false, false
	}
	for _, fd := range fds {
		var its unix.Stat_t
		if unix.Stat(filepath.Join(proc, "fd", fd.Name()), &its) != nil || !sameFile(&its, st) {
			continue
		}
		for line := range strings.Lines(attribute(proc, "fdinfo/"+fd.Name())) {
			if value, ok := strings.CutPrefix(line, "flags:"); ok {
				flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 64)
				writes = writes || err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
			}
			locks = locks || strings.HasPrefix(line, "lock:") && strings.Contains(line, " FLOCK ")
		}
	}
	return writes, locks
}
