// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Identify returns what is at path, the ID that [Info] says of its store and its size in bytes now,
// without opening it for use.
func Identify(path string) (id string, size int64, err error) {
	l, err := look(path, nil)
	return l.id, l.size, err
}

// identify returns what Info will say of the store that o opens, its ID and its size: of a file that has
// to grow the one that it grows to.
func (o *Options) identify() (id string, size int64, err error) {
	l, err := look(o.Path, o)
	if err != nil {
		return "", 0, err
	}
	if !l.device && !o.ReadOnly {
		l.size = max(l.size, o.Size)
	}
	return l.id, l.size - l.size%l.unit, nil
}

// looked is what is found at a path.
type looked struct {
	id     string
	size   int64 // bytes
	device bool
	unit   int64 // that the size of a store is a multiple of, with the options
}

// look opens what is at path to look at it. o may be nil.
func look(path string, o *Options) (l looked, err error) {
	// O_NONBLOCK as in openPath.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return looked{}, &Error{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return looked{}, &Error{Op: "open", Path: path, Err: err}
	}
	l = looked{id: identity(&st), size: st.Size, device: st.Mode&unix.S_IFMT == unix.S_IFBLK}
	if l.device {
		if l.size, err = deviceSize(fd); err != nil {
			return looked{}, &Error{Op: "measure", Path: path, Err: err}
		}
	}
	if o != nil {
		if _, _, l.unit, err = o.units(fd, l.device); err != nil {
			return looked{}, &Error{Op: "measure", Path: path, Err: err}
		}
	}
	return l, nil
}

// Existed reports whether the store at path was there at a time already: whether the file
// system says that it was made before. Where nothing tells, as of many devices and on older
// file systems, it reports false.
func Existed(path string, at time.Time) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st)
	return err == nil && st.Mask&unix.STATX_BTIME != 0 && !time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)).After(at)
}

// Lasting reports whether an ID that [Identify] has returned can't be that of another store
// later: a device says it of itself. A file's can, as soon as the file is gone, and
// so can the number of a device that says nothing.
func Lasting(id string) bool {
	name, ok := strings.CutPrefix(id, "device:")
	return ok && strings.Trim(name, "0123456789:") != ""
}

// identity tells a file or device whatever its path: a file by its device and
// inode, a block device by what the kernel says of its unit, or else by its number.
func identity(st *unix.Stat_t) string {
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Sprintf("file:%d:%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	dir := "/sys/dev/block/" + number
	if name := attribute(dir, "loop/backing_file"); name != "" {
		if id, _, err := Identify(name); err == nil {
			return "loop:" + id + "+" + attribute(dir, "loop/offset")
		}
	}
	for _, file := range []string{"wwid", "device/wwid", "dm/uuid", "md/uuid"} {
		if id := attribute(dir, file); id != "" {
			return "device:" + id
		}
	}
	if part := attribute(dir, "partition"); part != "" {
		for _, file := range []string{"wwid", "device/wwid"} {
			if id := attribute(filepath.Join(dir, ".."), file); id != "" {
				return "device:" + id + "-part" + part
			}
		}
	}
	return "device:" + number
}

// attribute reads a file of sysfs, empty if it is not there.
func attribute(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
