// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns the two ends of a TCP connection, the near one as a Socket.
func pair(t *testing.T, seats *Seats) (*Socket, *net.TCPConn) {
	t.Helper()
	near, far := tcp(t)
	s, err := New(seats, near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, far
}

func tcp(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	near, err = l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	return near, c.(*net.TCPConn)
}

func newSeats(t *testing.T, n int) *Seats {
	a := NewSeats(n)
	t.Cleanup(a.Close)
	return a
}

// places runs a test in each of the two places where a socket can wait.
func places(t *testing.T, f func(t *testing.T, seats *Seats)) {
	t.Run("poller", func(t *testing.T) { f(t, newSeats(t, 0)) })
	t.Run("seat", func(t *testing.T) { f(t, newSeats(t, 1)) })
}

// readByte reads one byte as a reader does, and reports whether it had to wait in a seat.
func readByte(t *testing.T, s *Socket) (byte, bool) {
	t.Helper()
	var b [1]byte
	try := func(uintptr) bool {
		_, err := s.Read(b[:])
		return err != unix.EAGAIN
	}
	seated := false
	for !try(0) {
		done, err := s.AwaitRead(try)
		if err != nil {
			t.Fatal(err)
		}
		seated = seated || s.in.seat != nil
		if done {
			break
		}
	}
	return b[0], seated
}

// waiting waits until the socket's reader or writer does.
func waiting(t *testing.T, s *Socket, w *waiter) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		s.mu.Lock()
		ok := w.polls || w.seat != nil && w.seat.count.Load()%2 == 1
		s.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal("nobody waits")
		}
	}
}

func TestRead(t *testing.T) {
	places(t, func(t *testing.T, seats *Seats) {
		s, far := pair(t, seats)
		s.busy = true
		got, seated := make(chan byte), make(chan bool)
		go func() {
			for range 3 {
				b, in := readByte(t, s)
				got <- b
				seated <- in
			}
		}()
		for i := range byte(3) {
			waiting(t, s, &s.in)
			if _, err := far.Write([]byte{i}); err != nil {
				t.Fatal(err)
			}
			if b := <-got; b != i {
				t.Errorf("read %d, want %d", b, i)
			}
			if in := <-seated; in != (len(seats.all) > 0) {
				t.Errorf("waited in a seat: %v", in)
			}
		}
		if s.polled != nil && len(seats.all) > 0 {
			t.Error("a socket in a seat is in the runtime's poller as well")
		}
		far.Close()
		if n, err := s.Read(make([]byte, 1)); n != 0 || err != nil && err != unix.EAGAIN {
			t.Errorf("at the end of the stream: %d, %v", n, err)
		}
	})
}

// TestWake ends waits for input and for room, those under way and those to come.
func TestWake(t *testing.T) {
	places(t, func(t *testing.T, seats *Seats) {
		s, _ := pair(t, seats)
		never := func(uintptr) bool { return false }
		for _, side := range []struct {
			w     *waiter
			await func(func(uintptr) bool) (bool, error)
		}{{&s.in, s.AwaitRead}, {&s.out, s.AwaitWrite}} {
			fill(t, s)
			s.busy = true
			for range 2 {
				s.Wake()
				if done, err := side.await(never); done || err != nil {
					t.Errorf("woken before: %v, %v", done, err)
				}
				var stop atomic.Bool
				ended := make(chan error)
				go func() { ended <- await(&stop, side.await) }()
				waiting(t, s, side.w)
				stop.Store(true)
				s.Wake()
				if err := <-ended; err != nil {
					t.Errorf("woken: %v", err)
				}
			}
		}
	})
}

// await waits as readers and writers do: until what they are woken for is the case.
func await(stop *atomic.Bool, wait func(func(uintptr) bool) (bool, error)) (err error) {
	for err == nil && !stop.Load() {
		_, err = wait(func(uintptr) bool { return false })
	}
	return err
}

