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
	seats   *Seats
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
	if t.yield() && t.seats.over() {
		t.leave.Store(true)
	}
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
// yield reports whether it has let others run.
func (t *seat) yield() bool {
	now := time.Now()
	if now.Sub(t.yielded) <= yieldEvery {
		return false
	}
	t.yielded = now
	runtime.Gosched()
	return true
}

// wake ends the wait under way, or else the next one.
func (t *seat) wake() {
	one := [8]byte{1} // not 0 in any byte order
	_, _ = unix.Write(t.event, one[:])
}

// Seats are those that some sockets share.
type Seats struct {
	limit func() int // how many may be taken just now; nil: all

	mu     sync.Mutex // protects the fields below
	all    []*seat
	free   []*seat
	looked time.Time // for idle ones
}

// shared are the seats of the process, nil while nobody has any.
var shared struct {
	mu      sync.Mutex // protects what follows
	seats   *Seats
	sharers int
}

// SharedSeats returns the seats of the process: as many as it has cores, of which no more
// are taken at a time than half of GOMAXPROCS, as that is then. A reader
// in a seat may keep one of Go's processors from the rest of the program, so that bound
// is one for all who have sockets. Each of them calls release when its own are closed; the
// last release ends what the seats hold.
func SharedSeats() (seats *Seats, release func()) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.seats == nil {
		shared.seats = NewSeats(runtime.NumCPU())
		shared.seats.limit = func() int { return runtime.GOMAXPROCS(0) / 2 }
	}
	shared.sharers++
	return shared.seats, sync.OnceFunc(releaseShared)
}

func releaseShared() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.sharers--; shared.sharers == 0 {
		shared.seats.Close()
		shared.seats = nil
	}
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
		a.all = append(a.all, &seat{seats: a, event: fd})
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
	if n := len(a.free); n > 0 && (a.limit == nil || len(a.all)-n < a.limit()) {
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

// over reports whether more seats are taken than may be by now.
func (a *Seats) over() bool {
	if a.limit == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.all)-len(a.free) > a.limit()
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
