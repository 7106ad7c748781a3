// SPDX-License-Identifier: Apache-2.0

package service

import (
	"sync"
	"time"
)

// limiter allows a number of events in every period.
type limiter struct {
	max    int
	period time.Duration

	mu      sync.Mutex // protects what follows
	since   time.Time
	count   int
	refused int
}

func newLimiter(max int, period time.Duration) *limiter {
	return &limiter{max: max, period: period}
}

// allow reports whether one more event is allowed, and if so how many have
// been refused since the last one.
func (l *limiter) allow() (ok bool, refused int) {
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

// wait waits until one more event is allowed, or stop is closed, and reports
// whether that took waiting.
func (l *limiter) wait(stop <-chan struct{}) (waited bool) {
	for {
		if ok, _ := l.allow(); ok {
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
