// SPDX-License-Identifier: Apache-2.0

// Package limit bounds how often something happens, such as a log line that others
// can cause.
package limit

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limiter allows a number of events in a period on average, and as many at once. It adds
// to a rate.Limiter the count of what it has refused.
type Limiter struct {
	rate    *rate.Limiter
	refused atomic.Int64 // since the last event that was allowed
}

// New returns a Limiter of max events in every period.
func New(max int, period time.Duration) *Limiter {
	return &Limiter{rate: rate.NewLimiter(rate.Every(period/time.Duration(max)), max)}
}

// Allow reports whether one more event is allowed, and if so how many have
// been refused since the last one.
func (l *Limiter) Allow() (ok bool, refused int64) { return l.allow(time.Now()) }

func (l *Limiter) allow(now time.Time) (ok bool, refused int64) {
	if !l.rate.AllowN(now, 1) {
		l.refused.Add(1)
		return false, 0
	}
	return true, l.refused.Swap(0)
}

// Wait waits until one more event is allowed, or stop is closed, and reports
// whether that took waiting.
func (l *Limiter) Wait(stop <-chan struct{}) (waited bool) {
	r := l.rate.Reserve()
	d := r.Delay()
	if d == 0 {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
		r.Cancel()
	}
	return true
}

// Log logs a line unless there are too many of them. The next line that is logged says how
// many were left out.
func (l *Limiter) Log(log *slog.Logger, level slog.Level, text string, args ...any) {
	l.log(time.Now(), log, level, text, args...)
}

func (l *Limiter) log(now time.Time, log *slog.Logger, level slog.Level, text string, args ...any) {
	ok, suppressed := l.allow(now)
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	log.Log(context.Background(), level, text, args...)
}
