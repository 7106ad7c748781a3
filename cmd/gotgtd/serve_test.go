// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// patience is how long a test waits for what should come at once. No working
// machine is as slow, however busy it is.
const patience = 2 * time.Minute

// daemonProcess is `gotgtd serve` as a process of its own.
type daemonProcess struct {
	cmd     *exec.Cmd
	dir     string
	program string // a link to this test's binary
	socket  string
	lines   chan string   // of standard error; closed at its end
	ended   chan struct{} // closed after the first process has ended
	err     error         // valid then
}

// startDaemon runs `gotgtd serve` on a disk of 1 MiB and a free port, and
// waits until it serves. More arguments replace the disk.
func startDaemon(t *testing.T, args ...string) *daemonProcess {
	t.Helper()
	return startDaemonAs(t, func(*exec.Cmd) {}, args...)
}

// startDaemonSaying is startDaemon with something that the daemon says before it serves.
func startDaemonSaying(t *testing.T, text string, args ...string) *daemonProcess {
	t.Helper()
	d := launchDaemon(t, func(*exec.Cmd) {}, args...)
	d.waitFor(t, text)
	d.waitFor(t, "msg=serving ")
	return d
}

// startDaemonAs is startDaemon with a change to how the process is started.
func startDaemonAs(t *testing.T, change func(*exec.Cmd), args ...string) *daemonProcess {
	t.Helper()
	d := launchDaemon(t, change, args...)
	d.waitFor(t, "msg=serving ")
	return d
}

func launchDaemon(t *testing.T, change func(*exec.Cmd), args ...string) *daemonProcess {
	t.Helper()
	dir := t.TempDir()
	d := &daemonProcess{
		dir: dir, program: filepath.Join(dir, "gotgtd"), socket: filepath.Join(dir, "run", "gotgtd.sock"),
		lines: make(chan string, 1000), ended: make(chan struct{}),
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, d.program); err != nil {
		t.Fatal(err)
	}
	if len(args) == 0 {
		args = []string{"--disk", filepath.Join(dir, "disk.img") + ",size=1MiB"}
	}
	d.cmd = d.command(append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	stderr, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = w
	change(d.cmd)
	err = d.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		d.readLines(stderr)
	}()
	go func() {
		d.err = d.cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.killSuccessor()
		_ = d.cmd.Process.Kill()
		<-d.ended
		stderr.Close()
		<-read
	})
	return d
}

// killSuccessor ends the generation that a failed test has left.
func (d *daemonProcess) killSuccessor() {
	st, err := control.NewClient(d.socket).Status(context.Background())
	if err == nil && st.PID != d.cmd.Process.Pid {
		_ = unix.Kill(st.PID, unix.SIGKILL)
	}
}

func (d *daemonProcess) readLines(r io.Reader) {
	defer close(d.lines)
	for s := bufio.NewScanner(r); s.Scan(); {
		select {
		case d.lines <- s.Text():
		default: // nobody wants as many
		}
	}
}

// command is gotgtd with these arguments and the daemon's control socket.
func (d *daemonProcess) command(args ...string) *exec.Cmd {
	return asMain(exec.Command(d.program, append(args, "--control", d.socket)...))
}

// asMain makes this test's binary gotgtd; it does not wait a second for races
// when it ends.
func asMain(c *exec.Cmd) *exec.Cmd {
	c.Env = append(os.Environ(), actAsMain+"=1", "GORACE=atexit_sleep_ms=0")
	return c
}

// waitFor waits for a line of the log.
func (d *daemonProcess) waitFor(t *testing.T, text string) string {
	t.Helper()
	var log strings.Builder
	late := time.After(patience)
	for {
		select {
		case line, ok := <-d.lines:
			if !ok {
				t.Fatalf("the log ends without %q:\n%s", text, &log)
			}
			if strings.Contains(line, text) {
				return line
			}
			log.WriteString(line + "\n")
		case <-late:
			t.Fatalf("no %q in the log:\n%s", text, &log)
		}
	}
}

