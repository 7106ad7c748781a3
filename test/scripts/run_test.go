// SPDX-License-Identifier: Apache-2.0

// Package scripts tests the scripts of this folder.
package scripts

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/test/peer"
)

// patience is how long a test waits for what should come at once, or within the
// 10 s that an exit may take.
const patience = time.Minute

// ended is what the shell says of the script.
const ended = "the script has ended:"

// terminal opens a pseudoterminal, and returns both its ends.
func terminal(t *testing.T) (here, there *os.File) {
	t.Helper()
	here, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	raw, err := here.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	there, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	return here, there
}

// session is run.sh at a terminal, with a /run of its own, where the control socket is.
type session struct {
	t        *testing.T
	dir      string
	terminal *os.File
	shell    *exec.Cmd
	lines    chan string // of the terminal; closed when all that had it open have ended
	portal   string
}

// startRun runs a copy of the script beside the program.
func startRun(t *testing.T, program string) *session {
	t.Helper()
	s := &session{t: t, dir: t.TempDir(), lines: make(chan string, 1000)}
	script, err := os.ReadFile("run.sh")
	if err != nil {
		t.Fatal(err)
	}
	scripts, bin := filepath.Join(s.dir, "test", "scripts"), filepath.Join(s.dir, "bin")
	for _, dir := range []string{scripts, bin} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(scripts, "run.sh"), script, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(program, filepath.Join(bin, "gotgtd")); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(s.dir, "disk.img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.portal, err = peer.FreePort(); err != nil {
		t.Fatal(err)
	}
	here, there := terminal(t)
	s.terminal = here
	// The shell stays, as make does, and says when the script has ended.
	s.shell = exec.Command("unshare", "--mount", "sh", "-c", `trap : INT TERM HUP; mount -t tmpfs none /run; "$@"; echo "`+ended+` $?"`, "sh",
		filepath.Join(scripts, "run.sh"), disk, peer.IQN, s.portal)
	s.shell.Stdin, s.shell.Stdout, s.shell.Stderr = there, there, there
	s.shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.shell.Start(); err != nil {
		t.Fatal(err)
	}
	there.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(s.lines)
		for r := bufio.NewScanner(here); r.Scan(); {
			s.lines <- r.Text()
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-s.shell.Process.Pid, syscall.SIGKILL) // its process group: all that is left
		_ = s.shell.Wait()
		<-read
	})
	s.waitFor("msg=serving target=" + peer.IQN)
	return s
}

// waitFor waits for a line at the terminal.
func (s *session) waitFor(text string) string {
	s.t.Helper()
	var log strings.Builder
	for late := time.After(patience); ; {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("the terminal is closed before %q:\n%s", text, &log)
			}
			if strings.Contains(line, text) {
				return line
			}
			log.WriteString(line + "\n")
		case <-late:
			s.t.Fatalf("no %q:\n%s", text, &log)
		}
	}
}

// upgrade upgrades what the script has started.
func (s *session) upgrade() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	out, err := peer.Run(ctx, "nsenter", "--target", strconv.Itoa(s.shell.Process.Pid), "--mount", filepath.Join(s.dir, "bin", "gotgtd"), "upgrade")
	if err != nil {
		s.t.Fatalf("upgrade: %v\n%s", err, out)
	}
}

// goesOn wants the script not to end for a while.
func (s *session) goesOn(while time.Duration) {
	s.t.Helper()
	for until := time.After(while); ; {
		select {
		case line := <-s.lines:
			if strings.Contains(line, ended) {
				s.t.Fatal(line)
			}
		case <-until:
			return
		}
	}
}

// signalScript signals the script, and none of the processes that it has started.
func (s *session) signalScript(sig syscall.Signal) error {
	pid := s.shell.Process.Pid
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	script, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return syscall.Kill(script, sig)
}

// serves tells whether anybody listens at the portal.
func (s *session) serves() bool {
	c, err := net.DialTimeout("tcp", s.portal, patience)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// TestRunEnds upgrades what run.sh serves; the script waits for the last
// generation, which ends with the script, by Ctrl-C and by a signal to the script alone.
func TestRunEnds(t *testing.T) {
	peer.NeedRoot(t)
	program := filepath.Join(t.TempDir(), "gotgtd")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/gotgtd").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, end := range map[string]func(s *session) error{
		"Ctrl-C":  func(s *session) error { _, err := s.terminal.WriteString("\x03"); return err },
		"SIGTERM": func(s *session) error { return s.signalScript(syscall.SIGTERM) },
	} {
		for _, upgrades := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s after %d upgrades", name, upgrades), func(t *testing.T) {
				s := startRun(t, program)
				for range upgrades {
					s.upgrade()
				}
				s.goesOn(time.Second)
				if !s.serves() {
					t.Fatal("nobody serves")
				}
				if err := end(s); err != nil {
					t.Fatal(err)
				}
				s.waitFor("msg=stopping")
				s.waitFor(ended)
				if s.serves() {
					t.Error("somebody serves on")
				}
			})
		}
	}
}
