// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"sync/atomic"
	"time"
)

// A buffered write that took longer than slowWrite has waited for the device, and not just
// copied into the page cache. For slowTime after it, no write is tried on the goroutine that
// reads the connection, so at most one write per slowTime can hold it up.
const (
	slowWrite = 10 * time.Millisecond
	slowTime  = time.Second
)

// began is a time at the start of the process; time.Since(began) is monotonic.
var began = time.Now()

// A throttle tells whether the kernel makes buffered writes to a file wait, as it does while
// too much of the page cache is dirty. Not every file system has RWF_NOWAIT for buffered
// writes, so it is detected by a write that took long.
type throttle struct {
	until atomic.Int64 // nanoseconds since the process began
}

// on reports whether writes have to be expected to wait at the time now.
func (t *throttle) on(now time.Duration) bool { return now < time.Duration(t.until.Load()) }

// note takes into account how long a write took.
func (t *throttle) note(start, end time.Duration) {
	if end-start > slowWrite {
		t.until.Store(int64(end + slowTime))
	}
}