// output runs a command that must succeed.
func (d *daemonProcess) output(t *testing.T, args ...string) string {
	t.Helper()
	c := d.command(args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("gotgtd %v: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

// fail runs a command that must fail, and returns what it
// prints on either stream.
func (d *daemonProcess) fail(t *testing.T, args ...string) string {
	t.Helper()
	out, err := d.command(args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != statusFailed && exit.ExitCode() != statusConfig {
		t.Fatalf("gotgtd %v: %v, want status 1 or 3\n%s", args, err, out)
	}
	return string(out)
}

func (d *daemonProcess) status(t *testing.T) *control.Status {
	t.Helper()
	st := new(control.Status)
	if err := json.Unmarshal([]byte(d.output(t, "show", "--json")), st); err != nil {
		t.Fatal(err)
	}
	return st
}

// waitEnd waits for the end of the process that startDaemon has started,
// which must be a good one.
func (d *daemonProcess) waitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-d.ended:
		if d.err != nil {
			t.Errorf("serve ends with %v", d.err)
		}
	case <-time.After(patience):
		t.Fatal("serve does not end")
	}
}

func (d *daemonProcess) checkSocketGone(t *testing.T) {
	t.Helper()
	if _, err := os.Lstat(d.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the control socket is left: %v", err)
	}
}

func TestServe(t *testing.T) {
	d := startDaemon(t)
	st := d.status(t)
	if st.Generation != 1 || st.PID != d.cmd.Process.Pid || len(st.Portals) != 1 || st.Upgrades == nil {
		t.Fatalf("status is %+v", st)
	}
	c, err := net.Dial("tcp", st.Portals[0].Address.String())
	if err != nil {
		t.Errorf("the portal that show names: %v", err)
	} else {
		c.Close()
	}
	for path, want := range map[string]os.FileMode{d.socket: 0o600 | fs.ModeSocket, filepath.Dir(d.socket): 0o700 | fs.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if out := d.output(t, "show"); !strings.HasPrefix(out, "Target 1: "+defaultTarget+"\n") || !strings.Contains(out, "Size: 1.0 MiB, Block size: 512\n") {
		t.Errorf("show prints:\n%s", out)
	}
	if out := d.output(t, "sessions"); strings.Count(out, "\n") != 1 {
		t.Errorf("sessions prints:\n%s", out)
	}
	if out := d.output(t, "sessions", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("sessions --json prints:\n%s", out)
	}
	d.wantInUse(t, st.PID)
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.waitEnd(t)
	d.checkSocketGone(t)
	if out := d.fail(t, "show"); !strings.Contains(out, "can't reach gotgtd through") {
		t.Errorf("without a daemon show says:\n%s", out)
	}
}

// TestServeAnnounces reads the line that tells where the disk is served.
func TestServeAnnounces(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk.img")
	d := startDaemon(t, "--disk", disk+",size=1GiB", "--target", "iqn.2026-11.test:b", "--listen", "[::1]:0")
	portals := d.status(t).Portals
	if len(portals) != 2 {
		t.Fatalf("portals are %+v", portals)
	}
	want := `msg=serving target=iqn.2026-11.test:b lun=1 path=` + disk + ` size="1.0 GiB" portal=` + portals[1].Address.String()
	d.waitFor(t, want) // that of the first has been read
}

// wantInUse starts a second daemon with the same control socket, which names
// the first.
func (d *daemonProcess) wantInUse(t *testing.T, pid int) {
	t.Helper()
	other := filepath.Join(d.dir, "other.img") + ",size=1MiB"
	want := fmt.Sprintf("the control socket %q is in use: gotgtd (PID %d) listens on it", d.socket, pid)
	if out := d.fail(t, "serve", "--disk", other, "--listen", "127.0.0.1:0"); !strings.Contains(out, want) {
		t.Errorf("a second daemon says:\n%s\nwant %s", out, want)
	}
}

// TestUpgradeMovesOn upgrades twice on the command line; the old process ends
// and the socket stays, until the last one is told to stop.
func TestUpgradeMovesOn(t *testing.T) {
	d := startDaemon(t)
	before := d.status(t)
	var r handoff.Report
	if err := json.Unmarshal([]byte(d.output(t, "upgrade", "--json", "--timeout", "20s")), &r); err != nil {
		t.Fatal(err)
	}
	if r.Generation != 2 || r.OldPID != before.PID || r.NewPID == before.PID || len(r.Phases) == 0 || r.Error != "" {
		t.Errorf("the report is %+v", r)
	}
	d.waitEnd(t)
	if out := d.output(t, "upgrade"); !strings.HasPrefix(out, "generation 3: PID ") || !strings.Contains(out, "\n    freeze ") {
		t.Errorf("upgrade prints:\n%s", out)
	}
	st := d.status(t)
	if st.Generation != 3 || len(st.Upgrades) != 2 || st.Portals[0].Address != before.Portals[0].Address {
		t.Errorf("status is %+v", st)
	}
	if out := d.output(t, "show"); !strings.HasPrefix(out, "Upgrades:\n") || strings.Count(out, "Target 1: ") != 1 {
		t.Errorf("show prints:\n%s", out)
	}
	d.wantInUse(t, st.PID) // not the process that opened the socket, which is gone
	stopOther(t, st.PID)
	d.checkSocketGone(t)
}

// stopOther stops a process that is not this one's child, and waits for its end.
func stopOther(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			t.Fatalf("PID %d does not end: %v", pid, err)
		}
		return
	}
}

// TestUpgradeFails breaks the configuration under the running daemon.
func TestUpgradeFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "targets.conf")
	good := "<target iqn.2026-11.test:c>\n  backing-store " + dir + "/c.img\n</target>\n"
	if err := errors.Join(os.WriteFile(file, []byte(good), 0o600), os.WriteFile(dir+"/c.img", make([]byte, 1<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, "--config", file)
	if err := os.WriteFile(file, []byte(good+"nonsense yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := d.fail(t, "upgrade"); !strings.Contains(out, "targets.conf:4:1: nonsense") {
		t.Errorf("upgrade prints:\n%s", out)
	}
	if out := d.fail(t, "upgrade", "--json"); !strings.Contains(out, `"error": `) {
		t.Errorf("upgrade --json prints:\n%s", out)
	}
	if err := d.cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		d.waitFor(t, "upgrade failed")
	}
	st := d.status(t)
	if st.Generation != 1 || st.PID != d.cmd.Process.Pid || len(st.Upgrades) != 3 {
		t.Errorf("status is %+v", st)
	}
	if out := d.output(t, "show"); strings.Count(out, " failed: ") != 3 || strings.Count(out, "nonsense") != 3 {
		t.Errorf("show prints:\n%s", out)
	}
}

// TestStopOvertakesUpgrade stops the daemon while its successor, a program
// that does nothing, keeps it waiting.
func TestStopOvertakesUpgrade(t *testing.T) {
	for name, ask := range map[string]func(*testing.T, *daemonProcess){
		"signal": func(t *testing.T, d *daemonProcess) {
			if err := d.cmd.Process.Signal(unix.SIGHUP); err != nil {
				t.Fatal(err)
			}
		},
		"command": func(t *testing.T, d *daemonProcess) {
			c := asMain(exec.Command(os.Args[0], "upgrade", "--control", d.socket))
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Wait() }) // with whatever status: the daemon is gone
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDaemon(t)
			started := hangingSuccessor(t, d)
			ask(t, d)
			if _, err := started.Read(make([]byte, 16)); err != nil {
				t.Fatalf("no successor was started: %v", err)
			}
			if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			d.waitEnd(t)
			d.waitFor(t, errStopping.Error())
			d.checkSocketGone(t)
		})
	}
}

