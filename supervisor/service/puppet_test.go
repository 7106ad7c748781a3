// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
	"github.com/gotgtd/gotgtd/supervisor/notify"
	"github.com/gotgtd/gotgtd/supervisor/supervisortest"
)

// obey is a service that does what each client's one line says, and answers
// when the supervisor has heard of it, until SIGTERM.
func obey(p *supervisor.Process, listener net.Listener, signals <-chan os.Signal) error {
	go func() {
		awaitTerm(signals)
		_ = listener.Close()
	}()
	u := &puppet{process: p, manager: notify.NewClient(os.Getenv("NOTIFY_SOCKET"))}
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil {
			verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
			err = errors.Join(u.do(verb, arg), p.Barrier(context.Background()))
		}
		fmt.Fprintln(conn, err)
		_ = conn.Close()
		if u.left {
			return nil
		}
	}
}

type puppet struct {
	process *supervisor.Process
	manager notify.Client
	ends    []*os.File // the other ends of what is stored
	left    bool
}

func (u *puppet) do(verb, arg string) error {
	switch verb {
	case "say":
		return u.process.Notify(strings.Split(arg, ",")...)
	case "keep":
		return u.store(u.manager.Store, arg)
	case "keep-polled":
		return u.store(u.manager.StorePolled, arg)
	case "keep-and-die":
		return u.keepAndDie(arg)
	case "hang-up":
		for _, f := range u.ends {
			_ = f.Close()
		}
		return nil
	case "leave":
		// Another process of the service goes on in the background.
		next := exec.Command("sleep", "1000")
		if err := next.Start(); err != nil {
			return err
		}
		u.left = true
		return u.process.Notify(fmt.Sprintf("MAINPID=%d", next.Process.Pid))
	}
	return fmt.Errorf("unknown verb %q", verb)
}

func (u *puppet) store(keep func(string, ...*os.File) error, name string) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fds[0]), name)
	defer f.Close()
	u.ends = append(u.ends, os.NewFile(uintptr(fds[1]), name))
	return keep(name, f)
}

// lastWords is how many descriptors keepAndDie stores: fewer than the kernel queues messages.
const lastWords = 5

