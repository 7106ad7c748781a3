// SPDX-License-Identifier: Apache-2.0

// Package socket reads and writes TCP connections for goroutines that own one
// each, and lets the busiest of them wait for the kernel without the poller of
// Go's runtime.
//
// That poller wakes a thread for an arrival, which looks around for work, and the
// goroutine may go on in another one; with a client that waits for each answer
// that is a third of the time. Who has a seat waits in the kernel itself, on the
// thread on which it goes on. Threads are few, so seats are few; who has none waits in the
// runtime's poller as usual. A socket is in one of the two at a time, or an
// arrival would wake two threads.
package socket

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A reader whose last wait was shorter than this may have a seat.
const busyWait = 10 * time.Millisecond

// A Socket is a connected TCP socket. One goroutine reads, waits for input, and
// closes; one at a time writes and waits for room. Wake and Shutdown are for everybody.
type Socket struct {
	seats         *Seats
	fd            int
	local, remote netip.AddrPort
	busy          bool // the reader's: its last wait was short

	mu      sync.Mutex // protects the fields below
	in, out waiter
	polled  polled          // in the runtime's poller; nil while the socket is not there
	raw     syscall.RawConn // polled's
	closed  bool
}

// waiter is the reader or the writer.
type waiter struct {
	events int16 // POLLIN or POLLOUT
	seat   *seat // nil for none
	polls  bool  // it waits in the runtime's poller
	woken  bool  // by Wake, since the end of its last wait
}

// polled is what *net.TCPConn and *os.File have for it.
type polled interface {
	syscall.Conn
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Close() error
}

// New returns a Socket that takes over c, but for an error.
func New(seats *Seats, c *net.TCPConn) (*Socket, error) {
	s, err := duplicate(seats, c)
	if err != nil {
		return nil, err
	}
	if err := s.enterLocked(c); err != nil {
		_ = unix.Close(s.fd)
		return nil, err
	}
	return s, nil
}

// FromFile returns a Socket with a descriptor of its own for the TCP connection of
// f, which stays the caller's.
func FromFile(seats *Seats, f *os.File) (*Socket, error) { return duplicate(seats, f) }

func duplicate(seats *Seats, c syscall.Conn) (*Socket, error) {
	s := &Socket{seats: seats, in: waiter{events: unix.POLLIN}, out: waiter{events: unix.POLLOUT}}
	raw, err := c.SyscallConn()
	if err == nil {
		var inner error
		if err = raw.Control(func(fd uintptr) { inner = s.open(fd) }); err == nil {
			err = inner
		}
	}
	if err != nil {
		return nil, fmt.Errorf("can't take over a connection: %w", err)
	}
	return s, nil
}

// open gives the Socket a descriptor of its own for what fd stands for.
func (s *Socket) open(fd uintptr) error {
	protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	if protocol != unix.IPPROTO_TCP {
		return fmt.Errorf("its protocol is %d, not TCP", protocol)
	}
	if err := unix.SetNonblock(int(fd), true); err != nil {
		return err
	}
	// The kernel no longer knows the addresses of a connection that was reset.
	if sa, err := unix.Getsockname(int(fd)); err == nil {
		s.local = address(sa)
	}
	if sa, err := unix.Getpeername(int(fd)); err == nil {
		s.remote = address(sa)
	}
	s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	return err
}

