// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// outcome is what a request in the background has led to.
type outcome struct {
	Result
	err error
}

// begin makes a request in the background.
func (s *supervised) begin(do func(context.Context) (Result, error)) <-chan outcome {
	s.t.Helper()
	answers := make(chan outcome, 1)
	ctx := s.context()
	go func() {
		result, err := do(ctx)
		answers <- outcome{result, err}
	}()
	return answers
}

// serving wants a request to have led to a generation that serves.
func (s *supervised) serving(what string, answers <-chan outcome, generation int) {
	s.t.Helper()
	a := <-answers
	if a.err != nil || a.Status.State != Serving || a.Status.Main.Number != generation {
		s.t.Errorf("%s: %s, %+v, %v; want generation %d", what, a.Status.State, a.Status.Main, a.err, generation)
	}
}

// failing wants a request to have failed.
func (s *supervised) failing(what string, answers <-chan outcome, want string) {
	s.t.Helper()
	if a := <-answers; a.err == nil || !strings.Contains(a.err.Error(), want) {
		s.t.Errorf("%s: %v, want %q in it", what, a.err, want)
	}
}

// reloadWaits asks for a reload and returns when it waits.
func (s *supervised) reloadWaits() <-chan outcome {
	s.t.Helper()
	const text = "request waits"
	before := strings.Count(s.log.String(), text)
	answers := s.begin(s.Reload)
	s.until("waiting", func(Status) bool {
		if len(answers) > 0 {
			a := <-answers
			s.t.Fatalf("the reload does not wait: %+v, %v", a.Status, a.err)
		}
		return strings.Count(s.log.String(), text) > before
	})
	return answers
}

// close keeps each generation from now on from being ready until open.
func (s *supervised) close() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "gate")); err != nil {
		s.t.Fatal(err)
	}
	s.fault("gate " + filepath.Join(s.dir, "gate"))
}

func (s *supervised) open() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "gate"), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// newStarting is a service that is not ready before open.
func newStarting(t *testing.T, change func(*Config)) *supervised {
	t.Helper()
	s := newSupervised(t, change)
	s.close()
	s.run()
	s.until("starting", func(st Status) bool { return st.State == Starting })
	return s
}

func TestReloadDuringStart(t *testing.T) {
	for _, strategy := range []Strategy{Handoff, Overlap, Restart} {
		t.Run(string(strategy), func(t *testing.T) {
			s := newStarting(t, func(c *Config) { c.Strategy = strategy })
			first := s.reloadWaits()
			if err := syscall.Kill(s.pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			s.until("waiting", func(Status) bool { return strings.Count(s.log.String(), "request waits") == 2 })
			s.open()
			s.serving("the reload", first, 2)
		})
	}
}

// A restart is a start, from the moment on in which it stops.
func TestReloadDuringRestart(t *testing.T) {
	s := newSupervised(t, nil)
	s.run()
	s.untilServing()
	s.close()
	restart := s.begin(s.Restart)
	s.until("restarting", func(st Status) bool { return st.State == Stopping || st.State == Starting })
	reload := s.reloadWaits()
	s.open()
	s.serving("the restart", restart, 2)
	s.serving("the reload", reload, 3)
}

// What a reload has started before the next one is asked for may be older than
// what the next one is about: there is one more, and it is good for all that wait.
func TestReloadDuringReload(t *testing.T) {
	for _, strategy := range []Strategy{Handoff, Overlap, Restart} {
		t.Run(string(strategy), func(t *testing.T) {
			s := newSupervised(t, func(c *Config) { c.Strategy = strategy })
			s.run()
			s.untilServing()
			s.close()
			first := s.begin(s.Reload)
			s.until("reloading", func(st Status) bool { return st.State != Serving })
			second := s.reloadWaits()
			third := s.reloadWaits()
			s.open()
			s.serving("the first reload", first, 2)
			s.serving("the second reload", second, 3)
			s.serving("the third reload", third, 3)
		})
	}
}

// A reload that fails is one reload's failure.
func TestReloadAfterAFailedReload(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.Strategy = Overlap })
	s.run()
	s.untilServing()
	s.close()
	first := s.begin(s.Reload)
	st := s.until("reloading", func(st Status) bool { return st.Next != nil })
	second := s.reloadWaits()
	s.fault("")
	if err := syscall.Kill(st.Next.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.failing("the first reload", first, "was killed by signal 9")
	s.serving("the second reload", second, 3)
}

// The reload is the next start, without a delay, and has its outcome.
func TestReloadAfterAFailedStart(t *testing.T) {
	for name, fault := range map[string]string{"mended": "", "not mended": "exit"} {
		t.Run(name, func(t *testing.T) {
			s := newStarting(t, func(c *Config) { c.RestartDelay = testTimeout })
			reload := s.reloadWaits()
			s.fault(fault)
			if err := syscall.Kill(s.now().Main.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if fault != "" {
				s.failing("the reload", reload, "generation 2")
				return
			}
			s.serving("the reload", reload, 2)
		})
	}
}

// Who waits is told what has come in between.
func TestStopWhileAReloadWaits(t *testing.T) {
	s := newStarting(t, nil)
	reload := s.reloadWaits()
	result, err := s.Stop(s.context())
	if err != nil || result.Status.State != Stopped {
		t.Errorf("stop: %s, %v", result.Status.State, err)
	}
	s.failing("the reload", reload, "overtaken by a request to stop")
	if st := s.now(); st.State != Stopped {
		t.Errorf("the service is %s", st.State)
	}
}

func TestEndWhileAReloadWaits(t *testing.T) {
	s := newStarting(t, nil)
	reload := s.reloadWaits()
	if err := syscall.Kill(s.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.failing("the reload", reload, "the supervisor is ending")
}

// A service that takes its time to stop, longer than a start may take.
func TestReloadWaitsInVain(t *testing.T) {
	s := newSupervised(t, func(c *Config) {
		c.Strategy, c.Readiness, c.ReadyTimeout = Restart, ReadyByExec, 300*time.Millisecond
	})
	deaf := filepath.Join(s.dir, "deaf") // as long as it is there, until the service has started
	if err := os.WriteFile(deaf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.cfg.Command = []string{"sh", "-c", `[ -e "$0" ] && trap "" TERM; rm -f "$0"; while :; do sleep 1000; done`, deaf}
	s.run()
	s.until("deaf", func(Status) bool { _, err := os.Stat(deaf); return err != nil })
	first := s.begin(s.Reload)
	before := s.until("stopping", func(st Status) bool { return st.State == Stopping }).Main.PID
	s.failing("the second reload", s.begin(s.Reload), "can't reload: the service is still stopping, after a wait of 300ms")
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.serving("the first reload", first, 2)
}

// Reloads that wait leave room for who asks how things stand, and for who stops.
func TestReloadsThatWaitAreBounded(t *testing.T) {
	s := newStarting(t, nil)
	var reloads []<-chan outcome
	for range maxWaiting {
		reloads = append(reloads, s.reloadWaits())
	}
	_, err := s.Reload(s.context())
	if want := fmt.Sprintf("can't reload: the service is starting, and %d reloads wait for that already", maxWaiting); err == nil || err.Error() != want {
		t.Errorf("one more: %v, want %s", err, want)
	}
	s.open()
	for _, r := range reloads {
		s.serving("a reload", r, 2)
	}
}
