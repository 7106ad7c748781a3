// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// TestMain is, by its arguments, the tests, a supervisor, or a service.
func TestMain(m *testing.M) {
	var err error
	switch verb := append(os.Args, "")[1]; verb {
	case LaunchVerb:
		err = Launch(os.Args[3:])
	case "supervise":
		err = superviseMain(os.Args[2])
	case "lie":
		awaitParent(os.Getenv("LIE_UNDER"))
		c := notify.NewClient(os.Getenv("NOTIFY_SOCKET"))
		// It lives until it was heard: whose process it is can't be told afterwards.
		err = errors.Join(c.Send(strings.Split(os.Getenv("LIE"), ",")...), c.Barrier(context.Background()))
	case "flood":
		flood(os.Args[2])
	case "serve":
		err = serveMain(os.Args[2])
	default:
		// The race detector's processes would take a second each to end.
		if err = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err == nil {
			goleak.VerifyTestMain(m)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// awaitParent returns when a process of that PID is this one's parent; an
// empty PID stands for any.
func awaitParent(pid string) {
	for pid != "" && strconv.Itoa(os.Getppid()) != pid {
	}
}

// superviseMain is upgraded, with its configuration as JSON.
func superviseMain(text string) error {
	var cfg Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return Run(ctx, cfg)
}

// testTimeout is for what fails the test: no working machine is as slow.
const testTimeout = 2 * time.Minute

// supervised is a supervisor with its service, as a test sees it.
type supervised struct {
	Client
	t      *testing.T
	dir    string
	binary string // the supervisor's, which a test may replace
	cfg    Config
	log    *syncBuffer
	pid    int
	exited chan error
}

// syncBuffer is a buffer for a process's output.
type syncBuffer struct {
	mu  sync.Mutex // protects buf
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newSupervised prepares a supervisor of the test service, which reads its
// behaviour from the file "fault" in dir.
func newSupervised(t *testing.T, change func(*Config)) *supervised {
	t.Helper()
	s := &supervised{t: t, dir: t.TempDir(), log: new(syncBuffer), exited: make(chan error, 1)}
	s.Control = filepath.Join(s.dir, "control")
	s.binary = filepath.Join(s.dir, "upgraded")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, s.binary)
	s.cfg = Config{
		Command:      []string{self, "serve", s.dir},
		Control:      s.Control,
		Listen:       []Listen{{"test", filepath.Join(s.dir, "socket")}},
		ReadyTimeout: testTimeout, StopTimeout: testTimeout,
	}
	if change != nil {
		change(&s.cfg)
	}
	return s
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeProgram(t, to, text)
}

// writeProgram writes a file that can be executed at once: a process that another
// test starts meanwhile would keep it open for writing until it is itself executed.
func writeProgram(t *testing.T, path string, text []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, text, 0o700); err != nil {
		t.Fatal(err)
	}
}

func (s *supervised) args() []string {
	s.t.Helper()
	cfg := s.cfg
	cfg.Log = nil
	text, err := json.Marshal(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return []string{s.binary, "supervise", string(text)}
}

// run starts the supervisor, and ends it with the test.
func (s *supervised) run(env ...string) {
	s.t.Helper()
	args := s.args()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr, cmd.Stdout = s.log, s.log
	s.start(cmd)
}

func (s *supervised) start(cmd *exec.Cmd) {
	s.t.Helper()
	cmd.WaitDelay = testTimeout
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	go func() { s.exited <- cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = syscall.Kill(s.pid, syscall.SIGTERM)
		if err := s.wait(); err != nil {
			s.t.Errorf("supervisor: %v", err)
		}
		if s.t.Failed() {
			s.t.Log(s.log.String())
		}
	})
}

// wait waits for the supervisor's end; later calls return the same.
func (s *supervised) wait() error {
	select {
	case err := <-s.exited:
		s.exited <- nil
		return err
	case <-time.After(testTimeout):
		_ = syscall.Kill(s.pid, syscall.SIGKILL)
		<-s.exited
		s.exited <- nil
		return errors.New("it does not end")
	}
}

func (s *supervised) fault(text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "fault"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *supervised) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	s.t.Cleanup(cancel)
	return ctx
}

// until returns the first status that ok accepts.
func (s *supervised) until(what string, ok func(Status) bool) Status {
	s.t.Helper()
	deadline := time.NewTimer(testTimeout)
	defer deadline.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		result, err := s.Status(s.context())
		if err == nil && ok(result.Status) {
			return result.Status
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			s.t.Fatalf("never %s: %+v, %v\n%s", what, result.Status, err, s.log)
		}
	}
}

func (s *supervised) untilServing() Status {
	s.t.Helper()
	return s.until("serving", func(st Status) bool { return st.State == Serving })
}

// untilLogged waits until the log has the text in it.
func (s *supervised) untilLogged(text string) {
	s.t.Helper()
	s.until("logged "+text, func(Status) bool { return strings.Contains(s.log.String(), text) })
}

// ask connects to the service and returns the generation and the PID that
// answer.
func (s *supervised) ask() (generation, pid int) {
	s.t.Helper()
	generation, pid, err := ask(filepath.Join(s.dir, "socket"))
	if err != nil {
		s.t.Fatal(err)
	}
	return generation, pid
}

func ask(path string) (generation, pid int, err error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		return 0, 0, err
	}
	_, err = fmt.Fscan(conn, &generation, &pid)
	return generation, pid, err
}

// reload reloads and returns the status.
func (s *supervised) reload() Status {
	s.t.Helper()
	result, err := s.Reload(s.context())
	if err != nil {
		s.t.Fatalf("reload: %v\n%s", err, s.log)
	}
	return result.Status
}