func address(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 && ip.Is6() {
			ip = ip.WithZone(fmt.Sprint(a.ZoneId))
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// Local returns the address of this end, the zero value if it is not known.
func (s *Socket) Local() netip.AddrPort { return s.local }

// Remote returns the address of the other end, likewise.
func (s *Socket) Remote() netip.AddrPort { return s.remote }

// FD returns the descriptor, which is the Socket's and valid until Close.
func (s *Socket) FD() int { return s.fd }

// The socket is non-blocking, so reads and writes can't wait: they need not
// tell the scheduler, which is what syscall.RawSyscall leaves out.

// Read reads what has arrived into b, which must not be empty. It returns
// unix.EAGAIN when that is nothing, and 0 at the end of the stream.
func (s *Socket) Read(b []byte) (int, error) {
	return transfer(unix.SYS_READ, s.fd, unsafe.Pointer(&b[0]), len(b))
}

// Writev writes what iov names, which must not be empty, and returns how many
// bytes the kernel took; unix.EAGAIN when there is no room.
func (s *Socket) Writev(iov []unix.Iovec) (int, error) {
	return transfer(unix.SYS_WRITEV, s.fd, unsafe.Pointer(&iov[0]), len(iov))
}

func transfer(call uintptr, fd int, p unsafe.Pointer, n int) (int, error) {
	for {
		done, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(p), uintptr(n))
		if errno == 0 {
			return int(done), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Wake makes AwaitRead and AwaitWrite return, those under way or else the next.
func (s *Socket) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range []*waiter{&s.in, &s.out} {
		w.woken = true
		switch {
		case w.seat != nil:
			w.seat.wake()
		case w.polls:
			w.setDeadline(s.polled, longAgo)
		}
	}
}

// setDeadline sets the deadline of the waiter's direction, and leaves the other's alone.
func (w *waiter) setDeadline(p polled, t time.Time) {
	if w.events == unix.POLLIN {
		_ = p.SetReadDeadline(t)
	} else {
		_ = p.SetWriteDeadline(t)
	}
}

var longAgo = time.Unix(1, 0)

// Shutdown ends the TCP connection in both directions, in whatever process
// it is open too.
func (s *Socket) Shutdown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
}

// Close closes the descriptor. The TCP connection goes on if another process has
// it too. Nobody may read, write or wait any more; a second call does nothing.
func (s *Socket) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.riseLocked(&s.in)
	s.leaveLocked()
	_ = unix.Close(s.fd)
}

// AwaitRead waits until there may be something to read, the other end is gone, or
// somebody has called Wake since the last wait. So a reader that looks for what others
// want of it before each wait misses nothing. try is the reader's way to read without
// waiting, and reports whether it has an outcome; its argument means nothing. AwaitRead
// reports whether it has called try with success.
func (s *Socket) AwaitRead(try func(uintptr) bool) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in.seat == nil && s.busy {
		s.in.seat = s.seats.take()
	}
	if s.in.seat != nil {
		s.waitLocked(&s.in)
		return false, nil
	}
	began := time.Now()
	done, err = s.pollLocked(&s.in, try)
	s.busy = time.Since(began) < busyWait
	return done, err
}

// AwaitWrite waits for room, and is like AwaitRead in all else.
func (s *Socket) AwaitWrite(try func(uintptr) bool) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.seat = s.seats.take(); s.out.seat != nil {
		s.waitLocked(&s.out)
		s.riseLocked(&s.out)
		return false, nil
	}
	return s.pollLocked(&s.out, try)
}

func (s *Socket) riseLocked(w *waiter) {
	if w.seat != nil {
		s.seats.give(w.seat)
		w.seat = nil
	}
}

// waitLocked waits in the seat.
func (s *Socket) waitLocked(w *waiter) {
	if !s.in.polls && !s.out.polls {
		s.leaveLocked()
	}
	if !w.woken {
		t := w.seat
		s.mu.Unlock()
		stay := t.wait(s.fd, w.events)
		s.mu.Lock()
		if !stay {
			s.riseLocked(w)
		}
	}
	w.woken = false
}

// pollLocked waits in the runtime's poller.
func (s *Socket) pollLocked(w *waiter, try func(uintptr) bool) (bool, error) {
	if w.woken {
		w.woken = false
		return false, nil
	}
	if s.polled == nil {
		fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return false, fmt.Errorf("can't wait for a connection: %w", err)
		}
		if err := s.enterLocked(os.NewFile(uintptr(fd), "connection")); err != nil {
			return false, err
		}
	}
	raw := s.raw
	w.polls = true
	s.mu.Unlock()
	var err error
	if w.events == unix.POLLIN {
		err = raw.Read(try)
	} else {
		err = raw.Write(try)
	}
	s.mu.Lock()
	w.polls = false
	if w.woken {
		w.woken = false
		w.setDeadline(s.polled, time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// enterLocked is told of the socket's representative in the runtime's poller.
func (s *Socket) enterLocked(p polled) error {
	raw, err := p.SyscallConn()
	if err != nil {
		return fmt.Errorf("can't wait for a connection: %w", err)
	}
	s.polled, s.raw = p, raw
	return nil
}

// leaveLocked takes the socket out of the runtime's poller.
func (s *Socket) leaveLocked() {
	if s.polled != nil {
		s.polled.Close()
		s.polled, s.raw = nil, nil
	}
}