// TestReloadDuringUpgrade asks for a reload while an upgrade is under way that succeeds. What has
// asked for it may have come too late for the successor's look at the configuration, so that
// reloads once more, and once only.
func TestReloadDuringUpgrade(t *testing.T) {
	d := startDaemon(t)
	program, err := filepath.EvalSymlinks(d.program)
	if err != nil {
		t.Fatal(err)
	}
	goOn := filepath.Join(d.dir, "go")
	if err := unix.Mkfifo(goOn, 0o600); err != nil {
		t.Fatal(err)
	}
	started := slowSuccessor(t, d, "read go <"+goOn+"\nln -sf "+program+" "+d.program+"\nexec "+d.program+` "$@"`)
	hup := func() {
		if err := d.cmd.Process.Signal(unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hup()
	if _, err := started.Read(make([]byte, 16)); err != nil {
		t.Fatalf("no successor was started: %v", err)
	}
	for range 3 {
		hup()
	}
	if err := os.WriteFile(goOn, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.waitFor(t, "upgraded")
	}
	d.waitEnd(t)
	st := d.status(t)
	if st.Generation != 3 {
		t.Errorf("generation %d serves", st.Generation)
	}
	stopOther(t, st.PID)
	d.checkSocketGone(t)
}

// hangingSuccessor puts a program in the daemon's place that says so on the
// pipe which it returns, and hangs.
func hangingSuccessor(t *testing.T, d *daemonProcess) *os.File {
	t.Helper()
	return slowSuccessor(t, d, "exec sleep 60")
}

// slowSuccessor puts a program in the daemon's place that says that it was started on the pipe which it
// returns, and goes on with what the script says.
func slowSuccessor(t *testing.T, d *daemonProcess, script string) *os.File {
	t.Helper()
	fifo := filepath.Join(d.dir, "started")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	script = "#!/bin/sh\necho started >" + fifo + "\n" + script + "\n"
	next := d.program + ".next"
	if err := errors.Join(os.WriteFile(next, []byte(script), 0o700), os.Rename(next, d.program)); err != nil {
		t.Fatal(err)
	}
	return f
}
