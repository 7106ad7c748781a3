// SPDX-License-Identifier: Apache-2.0

package supervisor_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain is the echo daemon when a test has started this binary as such.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ECHO_DIR"); dir != "" {
		if err := runEcho(dir); err != nil {
			fmt.Fprintln(os.Stderr, "echo:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The race detector's processes would take a second each to end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Later generations become children of the test when their parent ends.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// service is a running echo daemon, whatever its generation.
type service struct {
	t      *testing.T
	dir    string
	binary string
	lines  chan string
	pid    int
	addr   string
	gen    int
}

const testTimeout = 2 * time.Minute

// startService runs the daemon from a link, so that tests can change what the
// successor is started from.
func startService(t *testing.T, env ...string) *service {
	t.Helper()
	s := &service{t: t, dir: t.TempDir(), lines: make(chan string, 1000)}
	s.binary = filepath.Join(s.dir, "echo")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, s.binary); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(s.binary)
	cmd.Env = append(append(os.Environ(), "ECHO_DIR="+s.dir), env...)
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		defer close(s.lines)
		defer r.Close()
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			s.lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(s.pid, syscall.SIGKILL)
		<-closed // every process that had the pipe is gone
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	})
	s.pid = cmd.Process.Pid
	s.awaitReady()
	_ = cmd.Process.Release()
	return s
}

// await returns the next line that begins with word.
func (s *service) await(word string) string {
	s.t.Helper()
	timeout := time.After(testTimeout)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("the daemon ended without saying %q", word)
			}
			if rest, ok := strings.CutPrefix(line, word+" "); ok {
				return rest
			}
			if !strings.HasPrefix(line, "exit ") && !strings.HasPrefix(line, "leaving ") {
				s.t.Logf("daemon says %q", line)
			}
		case <-timeout:
			s.t.Fatalf("the daemon didn't say %q", word)
		}
	}
}

func (s *service) awaitReady() {
	s.t.Helper()
	line := s.await("ready")
	if _, err := fmt.Sscan(line, &s.gen, &s.pid, &s.addr); err != nil {
		s.t.Fatalf("ready line %q: %v", line, err)
	}
}

func (s *service) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(s.pid, sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) fault(text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "fault"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) fds() int {
	s.t.Helper()
	s.signal(syscall.SIGUSR2)
	var n int
	if _, err := fmt.Sscan(s.await("fds"), &n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// upgrade replaces the daemon and reaps the old process.
func (s *service) upgrade() {
	s.t.Helper()
	old := s.pid
	s.signal(syscall.SIGHUP)
	s.awaitReady()
	if s.pid == old {
		s.t.Fatal("the successor has the old PID")
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(old, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		s.t.Fatalf("old generation ended with %v, %v", status, err)
	}
}

// client is a connection that must never notice anything.
type client struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

// ask returns the generation that answers.
func (c *client) ask(word string) int {
	c.t.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := fmt.Fprintln(c.conn, word); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.lines.ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	var gen int
	var got string
	if _, err := fmt.Sscan(line, &gen, &got); err != nil || got != word {
		c.t.Fatalf("answer %q to %q", line, word)
	}
	return gen
}
