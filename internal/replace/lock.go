// SPDX-License-Identifier: Apache-2.0

package replace

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
	"github.com/gotgtd/gotgtd/internal/proc"
)

// lockPause is between two attempts at a lock: a wait in flock(2) could not be given up.
const lockPause = 20 * time.Millisecond

// LockedError is a file that somebody else is changing for longer than was waited.
type LockedError struct {
	Path string
	Who  string // who holds the lock
	Err  error  // why there is no more waiting
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is being changed by %s, which holds the lock of its folder: try again when that has ended (%v)", e.Path, e.Who, e.Err)
}

func (e *LockedError) Unwrap() error { return e.Err }

// lock locks the folder of the file at path, and waits for that until ctx ends.
func lock(ctx context.Context, dir *os.File, path string) error {
	for {
		err := unix.Flock(descriptor.Number(dir), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			if err != nil {
				return fmt.Errorf("can't lock %s: %w", dir.Name(), err)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return &LockedError{path, proc.Locker(dir), context.Cause(ctx)}
		case <-time.After(lockPause):
		}
	}
}
