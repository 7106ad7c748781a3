// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// outage is what a client suffers when its target is replaced: it reads 4 KiB
// at a time and logs in again, every redialPause, when that fails. Durations
// are in nanoseconds.
type outage struct {
	Times   int           `json:"times"`
	Median  time.Duration `json:"median"` // of the longest waits
	Longest time.Duration `json:"longest"`
	Failed  int           `json:"failed"` // commands, all times together
	Logins  int           `json:"logins"` // that succeeded, after the first
}

const (
	redialPause = 10 * time.Millisecond
	outageLimit = time.Minute // of one event and the recovery after it
)

// measure has the target replaced several times.
func (o *outage) measure(ctx context.Context, u unit, replace func(context.Context) error) error {
	var waits []time.Duration
	for range outageRounds {
		w, err := watch(ctx, u, replace)
		if err != nil {
			return err
		}
		waits = append(waits, w.longest)
		o.Failed += w.failed
		o.Logins += w.logins
	}
	o.Times, o.Median, o.Longest = len(waits), percentile(waits, 50), percentile(waits, 100)
	return nil
}

// measureTgt replaces a tgt by killing it, which is how it has to be stopped while
// it has sessions, and starting it at once.
func (o *outage) measureTgt(ctx context.Context, dir string, size int64) error {
	disk, err := newDisk(filepath.Join(dir, "restarted.d"), size)
	if err != nil {
		return err
	}
	options := peer.Options{Config: peer.OneDisk(disk, ""), Dir: filepath.Dir(disk)}
	t, err := peer.StartTgt(ctx, options)
	if err != nil {
		return err
	}
	defer func() { t.Kill() }()
	options.Address = t.Portals()[0]
	return o.measure(ctx, unit{options.Address, peer.IQN, 1}, func(ctx context.Context) error {
		t.Kill()
		again, err := peer.StartTgt(ctx, options)
		if err == nil {
			t = again
		}
		return err
	})
}

// String is the line of a terminal.
func (o *outage) String() string {
	return fmt.Sprintf("%d times, longest wait %v in the median, %v at most; %d commands failed, %d new logins",
		o.Times, o.Median.Round(time.Microsecond), o.Longest.Round(time.Microsecond), o.Failed, o.Logins)
}

func (o *outage) writeRow(b *strings.Builder, name string) {
	row(b, false, name, fmt.Sprint(o.Times), millis(o.Median), millis(o.Longest), fmt.Sprint(o.Failed), fmt.Sprint(o.Logins))
}

// A witness reads without end and takes notice.
type witness struct {
	unit    unit
	session *initiator.Session
	longest time.Duration // between two commands that succeeded
	failed  int
	logins  int
}

// watch has a client read while event happens, and until it is served again.
func watch(ctx context.Context, u unit, event func(context.Context) error) (*witness, error) {
	ctx, cancel := context.WithTimeout(ctx, outageLimit)
	defer cancel()
	w := &witness{unit: u}
	if err := w.login(ctx); err != nil {
		return nil, err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	served, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.read(reading, served)
	}()
	err := await(ctx, served)
	if err == nil {
		err = event(ctx)
	}
	for range 2 { // the second has begun after the event
		if err == nil {
			err = await(ctx, served)
		}
	}
	stop()
	<-ended
	if w.session != nil {
		_ = w.session.Close() // its errors have been counted
	}
	return w, err
}

func await(ctx context.Context, served <-chan struct{}) error {
	select {
	case <-served:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the client is not served: %w", context.Cause(ctx))
	}
}

func (w *witness) login(ctx context.Context) error {
	sessions, err := dialAll(ctx, w.unit, 1, false)
	if err != nil {
		for _, s := range sessions {
			_ = s.Close()
		}
		return err
	}
	w.session = sessions[0]
	return nil
}

// read reads until ctx ends, and tells served of commands that succeeded if anyone
// asks.
func (w *witness) read(ctx context.Context, served chan<- struct{}) {
	buf := make([]byte, small)
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := time.Now()
	for ctx.Err() == nil {
		var cmd initiator.Command
		err := w.session.Do(ctx, cmd.Read16(initiator.LUN(w.unit.LUN), 0, small/512, buf, 0))
		if err == nil {
			err = cmd.Failed()
		}
		if err == nil {
			now := time.Now()
			w.longest, last = max(w.longest, now.Sub(last)), now
			select {
			case served <- struct{}{}:
			default:
			}
			continue
		}
		if ctx.Err() != nil {
			return
		}
		w.failed++
		_ = w.session.Close()
		for w.session = nil; w.session == nil; {
			timer.Reset(redialPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			if w.login(ctx) == nil {
				w.logins++
			}
		}
	}
}
