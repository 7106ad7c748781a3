// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// tcpPair returns a connection and the descriptor of its other end, which the test has alone.
func tcpPair(t *testing.T) (*net.TCPConn, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := far.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	far.Close()
	fd := descriptor.Number(f)
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return near.(*net.TCPConn), fd
}

func position(t *testing.T, fd int) Position {
	t.Helper()
	p, err := Positions(fd)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// While the peer sends and acknowledges as fast as it can, the kernel's positions are those of the system calls of this
// end, at rest and between any two of them.
func TestPositionsUnderTraffic(t *testing.T) {
	near, fd := tcpPair(t)
	var peer sync.WaitGroup
	peer.Go(func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{near}, make([]byte, 1500))
	})
	peer.Go(func() {
		for b := make([]byte, 700); ; {
			if _, err := near.Write(b); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { near.Close(); peer.Wait() })
	want, buf := position(t, fd), make([]byte, 10000)
	if want.Read != 0 {
		t.Errorf("nothing was read, and the kernel says %d", want.Read)
	}
	moved := Position{}
	for i := 0; i < 3000 || moved.Read < 1<<20 || moved.Written < 1<<20; i++ {
		n, err := unix.Write(fd, buf[:1+i%len(buf)])
		if n > 0 {
			moved.Written += uint64(n)
		} else if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		for range 3 {
			if p := position(t, fd); p != (Position{want.Read + moved.Read, want.Written + moved.Written}) {
				t.Fatalf("the kernel says %+v, after %+v and what was moved since, %+v", p, want, moved)
			}
		}
		if n, err = unix.Read(fd, buf[:1+i%len(buf)]); n > 0 {
			moved.Read += uint64(n)
		} else if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
	}
}

// Where a FIN has come or gone, the counters are no positions.
func TestPositionsOfEndingConnection(t *testing.T) {
	near, fd := tcpPair(t)
	if _, err := near.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := near.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	for {
		if _, err := unix.Poll(poll, -1); err != unix.EINTR {
			break
		}
	}
	if _, err := Positions(fd); err == nil || !strings.Contains(err.Error(), "TCP state") {
		t.Errorf("the peer has ended its stream, and the positions are told: %v", err)
	}
	if _, err := Positions(descriptor.Number(newFile(t, 4096))); err == nil {
		t.Error("a file has positions of TCP")
	}
}

// A socket is found again by its cookie, by whatever descriptor.
func TestCookie(t *testing.T) {
	_, a := tcpPair(t)
	_, b := tcpPair(t)
	dup, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dup)
	var got [3]uint64
	for i, fd := range []int{a, dup, b} {
		if got[i], err = Cookie(fd); err != nil {
			t.Fatal(err)
		}
	}
	if got[0] == 0 || got[0] != got[1] || got[0] == got[2] {
		t.Errorf("cookies of a socket, of its duplicate and of another: %v", got)
	}
}
