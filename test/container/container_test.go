// SPDX-License-Identifier: Apache-2.0

// Package container runs the image that packaging/image.sh makes, with Debian's podman, and does
// what docs/containers.md says.
package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

func TestMain(m *testing.M) { os.Exit(peer.Main(m)) }

const (
	user      = 3260 // of the image
	blockSize = 512
	diskSize  = 16 << 20
)

// folders makes the configuration and the state that a container is given. The state is the
// image's user's.
func folders(t *testing.T) (config, state string) {
	t.Helper()
	dir := t.TempDir()
	config, state = filepath.Join(dir, "config"), filepath.Join(dir, "state")
	// Whoever the daemon is, it has to come through to them.
	err := os.Chmod(dir, 0o755)
	for _, folder := range []string{config, state} {
		err = errors.Join(err, os.Mkdir(folder, 0o755))
	}
	text := fmt.Sprintf("targets:\n  - name: %s\n    luns: [{lun: 1, path: /var/lib/gotgtd/disk.img, size: %d, create: true}]\n", peer.IQN, diskSize)
	err = errors.Join(err, os.Chown(state, user, user), os.WriteFile(filepath.Join(config, "gotgtd.yaml"), []byte(text), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return config, state
}

// work is a session with a Verifier that goes on until it is told to end.
type work struct {
	t       *testing.T
	session *initiator.Session
	stop    context.CancelFunc
	done    chan error
}

// dial logs in.
func dial(t *testing.T, portal string) *initiator.Session {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: portal, TargetName: peer.IQN})
	if err == nil {
		err = s.Settle(t.Context(), initiator.LUN(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// logIn logs in, and does I/O on a region whose contents v knows.
func logIn(t *testing.T, portal string, v *initiator.Verifier) *work {
	t.Helper()
	v.Session = dial(t, portal)
	ctx, stop := context.WithCancel(context.Background())
	w := &work{t: t, session: v.Session, stop: stop, done: make(chan error, 1)}
	go func() {
		r, err := v.Run(ctx)
		if err == nil && r.BlocksChecked == 0 {
			err = fmt.Errorf("nothing was checked: %+v", r)
		}
		w.done <- err
	}()
	t.Cleanup(w.stop)
	return w
}

// end wants that nothing was noticed.
func (w *work) end() {
	w.t.Helper()
	if err := w.session.Ping(w.t.Context(), 0, true, []byte("still here")); err != nil {
		w.t.Error(err)
	}
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Error(err)
	}
}

// TestImage runs the image of one version, puts the next one's programs into the container, and
// replaces the container at last.
func TestImage(t *testing.T) {
	p := newPodman(t)
	p.build("v1")
	p.build("v2")
	config, state := folders(t)
	portal, err := peer.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p.start("gotgtd", "v1", portal, config, state)
	pid := p.inspect("gotgtd", "State.Pid")
	wantClosed(t, p, pid)

	out, err := peer.Run(t.Context(), "iscsi-inq", "iscsi://"+portal+"/"+peer.IQN+"/1")
	if err != nil || !strings.Contains(out, "VIRTUAL-DISK") {
		t.Errorf("iscsi-inq: %v\n%s", err, out)
	}

	v := &initiator.Verifier{LUN: initiator.LUN(1), Blocks: diskSize / blockSize, BlockSize: blockSize, MaxDepth: 8, MaxBytes: 64 << 10, MaxDuration: 10 * patience}
	w := logIn(t, portal, v)
	wantRefused(t, p)
	p.run("create", "--name", "next", repository+":v2")
	for _, program := range []string{"gotgtd", "upgraded"} {
		file := filepath.Join(t.TempDir(), program)
		p.run("cp", "next:/usr/bin/"+program, file)
		p.run("cp", file, "gotgtd:/usr/bin/"+program)
	}
	p.run("kill", "--signal", "HUP", "gotgtd")
	p.says("gotgtd", "v2", 2)
	if out := p.run("exec", "gotgtd", "upgraded", "reload"); !strings.Contains(out, "generation:  3, ") || !strings.Contains(out, "supervisor:  v1, PID 1, ") {
		t.Errorf("after the second reload:\n%s", out)
	}
	if out := p.run("exec", "gotgtd", "upgraded", "reexec"); !strings.Contains(out, "supervisor:  v2, PID 1, ") {
		t.Errorf("after the reexec:\n%s", out)
	}
	p.says("gotgtd", "v2", 3)
	if now := p.inspect("gotgtd", "State.Pid"); now != pid {
		t.Errorf("the container's first process was %s, and is %s", pid, now)
	}
	w.end()

	p.run("stop", "--time", "45", "gotgtd")
	if status := p.inspect("gotgtd", "State.ExitCode"); status != "0" {
		t.Errorf("the container has ended with %s:\n%s", status, p.run("logs", "gotgtd"))
	}
	if err := w.session.Ping(t.Context(), 0, true, nil); err == nil {
		t.Error("the session has survived the end of its container")
	}
	p.run("rm", "gotgtd")
	p.start("gotgtd", "v2", portal, config, state)
	p.says("gotgtd", "v2", 1)
	v.Session = dial(t, portal)
	if r, err := v.CheckAll(t.Context()); err != nil || r.BlocksChecked == 0 {
		t.Errorf("what was written, after the container was replaced: %+v, %v", r, err)
	}
}

// wantClosed wants a container without a shell, whose processes are not root's and can
// do no more than any user's.
func wantClosed(t *testing.T, p *podman, pid string) {
	t.Helper()
	if out, err := p.try(t.Context(), "exec", "gotgtd", "/bin/sh", "-c", "true"); err == nil || !strings.Contains(out, "no such file") {
		t.Errorf("a shell in the container: %v\n%s", err, out)
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t", user), "CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the first process has no %q:\n%s", want, status)
		}
	}
}

// wantRefused puts a program into the container that can't run in it: a reload says so, and the one
// before goes on.
func wantRefused(t *testing.T, p *podman) {
	t.Helper()
	dynamic, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(t.TempDir(), "gotgtd")
	p.run("cp", "gotgtd:/usr/bin/gotgtd", good)
	p.run("cp", dynamic, "gotgtd:/usr/bin/gotgtd")
	if out, err := p.try(t.Context(), "exec", "gotgtd", "upgraded", "reload"); err == nil || !strings.Contains(out, "needs a dynamic loader") {
		t.Errorf("a reload with a program that can't run: %v\n%s", err, out)
	}
	p.run("cp", good, "gotgtd:/usr/bin/gotgtd")
	p.says("gotgtd", "v1", 1)
}
