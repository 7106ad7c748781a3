// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// A generation is one process of the service, with its descendants.
type generation struct {
	number  int
	pid     int
	pidfd   *os.File // non-blocking, so that its end can be waited for
	started time.Time
	ready   time.Time // zero until READY=1
	status  string    // the last STATUS
	errno   int       // the last ERRNO

	watchdog time.Duration // 0: none
	pingBy   time.Time     // when the next WATCHDOG=1 is due
	killBy   time.Time     // of one that is to end: when it is killed
	cause    string        // why it was killed; empty if it was not
	watch    sync.WaitGroup
}

// hold begins to follow process pid and tells ended when it has ended. The
// watcher ends with release.
func hold(number, pid int, ended chan<- *generation, stop <-chan struct{}) (*generation, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("can't follow process %d: %w", pid, err)
	}
	g := &generation{number: number, pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), started: time.Now()}
	raw, err := g.pidfd.SyscallConn()
	if err != nil {
		_ = g.pidfd.Close()
		return nil, fmt.Errorf("can't follow process %d: %w", pid, err)
	}
	g.watch.Go(func() {
		if raw.Read(hasEnded) != nil {
			return // released
		}
		select {
		case ended <- g:
		case <-stop:
		}
	})
	return g, nil
}

// hasEnded reports whether all threads of a pidfd's process have ended.
func hasEnded(fd uintptr) bool { return kernel.Gone(int(fd), 0) }

// signal sends sig to the process, and to no other.
func (g *generation) signal(sig syscall.Signal) error {
	return kernel.Control(g.pidfd, func(fd int) error {
		return unix.PidfdSendSignal(fd, sig, nil, 0)
	})
}

// kill ends the process at once; cause is for the message about its end.
func (g *generation) kill(cause string) {
	g.cause = cause
	_ = g.signal(syscall.SIGKILL)
}

// reap collects the process if it is a child and has ended. A process that its
// own parent has reaped has no status here.
func (g *generation) reap() string {
	status, err := collect(g.pid)
	if err != nil {
		return "ended, and its parent has its status"
	}
	return describe(status)
}

// endedChild returns the PID of a child that has ended, 0 if there is none. The child
// stays what it is until collect.
func endedChild() int {
	// The beginning of siginfo_t (sigaction(2)); the union with the PID is aligned as a pointer is.
	var info struct {
		signo, errno, code int32
		_                  [unsafe.Sizeof(uintptr(0)) - 4]byte
		pid                int32
		_                  [128]byte
	}
	for {
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == nil {
			return int(info.pid)
		}
		if !errors.Is(err, unix.EINTR) {
			return 0
		}
	}
}

// errNotEnded is collect's answer for a child that runs.
var errNotEnded = errors.New("it has not ended")

// collect reaps a child that has ended and returns how it did.
func collect(pid int) (status syscall.WaitStatus, err error) {
	for {
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if err == nil && got != pid {
			err = errNotEnded
		}
		if !errors.Is(err, syscall.EINTR) {
			return status, err
		}
	}
}

// release ends the watcher, unless it is telling of the end; hold's stop ends
// that.
func (g *generation) release() { _ = g.pidfd.Close() }

// describe says how a process has ended.
func describe(status syscall.WaitStatus) string {
	switch {
	case status.Signaled() && status.CoreDump():
		return fmt.Sprintf("was killed by signal %d (%v) and dumped core", int(status.Signal()), status.Signal())
	case status.Signaled():
		return fmt.Sprintf("was killed by signal %d (%v)", int(status.Signal()), status.Signal())
	default:
		return fmt.Sprintf("exited with status %d", status.ExitStatus())
	}
}

// pidAlive reports whether a process exists that has not ended.
func pidAlive(pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return !hasEnded(uintptr(fd))
}

// ancestry returns pid and its ancestors up to the child of the supervisor, or
// nil if pid is none of its descendants.
func ancestry(pid int) []int {
	// An ancestor that ends meanwhile leaves its children to another, to which
	// the next attempt leads.
	const attempts = 4
	for range attempts {
		chain, broken := climb(pid)
		if !broken {
			return chain
		}
	}
	return nil
}

// climb is one attempt at ancestry. It reports whether an ancestor was gone when
// its own parent was asked for.
func climb(pid int) (chain []int, broken bool) {
	const maxDepth = 64
	self := os.Getpid()
	for range maxDepth {
		parent := kernel.Parent(pid)
		if parent == 0 {
			return nil, len(chain) > 0 && pid > 1
		}
		chain = append(chain, pid)
		if parent == self {
			return chain, false
		}
		pid = parent
	}
	return nil, false
}

var errNotDescendant = errors.New("it is no process of the service")
