// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

func TestReloadStrategies(t *testing.T) {
	for _, strategy := range []Strategy{Handoff, Overlap, Restart} {
		t.Run(string(strategy), func(t *testing.T) {
			s := newSupervised(t, func(c *Config) { c.Strategy = strategy })
			s.run()
			s.untilServing()
			for want := 2; want <= 5; want++ {
				st := s.reload()
				if st.State != Serving || st.Main.Number != want {
					t.Fatalf("generation %d, %s; want %d, serving", st.Main.Number, st.State, want)
				}
				s.until("alone", func(st Status) bool { return len(st.Retiring) == 0 })
				if generation, pid := s.ask(); generation != want || pid != st.Main.PID {
					t.Fatalf("generation %d, process %d answers; want %d, %d", generation, pid, want, st.Main.PID)
				}
			}
		})
	}
}

// Connections wait in the backlog, whatever happens to the service. The test of
// the same name in cmd/upgraded has more of them, from initiators.
func TestNobodyIsRefused(t *testing.T) {
	const rounds, connections, clients = 20, 2000, 2
	s := newSupervised(t, nil)
	s.run()
	s.untilServing()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex // protects served and lost
	served, lost := 0, 0
	for range clients {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					if n >= connections/clients {
						return
					}
				default:
				}
				_, _, err := ask(filepath.Join(s.dir, "socket"))
				mu.Lock()
				switch {
				case err == nil:
					served++
				case strings.Contains(err.Error(), "refused"):
					t.Error(err)
				default:
					lost++ // accepted by a process that was killed before it answered
				}
				mu.Unlock()
			}
		})
	}
	for range rounds {
		st := s.reload()
		if err := syscall.Kill(st.Main.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.until("restarted", func(now Status) bool { return now.State == Serving && now.Main.PID != st.Main.PID })
	}
	close(stop)
	wg.Wait()
	if log := s.log.String(); strings.Contains(log, "panic:") {
		t.Error("a process of the service panicked")
	}
	t.Logf("%d connections served, %d cut off by kill -9 before they were answered", served, lost)
	if served < connections-rounds*clients || lost > rounds*clients {
		t.Errorf("%d connections served, %d cut off", served, lost)
	}
}

func TestFaultsOfTheService(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  string
		change func(*Config)
		state  State
		want   string // in the last failure
		logged string
	}{
		{name: "never ready", fault: "never-ready", change: func(c *Config) { c.ReadyTimeout = 4 * time.Second },
			state: Waiting, want: "killed by signal 9 (killed): not ready within 4s before it was ready"},
		{name: "exits at once", fault: "exit", state: Waiting, want: "exited with status 3 before it was ready",
			logged: "msg=restart in=200ms restarts=4"},
		{name: "exits when ready", fault: "ready-then-exit", state: Waiting, want: "exited with status 4"},
		{name: "missing", change: func(c *Config) { c.Command = []string{"/nowhere/program"} },
			state: Waiting, want: "stat /nowhere/program: no such file or directory"},
		{name: "names a stranger", fault: "liar MAINPID=1,READY=1", state: Serving, logged: "it is no process of the service"},
		{name: "names itself", fault: "liar MAINPID=2147483646", state: Serving, logged: "MAINPID refused"},
		{name: "forks what leaves it and lies", fault: "orphan READY=1", state: Starting, logged: "it belongs to no generation that runs"},
		{name: "stores too much", fault: "store 9", change: func(c *Config) { c.MaxStored = 4 },
			state: Serving, logged: "the store is full: 4 descriptors, which is the bound"},
		{name: "stores twice", fault: "store 1", state: Serving, logged: "it is stored already"},
		{name: "asks for time", fault: "extend", change: func(c *Config) { c.ReadyTimeout = extendFrom }, state: Serving},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newSupervised(t, tc.change)
			s.fault(tc.fault)
			s.run()
			st := s.until(string(tc.state), func(st Status) bool {
				return st.State == tc.state && (tc.want == "" || st.Failure != nil)
			})
			if tc.want != "" && !strings.Contains(st.Failure.Reason, tc.want) {
				t.Errorf("failure %q, want %q in it", st.Failure.Reason, tc.want)
			}
			if tc.logged != "" {
				s.untilLogged(tc.logged)
			}
			if tc.state == Waiting && tc.fault != "" {
				// It never gives up: the service comes back when it can.
				s.fault("")
				s.untilServing()
			}
		})
	}
}

// A process of the service that sends without end is held up, and named; the
// service goes on, and is replaced, as without it.
func TestFloodOfNotifications(t *testing.T) {
	for name, fields := range map[string]string{
		"of a status":     "STATUS=noise,FDSTORE=1,WATCHDOG=1",
		"of bad messages": "no assignment",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSupervised(t, nil)
			s.fault("flood " + fields)
			s.run()
			s.untilServing()
			s.untilLogged("notifications come too fast, and have to wait")
			s.fault("")
			if st := s.reload(); st.Main.Number != 2 {
				t.Errorf("generation %d serves", st.Main.Number)
			}
			if n := strings.Count(s.log.String(), "level=WARN"); n > 1000 {
				t.Errorf("%d complaints in the log", n)
			}
		})
	}
}