// TestWakeBoth has a reader and a writer wait at once: one Wake is for both.
func TestWakeBoth(t *testing.T) {
	places(t, func(t *testing.T, seats *Seats) {
		s, _ := pair(t, seats)
		fill(t, s)
		s.busy = true
		for range 100 {
			var stop atomic.Bool
			ended := make(chan error, 2)
			go func() { ended <- await(&stop, s.AwaitRead) }()
			go func() { ended <- await(&stop, s.AwaitWrite) }()
			waiting(t, s, &s.in)
			waiting(t, s, &s.out)
			stop.Store(true)
			s.Wake()
			for range 2 {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// fill writes until there is no room.
func fill(t *testing.T, s *Socket) (n int) {
	t.Helper()
	b := make([]byte, 1<<20)
	for {
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		k, err := s.Writev([]unix.Iovec{v})
		if err == unix.EAGAIN {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
}

func TestWrite(t *testing.T) {
	places(t, func(t *testing.T, seats *Seats) {
		s, far := pair(t, seats)
		n := fill(t, s)
		room := make(chan error)
		go func() {
			try := func(uintptr) bool {
				b := byte(1)
				v := unix.Iovec{Base: &b, Len: 1}
				_, err := s.Writev([]unix.Iovec{v})
				return err == nil
			}
			for {
				done, err := s.AwaitWrite(try)
				if done || err != nil || try(0) {
					room <- err
					return
				}
			}
		}()
		waiting(t, s, &s.out)
		if _, err := io.ReadFull(far, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if err := <-room; err != nil {
			t.Error(err)
		}
		if s.out.seat != nil {
			t.Error("the writer keeps a seat")
		}
	})
}

// TestIdleSeat has somebody want the seat of an idle socket, which goes on in the
// runtime's poller.
func TestIdleSeat(t *testing.T) {
	seats := newSeats(t, 1)
	idle, farIdle := pair(t, seats)
	idle.busy = true
	got := make(chan byte)
	go func() {
		b, _ := readByte(t, idle)
		got <- b
	}()
	waiting(t, idle, &idle.in)
	var free *seat
	for end := time.Now().Add(10 * time.Second); free == nil; free = seats.take() {
		if time.Now().After(end) {
			t.Fatal("the seat of an idle socket does not become free")
		}
		runtime.Gosched()
	}
	waiting(t, idle, &idle.in)
	if idle.in.seat != nil {
		t.Error("two sockets have one seat")
	}
	seats.give(free)
	if _, err := farIdle.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != 7 {
		t.Errorf("read %d, want 7", b)
	}
}

// TestFromFile takes over a descriptor that came from elsewhere; the file stays the
// caller's.
func TestFromFile(t *testing.T) {
	near, far := tcp(t)
	f, err := near.File()
	if err != nil {
		t.Fatal(err)
	}
	near.Close()
	s, err := FromFile(newSeats(t, 0), f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	defer s.Close()
	if s.Local().String() != far.RemoteAddr().String() || s.Remote().String() != far.LocalAddr().String() {
		t.Errorf("from %v to %v, want from %v to %v", s.Local(), s.Remote(), far.RemoteAddr(), far.LocalAddr())
	}
	if _, err := far.Write([]byte{9}); err != nil {
		t.Fatal(err)
	}
	if b, _ := readByte(t, s); b != 9 {
		t.Errorf("read %d, want 9", b)
	}
}

func TestNotTCP(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		if _, err := FromFile(newSeats(t, 0), f); err == nil || !strings.Contains(err.Error(), "not TCP") {
			t.Errorf("a unix socket: %v", err)
		}
	}
}

// TestSendBuffer bounds the buffer of an initiator that is near, as one on this
// machine is, to no more than the kernel lets anybody ask for.
func TestSendBuffer(t *testing.T) {
	s, _ := pair(t, newSeats(t, 0))
	if err := s.BoundSendBuffer(); err != nil {
		t.Fatal(err)
	}
	most, err := os.ReadFile("/proc/sys/net/core/wmem_max")
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(most)))
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if want := 2 * min(nearBuffer, limit); err != nil || n != want {
		t.Errorf("a buffer of %d bytes, want %d; %v", n, want, err)
	}
}

// TestClose ends the connection only with Shutdown while somebody else has it too.
func TestClose(t *testing.T) {
	near, far := tcp(t)
	other, err := near.File()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	s, err := New(newSeats(t, 0), near)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	s.Wake()
	s.Shutdown() // too late for this descriptor, whose number may be another file's
	if _, err := other.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(far, b); err != nil || b[0] != 3 {
		t.Errorf("read %v, %v", b, err)
	}
	again, err := FromFile(newSeats(t, 0), other)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Shutdown()
	if _, err := far.Read(b); err != io.EOF {
		t.Errorf("after a shutdown: %v", err)
	}
}

// TestSharedSeats has several users of the process's seats: together they take no more
// than half of Go's processors as there are then, and the last to go ends it.
func TestSharedSeats(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(before)
	one, leaveOne := SharedSeats()
	two, leaveTwo := SharedSeats()
	if one != two || len(one.all) != runtime.NumCPU() {
		t.Fatalf("seats of two: %v and %v, for %d cores", one, two, runtime.NumCPU())
	}
	taken := one.take()
	if taken == nil || two.take() != nil {
		t.Error("of two processors, not one is for seats")
	}
	runtime.GOMAXPROCS(4)
	if runtime.NumCPU() > 1 {
		more := two.take()
		if more == nil {
			t.Fatal("more processors, and no more seats")
		}
		two.give(more)
	}
	runtime.GOMAXPROCS(1)
	if !one.over() {
		t.Error("the seat is not wanted back when there is one processor")
	}
	one.give(taken)
	if one.take() != nil {
		t.Error("a seat of the one processor that there is")
	}
	leaveOne()
	leaveOne()
	if shared.seats != two {
		t.Error("the seats are gone while somebody has them")
	}
	leaveTwo()
	if shared.seats != nil {
		t.Error("the seats stay when nobody has them")
	}
}

// TestLeavesSeat has a reader that works all the time in a seat: it gives it back
// when there are fewer of Go's processors.
func TestLeavesSeat(t *testing.T) {
	a := newSeats(t, 1)
	limit := 1
	a.limit = func() int { return limit }
	s, far := pair(t, a)
	s.in.seat = a.take()
	limit = 0
	if _, err := far.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AwaitRead(nil); err != nil || s.in.seat != nil {
		t.Errorf("it keeps its seat: %v", err)
	}
}
