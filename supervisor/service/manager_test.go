// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/supervisor/supervisortest"
)

// startUnder runs the supervisor as systemd would: NOTIFY_SOCKET, and the store
// by the LISTEN_FDS protocol.
func startUnder(t *testing.T, m *supervisortest.Manager, s *supervised) (pid int) {
	t.Helper()
	files, names := m.Stored()
	l := launch{command: s.args(), files: files, names: names, env: []string{m.Env(), "WATCHDOG_USEC=1000000", "WATCHDOG_PID=0"}}
	pid, err := l.start()
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// killAll does what systemd does to a unit whose main process has died.
func killAll(t *testing.T, pid, service int) {
	t.Helper()
	for _, p := range []int{pid, service} {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
}

func TestSupervisorKilledAndStartedAgain(t *testing.T) {
	m := supervisortest.New(t)
	s := newSupervised(t, nil)
	s.fault("store 2")
	pid := startUnder(t, m, s)
	before := s.untilServing()
	m.Await("readiness", supervisortest.Has("READY=1"))
	m.Await("a sign of life", supervisortest.From(pid, "WATCHDOG=1"))
	killAll(t, pid, before.Main.PID)
	answered := make(chan error, 1)
	go func() {
		_, _, err := ask(filepath.Join(s.dir, "socket"))
		answered <- err
	}()
	s.fault("")
	pid = startUnder(t, m, s)
	st := s.untilServing()
	if err := <-answered; err != nil {
		t.Errorf("a connection made meanwhile: %v", err)
	}
	if len(st.Stored) != 2 || len(st.Sockets) != 1 || !st.Sockets[0].Bound {
		t.Errorf("stored %v, sockets %v", st.Stored, st.Sockets)
	}
	if st.Main.Text != "stored 2" {
		t.Errorf("the service says %q", st.Main.Text)
	}
	s.reload()
	m.Await("the reload", supervisortest.From(pid, "RELOADING=1", "MONOTONIC_USEC="))
	m.Await("generation 2", supervisortest.From(pid, "READY=1", "STATUS=generation 2"))
	if m.Heard(supervisortest.Has("MAINPID=")) != nil {
		t.Error("the manager heard of another main process")
	}
	s.fault("exit")
	if _, err := s.Reload(s.context()); err == nil {
		t.Error("a reload of a broken service succeeds")
	}
	m.Await("the failure", supervisortest.From(pid, "STATUS=last failure: reload: upgrade failed: the successor exited"))
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("the supervisor ended with %v, %v", status, err)
	}
	m.Await("the end", supervisortest.From(pid, "STOPPING=1"))
}

// The first connection makes systemd-socket-activate start the supervisor.
func TestSocketActivation(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.Listen = nil })
	path := filepath.Join(s.dir, "socket")
	args := append([]string{"--listen=" + path, "--fdname=test"}, s.args()...)
	cmd := exec.Command("systemd-socket-activate", args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	s.start(cmd)
	generation, _, err := ask(path)
	// It is bound before it listens.
	for late := time.Now().Add(testTimeout); err != nil && time.Now().Before(late); generation, _, err = ask(path) {
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil || generation != 1 {
		t.Errorf("generation %d answers: %v", generation, err)
	}
	if st := s.reload(); len(st.Sockets) != 1 || st.Sockets[0].Bound || st.Sockets[0].Name != "test" {
		t.Errorf("sockets %+v", st.Sockets)
	}
	if generation, _ = s.ask(); generation != 2 {
		t.Errorf("generation %d answers", generation)
	}
}
