// SPDX-License-Identifier: Apache-2.0

// Package supervisortest stands in for systemd in tests of daemons and of
// supervisors: a service manager that hears notifications and keeps
// descriptors, and starts nothing.
package supervisortest

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// Patience is how long Await waits.
const Patience = 2 * time.Minute

// A Manager hears what processes with its NOTIFY_SOCKET say, whoever they are.
// Its methods may be called from any goroutine, those that can fail the test
// from the test's own.
type Manager struct {
	t      testing.TB
	path   string
	server *notify.Server

	mu      sync.Mutex // protects what follows
	heard   []*notify.Message
	names   []string
	files   []*os.File
	changed chan struct{} // closed when something was heard
}

// New starts a manager that ends with the test.
func New(t testing.TB) *Manager {
	t.Helper()
	m := &Manager{t: t, path: filepath.Join(t.TempDir(), "manager"), changed: make(chan struct{})}
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
		_ = m.server.Close()
		<-done
		for _, f := range m.files {
			_ = f.Close()
		}
	})
	return m
}

// Env is the environment variable that leads a process to the manager.
func (m *Manager) Env() string { return "NOTIFY_SOCKET=" + m.path }

func (m *Manager) hear(msg *notify.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, _ := msg.Field("FDNAME")
	switch {
	case msg.Is("FDSTORE"):
		for _, f := range msg.Files {
			m.names, m.files = append(m.names, name), append(m.files, f)
		}
		msg.Files = nil
	case msg.Is("FDSTOREREMOVE"):
		m.removeLocked(name)
	}
	msg.Close() // and with it a barrier
	m.heard = append(m.heard, msg)
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Manager) removeLocked(name string) {
	var names []string
	var files []*os.File
	for i, f := range m.files {
		if m.names[i] == name {
			_ = f.Close()
			continue
		}
		names, files = append(names, m.names[i]), append(files, f)
	}
	m.names, m.files = names, files
}

// Stored returns the descriptors that the manager keeps, with their names. They
// stay the manager's.
func (m *Manager) Stored() (files []*os.File, names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(files, m.files...), append(names, m.names...)
}

// Heard returns the first message of the manager's life that ok accepts, or
// nil.
func (m *Manager) Heard(ok func(*notify.Message) bool) *notify.Message {
	msg, _ := m.find(ok)
	return msg
}

func (m *Manager) find(ok func(*notify.Message) bool) (*notify.Message, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.heard {
		if ok(msg) {
			return msg, m.changed
		}
	}
	return nil, m.changed
}

// Await is Heard for a message that is still to come; the test fails, naming
// what, if it does not within Patience.
func (m *Manager) Await(what string, ok func(*notify.Message) bool) *notify.Message {
	m.t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		msg, changed := m.find(ok)
		if msg != nil {
			return msg
		}
		select {
		case <-changed:
		case <-late.C:
			m.t.Fatalf("the service manager never hears of %s", what)
		}
	}
}

// Has accepts a message with all of these fields, each "KEY=TEXT"; the field's
// value has TEXT somewhere in it.
func Has(fields ...string) func(*notify.Message) bool {
	return func(msg *notify.Message) bool {
		for _, f := range fields {
			key, text, _ := strings.Cut(f, "=")
			if value, found := msg.Field(key); !found || !strings.Contains(value, text) {
				return false
			}
		}
		return true
	}
}

// From accepts a message that process pid has sent, with all of these fields.
func From(pid int, fields ...string) func(*notify.Message) bool {
	has := Has(fields...)
	return func(msg *notify.Message) bool { return msg.PID == pid && has(msg) }
}
