// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pair(t *testing.T) (Client, *Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return NewClient(path), s
}

func receive(t *testing.T, s *Server) *Message {
	t.Helper()
	m, err := s.Receive()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func TestFieldsArrive(t *testing.T) {
	c, s := pair(t)
	if err := c.Send("READY=1", "STATUS=two\nlines = one", "ERRNO=5", "EXTEND_TIMEOUT_USEC=1500"); err != nil {
		t.Fatal(err)
	}
	m := receive(t, s)
	status, _ := m.Field("STATUS")
	errno, _ := m.Int("ERRNO")
	extend, _ := m.Duration("EXTEND_TIMEOUT_USEC")
	if m.PID != os.Getpid() || !m.Is("READY") || status != "two lines = one" || errno != 5 || extend != 1500*time.Microsecond {
		t.Errorf("got %+v", m)
	}
	if _, ok := m.Duration("STATUS"); ok || m.Is("STOPPING") {
		t.Errorf("got more than was sent: %+v", m)
	}
}

func TestFilesArrive(t *testing.T) {
	c, s := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.Store("pipe", w, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	m := receive(t, s)
	if name, _ := m.Field("FDNAME"); name != "pipe" || !m.Is("FDSTORE") || len(m.Files) != 2 {
		t.Fatalf("got %+v", m)
	}
	if _, err := m.Files[1].WriteString("x"); err != nil {
		t.Error(err)
	}
	m.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "x" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestBarrier(t *testing.T) {
	c, s := pair(t)
	done := make(chan error, 1)
	go func() { done <- c.Barrier(context.Background()) }()
	m := receive(t, s)
	if !m.Is("BARRIER") || len(m.Files) != 1 {
		t.Fatalf("got %+v", m)
	}
	select {
	case err := <-done:
		t.Fatalf("the barrier is passed already: %v", err)
	default:
	}
	m.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := c.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("barrier that nobody answers: %v", err)
	}
}

func TestNoManager(t *testing.T) {
	var c Client
	if err := errors.Join(c.Send("READY=1"), c.Barrier(context.Background()), c.Reloading("x"), c.Stopping("y")); err != nil {
		t.Error(err)
	}
	if err := NewClient("/nowhere").Send("READY=1"); err == nil {
		t.Error("no error from a manager that is not there")
	}
}

func TestBadMessages(t *testing.T) {
	c, s := pair(t)
	var many strings.Builder
	for i := range maxFields + 1 {
		fmt.Fprintf(&many, "K%d=1\n", i)
	}
	for _, text := range []string{
		"no assignment", "=value", strings.Repeat("x", maxMessage) + "=1",
		many.String(),
	} {
		if err := c.send(nil, strings.Split(text, "\n")); err != nil {
			t.Fatal(err)
		}
		var bad *BadMessage
		if _, err := s.Receive(); !errors.As(err, &bad) || bad.PID != os.Getpid() {
			t.Errorf("%.30q: %v", text, err)
		}
	}
	if err := c.Send("READY=1"); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, s); !m.Is("READY") {
		t.Errorf("got %+v after bad messages", m)
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"iscsi": true, "a b": true, strings.Repeat("x", 255): true,
		"": false, "a:b": false, "a\n": false, "é": false, strings.Repeat("x", 256): false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add("READY=1\nSTATUS=x\n")
	f.Add("=\n\n==")
	f.Fuzz(func(t *testing.T, text string) {
		fields, err := parseFields(text)
		if err != nil {
			return
		}
		var lines []string
		for k, v := range fields {
			lines = append(lines, k+"="+v)
		}
		again, err := parseFields(strings.Join(lines, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fields, again); diff != "" {
			t.Error(diff)
		}
	})
}
