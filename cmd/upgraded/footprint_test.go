// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	maxRSS = 15 << 10 // KiB
	// idleWindow is the time for which the supervisor is watched, and idleTries
	// how many such are at hand until it has come to rest.
	idleWindow = 3 * time.Second
	idleTries  = 5
)

// checkRSS holds what the supervisor has of the memory against its bound.
func (p *programs) checkRSS() {
	p.t.Helper()
	pid := p.do("status").Status.Supervisor.PID
	rss := fieldOf(p.t, fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	p.t.Logf("the supervisor has %d KiB", rss)
	if rss > maxRSS {
		p.t.Errorf("the supervisor has %d KiB, more than %d", rss, maxRSS)
	}
}

// fieldOf reads a number from a file such as /proc/PID/status.
func fieldOf(t *testing.T, path, key string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if string(name) != key {
			continue
		}
		n, err := strconv.Atoi(string(bytes.Fields(value)[0]))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return n
	}
	t.Fatalf("%s has no %s", path, key)
	return 0
}

// wakeUps counts how often the threads of a process have gone to sleep, and so
// woken up (proc(5), voluntary_ctxt_switches).
func wakeUps(t *testing.T, pid int) int {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads of process %d: %v", pid, err)
	}
	sum := 0
	for _, path := range threads {
		sum += fieldOf(t, path, "voluntary_ctxt_switches")
	}
	return sum
}

// An idle supervisor wakes up less than once a second, and stays small.
func TestFootprint(t *testing.T) {
	p := buildPrograms(t)
	p.start(p.args("--listen", "iscsi=127.0.0.1:0", "--watchdog", "30s")...)
	p.untilServing(0)
	for range 3 {
		p.do("reload")
	}
	p.checkRSS()
	pid := p.do("status").Status.Supervisor.PID
	for try := 1; ; try++ {
		before := wakeUps(t, pid)
		<-time.After(idleWindow) // the time that is measured
		n := wakeUps(t, pid) - before
		t.Logf("%d times awake in %v", n, idleWindow)
		if n < int(idleWindow/time.Second) {
			return
		}
		if try == idleTries {
			t.Fatalf("idle, it is awake %d times in %v", n, idleWindow)
		}
	}
}
