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

// A throttle is what writers to a file's page cache get into when too much of that is
// dirty: the kernel holds them up until the device has caught up. There is no flag
// by which a write asks not to wait on every file system, so a throttle is known by its
// first victim.
type throttle struct {
	until atomic.Int64 // nanoseconds since the process began
}

// on reports whether there is a throttle.
func (t *throttle) on(now time.Duration) bool { return now < time.Duration(t.until.Load()) }

// note learns from a write.
func (t *throttle) note(start, end time.Duration) {
	if end-start > slowWrite {
		t.until.Store(int64(end + slowTime))
	}
}
