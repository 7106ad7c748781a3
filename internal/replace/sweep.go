// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// What the names of files that are written aside, and of those that were replaced, end in.
const (
	newSuffix = ".new"
	oldSuffix = ".old"
)

// aside is the name of a file beside path that this process makes for a while: .NAME.PID.new or .NAME.PID.old.
func aside(path, suffix string) string {
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d%s", filepath.Base(path), os.Getpid(), suffix))
}

// asideOf takes such a name apart.
func asideOf(entry string) (name string, pid int, ok bool) {
	rest, isNew := strings.CutSuffix(entry, newSuffix)
	if !isNew {
		if rest, ok = strings.CutSuffix(entry, oldSuffix); !ok {
			return "", 0, false
		}
	}
	dot := strings.LastIndexByte(rest, '.')
	if dot < 2 || rest[0] != '.' {
		return "", 0, false
	}
	pid, err := strconv.Atoi(rest[dot+1:])
	if err != nil || pid <= 0 || strconv.Itoa(pid) != rest[dot+1:] {
		return "", 0, false
	}
	return rest[1:dot], pid, true
}

// Sweep removes from a folder what writers of files there have left aside when they were killed or the
// power was cut, and returns its paths. ours tells which files they write. A file stays
// whose writer may live, and so do all while somebody has the folder locked for a change.
func Sweep(folder string, ours func(name string) bool) (removed []string, err error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	switch err := unix.Flock(descriptor.Number(dir), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
	case unix.EWOULDBLOCK, unix.EINTR:
		return nil, nil
	default:
		return nil, fmt.Errorf("can't lock %s: %w", folder, err)
	}
	entries, err := dir.ReadDir(-1)
	for _, e := range entries {
		name, pid, ok := asideOf(e.Name())
		if !ok || e.Type()&fs.ModeType != 0 || !ours(name) || lives(pid) {
			continue
		}
		swept, sweepErr := sweep(dir, e.Name())
		if swept {
			removed = append(removed, filepath.Join(folder, e.Name()))
		}
		err = errors.Join(err, sweepErr)
	}
	return removed, err
}

// lives reports whether there is a process, which may be another user's.
func lives(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// sweep removes a file that a trusted user has made, and that nobody has locked: a writer of another PID
// namespace can't be seen.
func sweep(dir *os.File, entry string) (bool, error) {
	fail := func(op string, err error) (bool, error) {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
			return false, nil
		}
		return false, &fs.PathError{Op: op, Path: filepath.Join(dir.Name(), entry), Err: err}
	}
	fd, err := unix.Openat(descriptor.Number(dir), entry, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail("stat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !trusted(st.Uid) || unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false, nil
	}
	if err := unix.Unlinkat(descriptor.Number(dir), entry, 0); err != nil {
		return fail("remove", err)
	}
	return true, nil
}
