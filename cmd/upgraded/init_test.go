// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/supervisor/service"
)

// startAsInit runs a command as PID 1 of a namespace of its own, as the first
// process of a container, and returns the PID that it has outside. It ends by
// SIGTERM, in order.
func (p *programs) startAsInit(args ...string) (pid int) {
	p.t.Helper()
	cmd := exec.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc"}, args...)...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		if pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		} else {
			_ = cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("PID 1 of the namespace: %v", err)
		}
		if p.t.Failed() {
			text, _ := os.ReadFile(p.log.Name())
			p.t.Logf("%s", text)
		}
	})
	p.until("PID 1 has not started", func() bool {
		if list := childrenOf(cmd.Process.Pid); len(list) == 1 {
			pid = list[0]
		}
		return pid != 0
	})
	return pid
}

// until waits for something that takes a moment.
func (p *programs) until(otherwise string, done func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatal(otherwise)
		}
	}
}

// childrenOf are the children of a process, those that have ended and wait to be
// reaped among them.
func childrenOf(pid int) []int {
	var list []int
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, word := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(word); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// children returns the children of a process that have that name, ended or not.
func children(pid int, name string) []int {
	return slices.DeleteFunc(childrenOf(pid), func(child int) bool {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child))
		return err != nil || strings.TrimSpace(string(comm)) != name
	})
}

// TestAsInit is upgraded as the first process of a container: what it gets as a
// signal reaches the service, what is orphaned is reaped, and gotgtd is upgraded
// and ends in order.
func TestAsInit(t *testing.T) {
	p := buildPrograms(t)
	pid := p.startAsInit(p.args("--listen", "iscsi=127.0.0.1:0")...)
	st := p.untilServing(0)
	if st.Supervisor.PID != 1 {
		t.Fatalf("the supervisor is PID %d", st.Supervisor.PID)
	}
	next := func(what string, do func() error) {
		t.Helper()
		before := st.Main
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if st = p.untilServing(before.PID); st.Main.Number != before.Number+1 {
			t.Errorf("%s leads from generation %d to %d", what, before.Number, st.Main.Number)
		}
	}
	next("reload", func() error { _, err := p.ask("reload"); return err })
	next("SIGHUP", func() error { return syscall.Kill(pid, syscall.SIGHUP) })
	next("SIGUSR2, which upgrades gotgtd", func() error { return syscall.Kill(pid, syscall.SIGUSR2) })
	if st.Restarts != 0 {
		t.Errorf("%d restarts", st.Restarts)
	}
	// A program leaves others behind, as a shell does that is started in the container.
	out, err := exec.Command("nsenter", "--target", strconv.Itoa(pid), "--pid", "--mount", "sh", "-c", "for i in 1 2 3; do sleep 600 >/dev/null 2>&1 & done").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.until("PID 1 does not get the orphans", func() bool { return len(children(pid, "sleep")) == 3 })
	for _, child := range children(pid, "sleep") {
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	p.until("orphans are not reaped", func() bool { return len(children(pid, "sleep")) == 0 })
	if now, err := p.ask("status"); err != nil || now.Status.State != service.Serving || now.Status.Main.PID != st.Main.PID {
		t.Errorf("after all that: %+v, %v", now, err)
	}
}
