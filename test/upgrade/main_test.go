// SPDX-License-Identifier: Apache-2.0

// Package upgrade tests that initiators do not notice upgrades: real clients
// run while one generation follows the other, and handoffs that fail in every
// way that can be arranged.
package upgrade

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/test/peer"
)

// upgrades is how many upgrades each torture test sees through at the least.
var upgrades = flag.Int("upgrades", 35, "upgrades in each torture test, at the least")

// builds are two builds of gotgtd that differ in their version, and one that
// can be made to fail in the middle of a handoff.
var builds = struct{ a, b, faulty *peer.Program }{
	a:      peer.GoProgram("gotgtd-a", gotgtd, "-ldflags", "-X main.version=a"),
	b:      peer.GoProgram("gotgtd-b", gotgtd, "-ldflags", "-X main.version=b"),
	faulty: peer.GoProgram("gotgtd-faulty", gotgtd, "-tags", "handofffault", "-ldflags", "-X main.version=faulty"),
}

// gotgtd is its source.
const gotgtd = "../../cmd/gotgtd"

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(peer.Main(m, builds.a, builds.b, builds.faulty))
}

// daemon is a line of generations of gotgtd.
type daemon struct {
	dir     string
	program string // what the next generation is started from
	config  string
	disk    string
	first   *peer.Process
	args    []string // of the first generation
	client  *control.Client
	portals []string
	gone    bool // no generation is expected to live

	mu   sync.Mutex // protects pids
	pids []int      // generations that have not been collected
}

const diskSize = 64 << 20

// start runs the first generation, serving a disk on two portals.
func start(t *testing.T, program string, env ...string) *daemon {
	t.Helper()
	return startWith(t, program, "targets.conf", func(disk string) string { return peer.OneDisk(disk, "") }, env...)
}

// startWith is start with a configuration file of that name and contents. A
// file is there for a disk, whether they use it or not.
func startWith(t *testing.T, program, name string, contents func(disk string) string, env ...string) *daemon {
	t.Helper()
	dir := t.TempDir()
	d := &daemon{
		dir: dir, program: filepath.Join(dir, "gotgtd"), config: filepath.Join(dir, name),
		disk: filepath.Join(dir, "disk.img"), client: control.NewClient(filepath.Join(dir, "control.sock")),
	}
	d.install(t, program)
	f, err := os.Create(d.disk)
	if err == nil {
		err = errors.Join(f.Truncate(diskSize), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	d.configure(t, contents(d.disk))
	// Its output goes to a file: a pipe would end with the first generation.
	args := append([]string{"-c", `log=$1; shift; exec env "$@" >"$log" 2>&1`, "sh", filepath.Join(dir, "log")}, env...)
	args = append(args, d.program, "serve", "--config", d.config, "--control", filepath.Join(dir, "control.sock"), "--state-dir", dir,
		"--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
	d.args = args
	d.run(t)
	t.Cleanup(func() { d.stop(t) })
	return d
}

// run starts the first generation and waits until it serves.
func (d *daemon) run(t *testing.T) {
	t.Helper()
	var err error
	if d.first, err = peer.Spawn("sh", d.args...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = peer.Until(ctx, func() error {
		st, err := d.client.Status(ctx)
		if err == nil {
			d.portals = nil
			for _, p := range st.Portals {
				d.portals = append(d.portals, p.Address.String())
			}
		}
		return err
	})
	if err != nil {
		t.Fatalf("gotgtd does not serve: %v\n%s", err, d.log())
	}
}

// restart ends the generation that serves and starts another one.
func (d *daemon) restart(t *testing.T) {
	t.Helper()
	d.stop(t)
	d.run(t)
}

// install puts a program where the next generation is started from.
func (d *daemon) install(t *testing.T, program string) {
	t.Helper()
	next := d.program + ".next"
	_ = os.Remove(next)
	if err := os.Link(program, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, d.program); err != nil {
		t.Fatal(err)
	}
}

// configure writes the configuration for the next generation.
func (d *daemon) configure(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// stop ends the generation that serves now and collects all of them.
func (d *daemon) stop(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	st, err := d.client.Status(ctx)
	switch {
	case d.gone:
	case err == nil:
		_ = unix.Kill(st.PID, unix.SIGTERM)
	default:
		t.Errorf("no generation serves at the end: %v", err)
		d.killAll()
	}
	if err := peer.Until(ctx, d.reap); err != nil {
		t.Errorf("generations are left over: %v", err)
	}
	if t.Failed() {
		t.Logf("log:\n%s", d.log())
	}
}

// log returns the end of what all generations have logged.
func (d *daemon) log() string {
	b, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-8<<10):])
}

// killAll ends what there is of this daemon.
func (d *daemon) killAll() {
	pids, _ := d.generations()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// upgrade asks for an upgrade and remembers the new generation's PID.
func (d *daemon) upgrade(t *testing.T) (*handoff.Report, error) {
	r, err := d.client.Upgrade(t.Context(), 20*time.Second)
	if err == nil {
		d.remember(r)
	}
	return r, err
}

// force is upgrade to a configuration that would be refused.
func (d *daemon) force(t *testing.T) (*handoff.Report, error) {
	r, err := d.client.ForceUpgrade(t.Context(), 20*time.Second)
	if err == nil {
		d.remember(r)
	}
	return r, err
}

// remember notes that the new generation of a report is to be collected.
func (d *daemon) remember(r *handoff.Report) {
	d.mu.Lock()
	d.pids = append(d.pids, r.NewPID)
	d.mu.Unlock()
}

// reap collects generations that have ended; an error while some live. All
// but the first are children of the one before, and this process's when that
// has ended.
func (d *daemon) reap() error {
	d.mu.Lock()
	d.pids = slices.DeleteFunc(d.pids, func(pid int) bool {
		got, _ := unix.Wait4(pid, nil, unix.WNOHANG, nil)
		return got == pid
	})
	d.mu.Unlock()
	pids, err := d.generations()
	if err == nil && len(pids) > 0 {
		err = fmt.Errorf("PIDs %v live", pids)
	}
	return err
}

// generations returns the PIDs of this daemon's processes that run. Those that
// have ended have no command line any more.
func (d *daemon) generations() ([]int, error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range all {
		line, err := os.ReadFile(filepath.Join(p, "cmdline"))
		if err != nil || !strings.HasPrefix(string(line), d.program+"\x00") {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(p), "%d", &pid); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// url is the disk's address through the n-th portal.
func (d *daemon) url(n int) string { return peer.URL(d.portals[n], peer.IQN, 1) }