// keepAndDie stores descriptors and dies, while the supervisor stands still.
func (u *puppet) keepAndDie(name string) error {
	if err := syscall.Kill(os.Getppid(), syscall.SIGSTOP); err != nil {
		return err
	}
	for i := range lastWords {
		if err := u.store(u.manager.Store, fmt.Sprintf("%s-%d", name, i)); err != nil {
			return err
		}
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// What a generation sends just before its death is heard, though the supervisor finds the
// messages and the dead process at the same time.
func TestLastWordsAreHeard(t *testing.T) {
	s, _ := newPuppet(t)
	for round := 1; round <= 3; round++ {
		pid := s.now().Main.PID
		s.order(fmt.Sprintf("keep-and-die round%d", round))
		awaitZombie(t, pid)
		if err := syscall.Kill(s.pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		st := s.until("restarted", func(st Status) bool { return st.State == Serving && st.Main.PID != pid })
		if len(st.Stored) != round*lastWords {
			t.Fatalf("round %d: %d descriptors are stored, want %d: %v", round, len(st.Stored), round*lastWords, st.Stored)
		}
	}
}

// awaitZombie returns when a process has ended and has not been reaped.
func awaitZombie(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if !kernel.Gone(fd, testTimeout) {
		t.Fatalf("process %d does not end", pid)
	}
}

// newPuppet starts a service that obeys, under a manager.
func newPuppet(t *testing.T) (*supervised, *supervisortest.Manager) {
	t.Helper()
	m := supervisortest.New(t)
	s := newSupervised(t, nil)
	s.fault("puppet")
	s.run(m.Env())
	s.untilServing()
	return s, m
}

// tell has the service do something.
func (s *supervised) tell(line string) {
	s.t.Helper()
	if answer := s.order(line); answer != "<nil>\n" {
		s.t.Fatalf("%s: %q\n%s", line, answer, s.log)
	}
}

// order is tell for what may kill the service before it can answer.
func (s *supervised) order(line string) (answer string) {
	s.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(s.dir, "socket"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		s.t.Fatal(err)
	}
	fmt.Fprintln(conn, line)
	answer, _ = bufio.NewReader(conn).ReadString('\n')
	return answer
}

// now is the status as it is.
func (s *supervised) now() Status {
	s.t.Helper()
	return s.until("reached", func(Status) bool { return true })
}

func TestStatusGoesUp(t *testing.T) {
	s, m := newPuppet(t)
	s.tell("say STATUS=3 sessions")
	if got := s.now().Main.Text; got != "3 sessions" {
		t.Errorf("the status is %q", got)
	}
	m.Await("the sessions", supervisortest.From(s.pid, "STATUS=generation 1, PID ", "STATUS=: 3 sessions"))
}

// A service that replaces nothing but itself reloads in place, or says why not.
func TestServiceReloadsByItself(t *testing.T) {
	s, m := newPuppet(t)
	s.tell("say RELOADING=1,STATUS=reading")
	if st := s.now(); st.State != Reloading {
		t.Fatalf("the service is %s", st.State)
	}
	m.Await("the reload", supervisortest.From(s.pid, "RELOADING=1", "MONOTONIC_USEC=", "STATUS=reading"))
	s.tell("say EXTEND_TIMEOUT_USEC=5000000")
	m.Await("the wish for time", supervisortest.From(s.pid, "EXTEND_TIMEOUT_USEC=5000000"))
	s.tell("say READY=1,STATUS=done")
	if st := s.now(); st.State != Serving || st.Main.Number != 1 || st.Failure != nil {
		t.Fatalf("%s, %+v, %+v", st.State, st.Main, st.Failure)
	}
	m.Await("readiness", supervisortest.From(s.pid, "READY=1", "STATUS=done"))
	s.tell("say RELOADING=1")
	s.tell("say READY=1,ERRNO=22,STATUS=line 7 is wrong")
	if st := s.now(); st.State != Serving || st.Failure == nil || st.Failure.Reason != "reload: line 7 is wrong" {
		t.Errorf("%s, %+v", st.State, st.Failure)
	}
	s.tell("say STOPPING=1")
	s.untilLogged("the service is ending by itself")
}

func TestServiceGoesToTheBackground(t *testing.T) {
	s, m := newPuppet(t)
	first := s.now().Main
	s.tell("leave")
	st := s.until("alone", func(st Status) bool { return len(st.Retiring) == 0 })
	if st.State != Serving || st.Main.PID == first.PID || st.Main.Number != 2 || st.Restarts != 0 {
		t.Errorf("%s, %+v, %d restarts", st.State, st.Main, st.Restarts)
	}
	if m.Heard(supervisortest.Has("MAINPID=")) != nil {
		t.Error("the manager hears of another main process")
	}
}

func TestWatchdogOfTheServicesOwn(t *testing.T) {
	for line, want := range map[string]string{
		"say WATCHDOG=trigger":     "watchdog: the service asked for it",
		"say WATCHDOG_USEC=300000": "watchdog: it gave no sign of life for 300ms",
	} {
		s, _ := newPuppet(t)
		s.order(line)
		st := s.until("restarted", func(st Status) bool { return st.Restarts > 0 && st.State == Serving })
		if !strings.Contains(st.Failure.Reason, want) {
			t.Errorf("%s: failure %q, want %q in it", line, st.Failure.Reason, want)
		}
	}
}

func TestStoredDescriptorsThatHangUp(t *testing.T) {
	s, m := newPuppet(t)
	s.tell("keep steady")
	s.tell("keep-polled fickle")
	s.tell("keep-polled unwanted")
	s.tell("say FDSTOREREMOVE=1,FDNAME=unwanted")
	if st := s.now(); len(st.Stored) != 2 || st.Stored["steady"] != 1 || st.Stored["fickle"] != 1 {
		t.Errorf("stored: %v", st.Stored)
	}
	m.Await("the steady one", supervisortest.From(s.pid, "FDSTORE=1", "FDNAME=steady", "FDPOLL=0"))
	fickle := m.Await("the fickle one", supervisortest.From(s.pid, "FDSTORE=1", "FDNAME=fickle"))
	if _, found := fickle.Field("FDPOLL"); found {
		t.Error("the manager is to keep what hangs up")
	}
	m.Await("the removal", supervisortest.From(s.pid, "FDSTOREREMOVE=1", "FDNAME=unwanted"))
	s.tell("hang-up")
	st := s.until("rid of what hung up", func(st Status) bool { return st.Stored["fickle"] == 0 })
	if len(st.Stored) != 1 || st.Stored["steady"] != 1 {
		t.Errorf("stored: %v", st.Stored)
	}
}

// A sign of life, and what is no number, one message after the other.
func TestSignsOfLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	server, err := notify.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	s := &Service{}
	g := &generation{watchdog: time.Minute, ready: time.Now(), pingBy: time.Now().Add(time.Second)}
	hear := func(field string) time.Duration {
		t.Helper()
		if err := notify.NewClient(path).Send(field); err != nil {
			t.Fatal(err)
		}
		m, err := server.Receive()
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		before := g.pingBy
		s.hearNews(g, m)
		return g.pingBy.Sub(before)
	}
	for field, moves := range map[string]bool{"WATCHDOG=0": false, "WATCHDOG=yes": false, "WATCHDOG_USEC=x": false} {
		if moved := hear(field) != 0; moved != moves {
			t.Errorf("%s moves the limit: %v", field, moved)
		}
	}
	if d := hear("WATCHDOG=1"); d < 50*time.Second {
		t.Errorf("a sign of life gives %v more", d)
	}
	if hear("WATCHDOG_USEC=3600000000"); g.watchdog != time.Hour || time.Until(g.pingBy) < 50*time.Minute {
		t.Errorf("the interval is %v, the limit in %v", g.watchdog, time.Until(g.pingBy))
	}
	if hear("WATCHDOG_USEC=0"); g.watchdog != 0 || !g.pingBy.IsZero() {
		t.Error("a watchdog that is switched off has a limit")
	}
}

// A service that is a script says what it has to say through systemd's own
// program.
func TestScriptThatNotifies(t *testing.T) {
	s := newSupervised(t, func(c *Config) {
		c.Strategy = Overlap
		c.Command = []string{"sh", "-c", `systemd-notify --ready --status="hello from $LISTEN_FDNAMES"; exec sleep 1000`}
	})
	s.run()
	if st := s.untilServing(); st.Main.Text != "hello from test" {
		t.Errorf("the status is %q", st.Main.Text)
	}
	if st := s.reload(); st.Main.Number != 2 || st.Main.Text != "hello from test" {
		t.Errorf("after the reload: %+v", st.Main)
	}
}
