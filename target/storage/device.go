// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceSize returns the size in bytes of the block device fd.
func deviceSize(fd int) (int64, error) {
	var size uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int64(size), nil
}

// deviceQueue returns sysfs' directory with the queue limits of a block
// device. A partition has those of its disk.
func deviceQueue(sys string, rdev uint64) string {
	dir := filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev)))
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	return filepath.Join(dir, "queue")
}

// queueGranularity returns how many bytes a discard frees at the least on a
// device with the queue limits in dir, 0 for none.
//
// A discard here is fallocate(2) with FALLOC_FL_PUNCH_HOLE, which the kernel
// turns into Write Zeroes with leave to unmap: unlike BLKDISCARD it promises
// that zeros are read afterwards. So the device needs both abilities.
func queueGranularity(dir string) int64 {
	g := queueLimit(dir, "discard_granularity")
	if g == 0 || queueLimit(dir, "discard_max_bytes") == 0 || queueLimit(dir, "write_zeroes_max_bytes") == 0 {
		return 0
	}
	return powerOfTwo(g)
}

// queueLimit reads one number; what can't be read is 0.
func queueLimit(dir, name string) int64 {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// powerOfTwo rounds n up to a power of two; 0 where that has no place in an
// int64, and for n <= 0.
func powerOfTwo(n int64) int64 {
	if n <= 0 || n > 1<<62 {
		return 0
	}
	return 1 << bits.Len64(uint64(n-1))
}
