// SPDX-License-Identifier: Apache-2.0

// Package limit bounds how often something happens, such as a log line that others
// can cause.
package limit

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Limiter allows a number of events in every period.
type Limiter struct {
	max    int
	period time.Duration

	mu      sync.Mutex // protects what follows
	since   time.Time
	count   int
	refused int
}

// New returns a Limiter of at most max events in every period.
func New(max int, period time.Duration) *Limiter {
	return &Limiter{max: max, period: period}
}

// Allow reports whether one more event is allowed, and if so how many have
// been refused since the last one.
func (l *Limiter) Allow() (ok bool, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.since) >= l.period {
		l.since, l.count = now, 0
	}
	if l.count >= l.max {
		l.refused++
		return false, 0
	}
	l.count++
	refused, l.refused = l.refused, 0
	return true, refused
}

// Wait waits until one more event is allowed, or stop is closed, and reports
// whether that took waiting.
func (l *Limiter) Wait(stop <-chan struct{}) (waited bool) {
	for {
		if ok, _ := l.Allow(); ok {
			return waited
		}
		waited = true
		l.mu.Lock()
		rest := time.Until(l.since.Add(l.period))
		l.mu.Unlock()
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return true
		}
	}
}

// Log logs a line unless there are too many of them; how many were left out, the
// next one says.
func (l *Limiter) Log(log *slog.Logger, level slog.Level, text string, args ...any) {
	ok, suppressed := l.Allow()
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	log.Log(context.Background(), level, text, args...)
}
