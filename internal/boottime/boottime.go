// SPDX-License-Identifier: Apache-2.0

// Package boottime carries times from one process to the next, on the same host and in the
// same boot, so that setting the clock moves none of them. Within a process Go's times do that by
// themselves; what is written down loses it.
package boottime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Stamp is a time in nanoseconds of CLOCK_BOOTTIME. 0 is the zero time.
type Stamp int64

// now reads the clock that counts from the start of the host. It can't fail with these arguments.
func now() Stamp {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return Stamp(ts.Nano())
}

// Of returns the stamp of a time of this process.
func Of(t time.Time) Stamp {
	if t.IsZero() {
		return 0
	}
	return now() + Stamp(time.Until(t))
}

// Time returns the time of a stamp, by the clock as it is set now.
func (s Stamp) Time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(s - now()))
}

// Or returns the time of a stamp, or the other one if there is no stamp: if an older process has
// written the latter alone.
func (s Stamp) Or(t time.Time) time.Time {
	if s == 0 {
		return t
	}
	return s.Time()
}
