// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/test/lab/counter"
	"github.com/gotgtd/gotgtd/test/peer"
)

// follower sees the guest's numbers arrive on the disk, where the target keeps it.
type follower struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended and err is set
	err    error

	mu       sync.Mutex // protects arrivals
	arrivals []counter.Arrival
}

// startFollower follows the counter of the disk in a file. Who starts it has to stop it.
func startFollower(file string) (*follower, error) {
	disk, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer disk.Close()
		f.err = counter.Follow(ctx, disk, counterOffset, counterSize, f.seen)
	}()
	return f, nil
}

func (f *follower) seen(a counter.Arrival) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.arrivals = append(f.arrivals, a)
}

func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.arrivals)
}

// progressNumbers is how far the counter has to go on to show that the guest works.
const progressNumbers = 30

// progress waits until the counter has gone on.
func (f *follower) progress(ctx context.Context) error {
	seen := f.count()
	return peer.Until(ctx, func() error {
		if n := f.count() - seen; n < progressNumbers {
			return fmt.Errorf("%d numbers have arrived since number %d, and %d should", n, seen, progressNumbers)
		}
		return nil
	})
}

// stop returns all that arrived.
func (f *follower) stop() ([]counter.Arrival, error) {
	f.cancel()
	<-f.done
	return f.arrivals, f.err
}

// longestGap is the longest time between two numbers, and the number after which it was. Those
// times are left out that skip says.
func longestGap(arrivals []counter.Arrival, skip func(start, end time.Time) bool) (gap time.Duration, after uint64) {
	for i := 1; i < len(arrivals); i++ {
		start, end := arrivals[i-1].At, arrivals[i].At
		if d := end.Sub(start); d > gap && !skip(start, end) {
			gap, after = d, arrivals[i-1].Number
		}
	}
	return gap, after
}
