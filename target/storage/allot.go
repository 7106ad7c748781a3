// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/internal/replace"
)

// allocSlice is how much space is taken at a time: little enough that somebody can
// wait for it where a file system writes zeros.
const allocSlice = 128 << 20

// checkSize refuses to make a file without a single block.
func (o *Options) checkSize() error {
	if o.Size < o.blockSize() {
		return &Error{Op: "create", Path: o.Path, Err: fmt.Errorf("a size of %d bytes is less than one block", o.Size)}
	}
	return nil
}

// allot makes f, which has size bytes, o.Size bytes long, durably. Where that
// fails the file is as it was; the next start goes on with one that was empty.
func allot(f *os.File, o *Options, size int64) error {
	op := "grow"
	if size == 0 {
		op = "create"
		if err := o.checkSize(); err != nil {
			return err
		}
	}
	var err error
	if o.Preallocate {
		err = preallocate(f, o, size)
	}
	if err == nil {
		err = unix.Ftruncate(descriptor.Number(f), o.Size)
	}
	if err == nil {
		if err = unix.Fsync(descriptor.Number(f)); err != nil && size > 0 {
			_ = unix.Ftruncate(descriptor.Number(f), size) // or the old size would be refused
		}
	}
	if err == nil && size == 0 {
		err = replace.SyncFolder(filepath.Dir(o.Path))
	}
	if err != nil {
		return &Error{Op: op, Path: o.Path, Err: err}
	}
	return nil
}

// preallocate takes the space for o.Size bytes. The file keeps its size
// meanwhile, so that one which was left half done is known by it.
func preallocate(f *os.File, o *Options, size int64) error {
	if err := checkSpace(f, o.Size); err != nil {
		return err
	}
	for off := int64(0); ; {
		if o.Progress != nil {
			if err := o.Progress(off, o.Size); err != nil {
				return err
			}
		}
		if off == o.Size {
			return nil
		}
		n := min(o.Size-off, allocSlice)
		err := unix.Fallocate(descriptor.Number(f), unix.FALLOC_FL_KEEP_SIZE, off, n)
		switch {
		case err == unix.EINTR:
			continue
		case unsupported(err):
			return errors.New("its file system can't preallocate (fallocate(2)): leave preallocate out")
		case err != nil:
			_ = unix.Ftruncate(descriptor.Number(f), size) // gives back what was taken past the end
			return fmt.Errorf("can't preallocate %s: %w: make room there, or leave preallocate out", bytesText(o.Size), err)
		}
		off += n
	}
}

// checkSpace refuses early what the file system has no room for.
func checkSpace(f *os.File, want int64) error {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(descriptor.Number(f), &fs) != nil || unix.Fstat(descriptor.Number(f), &st) != nil {
		return nil // then fallocate will tell
	}
	free, need := int64(fs.Bavail)*fs.Bsize, want-st.Blocks*512
	if fs.Blocks > 0 && need > free {
		return fmt.Errorf("can't preallocate %s, its file system has %s free: %w: make room there, or leave preallocate out", bytesText(want), bytesText(free), unix.ENOSPC)
	}
	return nil
}
