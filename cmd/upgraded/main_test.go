// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/supervisor/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// programs are upgraded and gotgtd, built for a test, and what they use.
type programs struct {
	t        *testing.T
	dir      string
	upgraded string
	gotgtd   string
	control  string
	log      *os.File
}

func buildPrograms(t *testing.T) *programs {
	t.Helper()
	dir := t.TempDir()
	p := &programs{
		t: t, dir: dir, upgraded: filepath.Join(dir, "upgraded"), gotgtd: filepath.Join(dir, "gotgtd"),
		control: filepath.Join(dir, "control"),
	}
	out, err := exec.Command("go", "build", "-o", dir, ".", "../gotgtd").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if p.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.log.Close() })
	return p
}

// args are the command line that runs gotgtd under upgraded, with more flags
// for upgraded.
func (p *programs) args(flags ...string) []string {
	args := append([]string{p.upgraded, "run", "--control", p.control, "--ready-timeout", "2m"}, flags...)
	return append(args, "--", p.gotgtd, "serve", "--disk", filepath.Join(p.dir, "disk")+",size=1MiB",
		"--control", filepath.Join(p.dir, "gotgtd.sock"))
}

// run runs gotgtd under upgraded, which binds the socket, until the test ends.
func (p *programs) run() { p.t.Helper(); p.start(p.args("--listen", "iscsi=127.0.0.1:0")...) }

// start runs a command that is upgraded, or becomes it, until the test ends.
func (p *programs) start(args ...string) (pid int) {
	p.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("upgraded run: %v", err)
		}
		if p.t.Failed() {
			text, _ := os.ReadFile(p.log.Name())
			p.t.Logf("%s", text)
		}
	})
	return cmd.Process.Pid
}

// ask runs a verb of upgraded with --json.
func (p *programs) ask(verb string) (service.Result, error) {
	p.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(p.upgraded, verb, "--json", "--control", p.control)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) {
		p.t.Fatal(runErr)
	}
	var result service.Result
	if err := json.Unmarshal(stdout.Bytes(), &result); err != nil {
		p.t.Fatalf("%s answers %q: %v", verb, stdout.String(), err)
	}
	if runErr != nil {
		return result, errors.New(stderr.String())
	}
	return result, nil
}

// untilServing returns the status of the next generation that serves with
// another PID than not.
func (p *programs) untilServing(not int) service.Status {
	p.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		result, err := p.ask("status")
		if err == nil && result.Status.State == service.Serving && result.Status.Main.PID != not {
			return result.Status
		}
		select {
		case <-deadline:
			p.t.Fatalf("not serving: %+v, %v", result, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestTargetUnderSupervision runs gotgtd as the unit does.
func TestTargetUnderSupervision(t *testing.T) {
	p := buildPrograms(t)
	p.run()
	st := p.untilServing(0)
	connect := func() {
		t.Helper()
		conn, err := net.Dial("tcp", st.Sockets[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	connect()
	for range 3 {
		before := st.Main
		result, err := p.ask("reload")
		if err != nil {
			t.Fatal(err)
		}
		st = result.Status
		if st.State != service.Serving || st.Main.Number != before.Number+1 || st.Main.PID == before.PID {
			t.Fatalf("reloaded to %+v from %+v", st.Main, before)
		}
		connect()
	}
	if err := syscall.Kill(st.Main.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	connect()
	st = p.untilServing(st.Main.PID)
	p.breakAndReload(st)
	result, err := p.ask("reexec")
	if err != nil || result.Status.Supervisor.Reexecs != 1 || result.Status.Main.PID != st.Main.PID {
		t.Errorf("reexec: %+v, %v", result.Status, err)
	}
	connect()
}

// breakAndReload puts a broken gotgtd in place: the reload fails with the
// reason, and the old one serves on.
func (p *programs) breakAndReload(st service.Status) {
	p.t.Helper()
	good := p.gotgtd + ".good"
	if err := os.Rename(p.gotgtd, good); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(p.gotgtd, []byte("#!/bin/sh\nexit 9\n"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	result, err := p.ask("reload")
	if err == nil || !strings.Contains(err.Error(), "exit status 9") || result.Status.Main.PID != st.Main.PID {
		p.t.Errorf("reload of a broken binary: %v, %+v", err, result.Status.Main)
	}
	if err := os.Rename(good, p.gotgtd); err != nil {
		p.t.Fatal(err)
	}
}