// The successor is ready and the old generation has ended before the
// supervisor hears of either, in whatever order it then does.
func TestOldGenerationEndsBeforeTheNewIsHeard(t *testing.T) {
	s := newSupervised(t, nil)
	s.run()
	old := s.untilServing().Main
	s.fault(fmt.Sprintf("freeze %d", s.pid))
	for range 8 {
		reload := s.begin(s.Reload)
		if !endsBy(old.PID, time.Now().Add(testTimeout)) {
			t.Error("the old generation does not end")
		}
		if err := syscall.Kill(s.pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		a := <-reload
		if a.err != nil || a.Status.Main.Number != old.Number+1 {
			t.Fatalf("%+v, %v\n%s", a.Status.Main, a.err, s.log)
		}
		old = a.Status.Main
	}
}

func TestOutsidersAreNotHeard(t *testing.T) {
	s := newSupervised(t, nil)
	s.fault("never-ready")
	s.run()
	s.until("starting", func(st Status) bool { return st.State == Starting })
	outsider := notify.NewClient(notifyPath(s.Control))
	for range 100 {
		if err := outsider.Send("READY=1", fmt.Sprintf("MAINPID=%d", os.Getpid())); err != nil {
			t.Fatal(err)
		}
	}
	s.untilLogged("it is no process of the service")
	if st := s.until("starting", func(st Status) bool { return true }); st.State != Starting {
		t.Errorf("the service is %s", st.State)
	}
	if n := strings.Count(s.log.String(), "notification refused"); n > 50 {
		t.Errorf("%d complaints in the log", n)
	}
}

func TestFailedReloadKeepsTheOldGeneration(t *testing.T) {
	for _, tc := range []struct {
		strategy Strategy
		fault    string
		want     string
	}{
		{Handoff, "exit", "exited with exit status 3"},
		{Handoff, "never-ready", "did not take over within 5s"},
		{Overlap, "exit", "exited with status 3 before it was ready"},
		{Overlap, "never-ready", "not ready within 10s"},
	} {
		t.Run(string(tc.strategy)+" "+tc.fault, func(t *testing.T) {
			t.Parallel()
			s := newSupervised(t, func(c *Config) { c.Strategy, c.ReadyTimeout = tc.strategy, 10*time.Second })
			s.run()
			before := s.untilServing().Main.PID
			s.fault(tc.fault)
			_, err := s.Reload(s.context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("reload: %v, want %q in it", err, tc.want)
			}
			if _, pid := s.ask(); pid != before {
				t.Errorf("process %d answers, not %d", pid, before)
			}
			s.fault("")
			if st := s.reload(); st.Main.PID == before {
				t.Error("the old generation is still there")
			}
		})
	}
}

// A handoff whose service does not give up its successor in time.
func TestReloadTimeout(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.ReadyTimeout = 4 * time.Second })
	s.run()
	before := s.untilServing().Main.PID
	s.fault("never-ready")
	if _, err := s.Reload(s.context()); err == nil || !strings.Contains(err.Error(), "not ready within 4s") {
		t.Errorf("reload: %v", err)
	}
	if _, pid := s.ask(); pid != before {
		t.Errorf("process %d answers, not %d", pid, before)
	}
}

func TestDeafServiceIsKilled(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.StopTimeout = 200 * time.Millisecond })
	s.fault("ignore-term")
	s.run()
	s.untilServing()
	result, err := s.Stop(s.context())
	if err != nil || result.Status.State != Stopped {
		t.Fatalf("%s, %v", result.Status.State, err)
	}
	s.untilLogged("it did not end within 200ms")
}

func TestStopHoldsTheSockets(t *testing.T) {
	s := newSupervised(t, nil)
	s.run()
	s.untilServing()
	if _, err := s.Stop(s.context()); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, _, err := ask(filepath.Join(s.dir, "socket"))
		answered <- err
	}()
	if result, err := s.Restart(s.context()); err != nil || result.Status.Main.Number != 2 {
		t.Fatalf("%+v, %v", result.Status.Main, err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestWatchdog(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.Watchdog = 500 * time.Millisecond })
	s.run()
	// The test service sends no sign of life at all.
	st := s.until("restarted", func(st Status) bool { return st.Restarts > 0 && st.State == Serving })
	if !strings.Contains(st.Failure.Reason, "watchdog: it gave no sign of life for 500ms") {
		t.Errorf("failure %q", st.Failure.Reason)
	}
}

// One that takes longer to abort than it is given has failed for the same reason.
func TestWatchdogKillsWhatDoesNotAbort(t *testing.T) {
	s := newSupervised(t, func(c *Config) { c.Watchdog = 500 * time.Millisecond })
	s.fault("ignore-abort")
	s.run()
	st := s.until("restarted", func(st Status) bool { return st.Restarts > 0 && st.State == Serving })
	if !strings.Contains(st.Failure.Reason, "(killed): watchdog: it gave no sign of life for 500ms") {
		t.Errorf("failure %q", st.Failure.Reason)
	}
}

func TestStoreSurvivesTheService(t *testing.T) {
	s := newSupervised(t, nil)
	s.fault("store 3")
	s.run()
	st := s.untilServing()
	if len(st.Stored) != 3 {
		t.Fatalf("stored: %v", st.Stored)
	}
	s.fault("unstore")
	if err := syscall.Kill(st.Main.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st = s.until("restarted", func(now Status) bool { return now.State == Serving && now.Main.PID != st.Main.PID })
	if st.Main.Text != "stored 3" {
		t.Errorf("the service says %q", st.Main.Text)
	}
	if len(st.Stored) != 0 {
		t.Errorf("stored: %v", st.Stored)
	}
}

func TestBusySupervisorRefuses(t *testing.T) {
	s := newSupervised(t, nil)
	s.fault("never-ready")
	s.run()
	s.until("starting", func(st Status) bool { return st.State == Starting })
	if _, err := s.Restart(s.context()); err == nil || err.Error() != "can't restart: the service is starting" {
		t.Errorf("restart: %v", err)
	}
	if _, err := s.Reexec(s.context()); err == nil || err.Error() != "can't reexec: the service is starting" {
		t.Errorf("reexec: %v", err)
	}
	if _, err := s.Stop(s.context()); err != nil {
		t.Error(err)
	}
}
