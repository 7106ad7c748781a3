// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Who wants a seat when all are taken makes one that has been idle for this
// long free.
const idleSeat = 10 * time.Millisecond

// The runtime's monitor lets a goroutine run on for 10 ms.
const yieldEvery = 5 * time.Millisecond

// A seat is for one goroutine that waits in the kernel. A reader keeps it while it
// works, so that it need not look for one each time.
type seat struct {
	event   int // eventfd that ends the wait
	poll    [2]unix.PollFd
	count   atomic.Uint32 // beginnings and ends of waits: odd during one
	leave   atomic.Bool   // its reader is to give it back
	yielded time.Time     // when its reader last let others run
	seen    uint32        // count when it was last looked at; the seats' lock protects it
}

// wait waits for events of fd, or for wake. It reports false when the seat
// is wanted back.
func (t *seat) wait(fd int, events int16) bool {
	t.poll[0] = unix.PollFd{Fd: int32(fd), Events: events}
	t.poll[1] = unix.PollFd{Fd: int32(t.event), Events: unix.POLLIN}
	t.yield()
	t.count.Add(1)
	n, _ := unix.Ppoll(t.poll[:], nil, nil) // EINTR is a reason to look again, too
	t.count.Add(1)
	if n > 0 && t.poll[1].Revents != 0 {
		var b [8]byte
		_, _ = unix.Read(t.event, b[:])
	}
	return !t.leave.Load()
}

// yield lets the scheduler see now and then that the goroutine does not run for ever.
// Else the runtime's monitor takes its processor away in the middle of a wait, every 10 ms,
// and then wakes up every 20 µs for a while to see whether there is more to take.
func (t *seat) yield() {
	now := time.Now()
	if now.Sub(t.yielded) > yieldEvery {
		t.yielded = now
		runtime.Gosched()
	}
}

// wake ends the wait under way, or else the next one.
func (t *seat) wake() {
	one := [8]byte{1} // not 0 in any byte order
	_, _ = unix.Write(t.event, one[:])
}

// Seats are those that some sockets share.
type Seats struct {
	mu     sync.Mutex // protects the fields below
	all    []*seat
	free   []*seat
	looked time.Time // for idle ones
}

// NewSeats returns a number of seats, or as many as there are descriptors for:
// who finds none waits in the runtime's poller.
func NewSeats(number int) *Seats {
	a := new(Seats)
	for range number {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			break
		}
		a.all = append(a.all, &seat{event: fd})
	}
	a.free = slices.Clone(a.all)
	return a
}

// take returns a free seat, nil if there is none just now.
func (a *Seats) take() *seat {
	if !a.mu.TryLock() {
		return nil
	}
	defer a.mu.Unlock()
	if n := len(a.free); n > 0 {
		t := a.free[n-1]
		a.free = a.free[:n-1]
		return t
	}
	a.clearLocked()
	return nil
}

// clearLocked wants one seat back that nobody has used since the last look.
func (a *Seats) clearLocked() {
	now := time.Now()
	if now.Sub(a.looked) < idleSeat {
		return
	}
	a.looked = now
	found := false
	for _, t := range a.all {
		n := t.count.Load()
		if n%2 == 1 && n == t.seen && !found {
			found = true
			t.leave.Store(true)
			t.wake()
		}
		t.seen = n
	}
}

// give takes a seat back.
func (a *Seats) give(t *seat) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.leave.Store(false)
	a.free = append(a.free, t)
}

// Close ends what the seats hold. All sockets are closed. A second call does nothing.
func (a *Seats) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.all {
		_ = unix.Close(t.event)
	}
	a.all, a.free = nil, nil
}
