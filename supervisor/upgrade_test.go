// SPDX-License-Identifier: Apache-2.0

package supervisor_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestUpgradesKeepConnections(t *testing.T) {
	s := startService(t)
	c := dial(t, s.addr)
	if got := c.ask("one"); got != 1 {
		t.Fatalf("generation %d answers, not 1", got)
	}
	var first int
	for i := range 30 {
		addr := s.addr
		s.upgrade()
		if s.gen != i+2 || s.addr != addr {
			t.Fatalf("generation %d on %s, want %d on %s", s.gen, s.addr, i+2, addr)
		}
		if got := c.ask("again"); got != s.gen {
			t.Fatalf("generation %d answers, not %d", got, s.gen)
		}
		if i == 0 {
			first = s.fds()
		}
	}
	// One or two may be on their way to be closed; one for each upgrade would be 29.
	if last := s.fds(); last > first+2 {
		t.Errorf("generation %d has %d descriptors, generation 2 had %d", s.gen, last, first)
	}
	if got := dial(t, s.addr).ask("new"); got != s.gen {
		t.Errorf("generation %d answers a new connection, not %d", got, s.gen)
	}
}

func TestFailedUpgradesLeaveNothing(t *testing.T) {
	s := startService(t)
	c := dial(t, s.addr)
	c.ask("one")
	s.fault("hello exit")
	before := 0
	for i := range 100 {
		s.signal(syscall.SIGHUP)
		s.await("failed")
		if i == 0 {
			before = s.fds()
		}
	}
	// What the last failure left is closed when the collector comes to it.
	if after := s.fds(); after > before+2 {
		t.Errorf("%d descriptors after 100 failed upgrades, %d after one", after, before)
	}
	if got := c.ask("two"); got != 1 {
		t.Errorf("generation %d answers, not 1", got)
	}
	s.fault("")
	s.upgrade()
	if got := c.ask("three"); got != 2 {
		t.Errorf("generation %d answers, not 2", got)
	}
}

func TestUpgradeFailures(t *testing.T) {
	replace := func(content string, mode os.FileMode) func(*service) error {
		return func(s *service) error {
			if err := os.Remove(s.binary); err != nil || mode == 0 {
				return err
			}
			return os.WriteFile(s.binary, []byte(content), mode)
		}
	}
	fault := func(text string) func(*service) error {
		return func(s *service) error { s.fault(text); return nil }
	}
	for _, tc := range []struct {
		name     string
		sabotage func(*service) error
		want     string
	}{
		{"missing", replace("", 0), "is missing"},
		{"no loader", replace("#!/nonexistent/interpreter\n", 0o700), "needs a dynamic loader or an interpreter that is not here"},
		{"not executable", replace("#!/bin/sh\n", 0o600), "is not executable"},
		{"no program", replace("\x7fELF\x02\x01\x01", 0o700), "another architecture"},
		{"foreign program hangs", replace("#!/bin/sh\nexec sleep 1000\n", 0o700), "did not take over within 2s"},
		{"foreign program ends", replace("#!/bin/sh\nexit 0\n", 0o700), "exit status 0 before it was ready"},
		{"exits at once", fault("start exit"), "exit status 3 before it was ready"},
		{"killed at once", fault("start killed"), "signal 9"},
		{"hangs before start", fault("start hang"), "did not take over within 2s"},
		{"exits before hello", fault("hello exit"), "the successor exited with exit status 3"},
		{"hangs before hello", fault("hello hang"), "did not take over within 2s"},
		{"killed before prepared", fault("prepared killed"), ""},
		{"hangs before prepared", fault("prepared hang"), "did not take over within 2s"},
		{"exits before taken", fault("taken exit"), "the successor exited with exit status 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			timeout := "2m" // a busy machine's successor has time to fail in its own way
			if strings.Contains(tc.want, "within 2s") {
				timeout = "2s"
			}
			s := startService(t, "ECHO_TIMEOUT="+timeout)
			c := dial(t, s.addr)
			c.ask("before")
			if err := tc.sabotage(s); err != nil {
				t.Fatal(err)
			}
			s.signal(syscall.SIGHUP)
			if got := s.await("failed"); !strings.Contains(got, tc.want) {
				t.Errorf("error %q, want %q in it", got, tc.want)
			}
			if got := c.ask("after"); got != 1 {
				t.Errorf("generation %d answers, not 1", got)
			}
			if left := childrenOf(t, s.pid); left != 0 {
				t.Errorf("%d processes left", left)
			}
		})
	}
}

// childrenOf counts the children of a process, zombies as well.
func childrenOf(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[1] == strconv.Itoa(pid) {
			n++
		}
	}
	return n
}

// A successor that has answered TAKEN owns everything: its death is not
// reported as a failed upgrade, since there is nothing to go back to.
func TestDeathAfterTakingOverIsNoFailure(t *testing.T) {
	s := startService(t)
	s.fault("ready exit")
	s.signal(syscall.SIGHUP)
	if got := s.await("exit"); !strings.HasPrefix(got, "1 ") {
		t.Errorf("generation 1 doesn't end, but %q", got)
	}
}

// AtExit's functions run once and in order, in the generation that has handed over
// and in the one that ends for good.
func TestAtExit(t *testing.T) {
	s := startService(t)
	first := s.pid
	s.signal(syscall.SIGHUP)
	var got []string
	for line := range s.lines { // until both have ended
		if _, err := fmt.Sscanf(line, "ready 2 %d", &s.pid); err != nil {
			got = append(got, line)
			continue
		}
		if _, err := syscall.Wait4(first, nil, 0, nil); err != nil {
			t.Fatalf("waiting for generation 1: %v", err)
		}
		s.signal(syscall.SIGTERM)
	}
	want := []string{
		fmt.Sprintf("leaving 1 %d", first), fmt.Sprintf("exit 1 %d", first),
		fmt.Sprintf("leaving 2 %d", s.pid), fmt.Sprintf("exit 2 %d", s.pid),
	}
	if !slices.Equal(got, want) {
		t.Errorf("after the upgrade they say %q, want %q", got, want)
	}
}
