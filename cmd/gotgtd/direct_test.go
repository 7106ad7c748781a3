// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/notify"
	"github.com/gotgtd/gotgtd/supervisor/supervisortest"
)

// startDirect runs the daemon as gotgtd-direct.service does: a socket from
// systemd, and systemd to notify.
func startDirect(t *testing.T, m *supervisortest.Manager) (*daemonProcess, net.Addr) {
	t.Helper()
	pass, addr := passSocket(t, "127.0.0.1:0")
	return startDaemonAs(t, func(c *exec.Cmd) {
		pass(c)
		c.Env = append(c.Env, m.Env(), "WATCHDOG_USEC=200000")
	}), addr
}

// passSocket listens, and returns what makes a process be started with that
// socket as systemd starts it.
func passSocket(t *testing.T, address string) (pass func(*exec.Cmd), addr net.Addr) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return passFile(t, file), listener.Addr()
}

// passFile returns what makes a command get a file named iscsi from its service
// manager.
func passFile(t *testing.T, file *os.File) (pass func(*exec.Cmd)) {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	return func(c *exec.Cmd) {
		c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=iscsi")
		c.ExtraFiles = []*os.File{file}
		// LISTEN_PID and WATCHDOG_PID are the process's own, which only it knows.
		c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`}, c.Args...)
		c.Path = sh
	}
}

// TestDirectlyUnderSystemd follows the main process as systemd does, without
// upgraded in between.
func TestDirectlyUnderSystemd(t *testing.T) {
	m := supervisortest.New(t)
	d, addr := startDirect(t, m)
	first := d.cmd.Process.Pid
	m.Await("readiness", supervisortest.From(first, "READY=1", "STATUS=generation 1, 1 targets, 0 sessions"))
	m.Await("a sign of life", supervisortest.From(first, "WATCHDOG=1"))
	if out := d.output(t, "show", "--json"); !strings.Contains(out, addr.String()) {
		t.Errorf("the socket %v is no portal:\n%s", addr, out)
	}
	d.output(t, "upgrade")
	second := d.status(t).PID
	m.Await("the reload", supervisortest.From(first, "RELOADING=1", "MONOTONIC_USEC="))
	// systemd would take the end of the first process for the service's, unless
	// that itself has named its successor before.
	main := fmt.Sprintf("MAINPID=%d", second)
	m.Await("the main process, by the first one", supervisortest.From(first, main))
	d.waitEnd(t)
	m.Await("the main process, by itself", supervisortest.From(second, "READY=1", main))
	m.Await("a sign of life of the second", supervisortest.From(second, "WATCHDOG=1"))
	if m.Heard(supervisortest.Has("STOPPING=1")) != nil {
		t.Error("systemd hears of a stop during the upgrade")
	}
	d.failDirectUpgrade(t, m, second)
	stopOther(t, second)
	m.Await("the end", supervisortest.From(second, "STOPPING=1"))
}

// failDirectUpgrade upgrades to a program that is none: the reload ends with
// the reason, and the main process is the same.
func (d *daemonProcess) failDirectUpgrade(t *testing.T, m *supervisortest.Manager, pid int) {
	t.Helper()
	next := d.program + ".next"
	if err := os.WriteFile(next, []byte("#!/bin/sh\nexit 9\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	good := d.program + ".good"
	if err := os.Rename(d.program, good); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, d.program); err != nil {
		t.Fatal(err)
	}
	out, err := asMain(exec.Command(good, "upgrade", "--control", d.socket)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "exit status 9") {
		t.Errorf("upgrade to a broken program: %v, %s", err, out)
	}
	m.Await("the failure", supervisortest.From(pid, "READY=1", fmt.Sprintf("ERRNO=%d", int(unix.ECANCELED)), "STATUS=exit status 9"))
	if m.Heard(func(msg *notify.Message) bool {
		n, found := msg.Int("MAINPID")
		return found && n != pid && n != d.cmd.Process.Pid
	}) != nil {
		t.Error("systemd hears of a main process that never took over")
	}
	if err := os.Rename(good, d.program); err != nil {
		t.Fatal(err)
	}
}
