// SPDX-License-Identifier: Apache-2.0

package boottime

import (
	"testing"
	"time"
)

// near tells whether two times are the same but for what a busy machine makes of it.
func near(a, b time.Time) bool { return a.Sub(b).Abs() < time.Minute }

func TestStamp(t *testing.T) {
	for _, d := range []time.Duration{-1000 * time.Hour, 0, time.Second, 1000 * time.Hour} {
		at := time.Now().Add(d)
		if got := Of(at).Time(); !near(got, at) {
			t.Errorf("of %v: %v", at, got)
		}
	}
	if got := Of(time.Time{}); got != 0 || !got.Time().IsZero() {
		t.Errorf("the zero time is %d, %v", got, got.Time())
	}
}

// TestSetClock: a time that was noted before the clock was set keeps its distance from now. That
// the clock was set shows in a time of which the wall clock reads other than now's, and the
// monotonic clock does not.
func TestSetClock(t *testing.T) {
	noted := Of(time.Now().Add(-time.Minute))
	wall := time.Now().Add(time.Hour).Round(0) // what an older process notes before the clock is set back by an hour
	if age := time.Since(noted.Or(wall)); age < time.Minute || age > 30*time.Minute {
		t.Errorf("it was %v ago", age)
	}
	if got := Stamp(0).Or(wall); !got.Equal(wall) {
		t.Errorf("without a stamp: %v, want %v", got, wall)
	}
}
