// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"sync/atomic"
	"time"
)

// A buffered write that took longer than slowWrite has not just copied. For slowTime
// none is tried then, so one a second may have to wait.
const (
	slowWrite = 10 * time.Millisecond
	slowTime  = time.Second
)

// began is when the process did; times since then are monotonic.
var began = time.Now()

// A jam is what writers to a file's page cache get into when too much of that is
// dirty: the kernel holds them up until the device has caught up. There is no flag
// by which a write asks not to wait on every file system, so a jam is known by its
// first victim.
type jam struct {
	until atomic.Int64 // nanoseconds since the process began
}

// on reports whether there is a jam.
func (j *jam) on(now time.Duration) bool { return now < time.Duration(j.until.Load()) }

// note learns from a write.
func (j *jam) note(start, end time.Duration) {
	if end-start > slowWrite {
		j.until.Store(int64(end + slowTime))
	}
}
