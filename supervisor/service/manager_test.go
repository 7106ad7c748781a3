// SPDX-License-Identifier: Apache-2.0

package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// manager stands in for systemd: it keeps descriptors, hears notifications,
// and starts the supervisor with what it keeps.
type manager struct {
	server *notify.Server
	path   string

	mu     sync.Mutex // protects what follows
	fields []string
	names  []string
	stored []*os.File
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(t.TempDir(), "manager")}
	var err error
	if m.server, err = notify.Listen(m.path); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			msg, err := m.server.Receive()
			if err != nil {
				return
			}
			m.hear(msg)
		}
	}()
	t.Cleanup(func() {
		m.server.Close()
		<-done
		for _, f := range m.stored {
			f.Close()
		}
	})
	return m
}

func (m *manager) hear(msg *notify.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range []string{"READY", "RELOADING", "STOPPING", "WATCHDOG", "MAINPID"} {
		if value, ok := msg.Field(key); ok {
			m.fields = append(m.fields, key+"="+value)
		}
	}
	if text, ok := msg.Field("STATUS"); ok {
		m.fields = append(m.fields, "STATUS="+text)
	}
	if msg.Is("FDSTORE") {
		name, _ := msg.Field("FDNAME")
		for _, f := range msg.Files {
			m.names, m.stored = append(m.names, name), append(m.stored, f)
		}
		return
	}
	msg.Close()
}

func (m *manager) heard(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Contains(strings.Join(m.fields, "\n"), text)
}

// start runs the supervisor as systemd would: NOTIFY_SOCKET, and the store by
// the LISTEN_FDS protocol.
func (m *manager) start(t *testing.T, s *supervised) (pid int) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	l := launch{command: s.args(), files: m.stored, names: m.names, env: []string{"NOTIFY_SOCKET=" + m.path}}
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
	m := newManager(t)
	s := newSupervised(t, nil)
	s.fault("store 2")
	pid := m.start(t, s)
	before := s.untilServing()
	s.until("told to the manager", func(Status) bool { return m.heard("READY=1") })
	killAll(t, pid, before.Main.PID)
	answered := make(chan error, 1)
	go func() {
		_, _, err := ask(filepath.Join(s.dir, "socket"))
		answered <- err
	}()
	s.fault("")
	pid = m.start(t, s)
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
	s.until("told to the manager", func(Status) bool { return m.heard("RELOADING=1") && m.heard("STATUS=generation 2") })
	if m.heard("MAINPID=") {
		t.Error("the manager heard of another main process")
	}
	s.fault("exit")
	if _, err := s.Reload(s.context()); err == nil {
		t.Error("a reload of a broken service succeeds")
	}
	s.until("told to the manager", func(Status) bool { return m.heard("last failure: reload: upgrade failed: the successor exited") })
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("the supervisor ended with %v, %v", status, err)
	}
	deadline := time.After(testTimeout)
	for !m.heard("STOPPING=1") {
		select {
		case <-deadline:
			t.Fatal("the manager did not hear of the end")
		case <-time.After(time.Millisecond):
		}
	}
}

// The first connection makes systemd-socket-activate start the supervisor.
func TestSocketActivation(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.Listen = nil })
	path := filepath.Join(s.dir, "socket")
	args := append([]string{"--listen=" + path, "--fdname=test"}, s.args()...)
	cmd := exec.Command("systemd-socket-activate", args...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	s.start(cmd)
	for _, err := os.Stat(path); err != nil; _, err = os.Stat(path) {
	}
	if generation, _ := s.ask(); generation != 1 {
		t.Errorf("generation %d answers", generation)
	}
	if st := s.reload(); len(st.Sockets) != 1 || st.Sockets[0].Bound || st.Sockets[0].Name != "test" {
		t.Errorf("sockets %+v", st.Sockets)
	}
	if generation, _ := s.ask(); generation != 2 {
		t.Errorf("generation %d answers", generation)
	}
}
