// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/test/peer"
)

// TestUpgradeAsInit starts gotgtd as the first process of a PID namespace, as in
// a container without upgraded: an upgrade is refused, and it serves as before.
func TestUpgradeAsInit(t *testing.T) {
	peer.NeedRoot(t)
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemonProcess{dir: dir, program: self, socket: filepath.Join(dir, "gotgtd.sock")}
	serve := d.command("serve", "--listen", "127.0.0.1:0", "--disk", filepath.Join(dir, "disk.img")+",size=1MiB")
	var log bytes.Buffer
	c := exec.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc"}, serve.Args...)...)
	c.Env, c.Stdout, c.Stderr = serve.Env, &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill() // and the kernel kills the rest
		_ = c.Wait()
		if t.Failed() {
			t.Logf("%s", &log)
		}
	}()
	api := control.NewClient(d.socket)
	var st *control.Status
	for late := time.Now().Add(patience); st == nil; time.Sleep(10 * time.Millisecond) {
		if st, err = api.Status(t.Context()); err != nil && time.Now().After(late) {
			t.Fatal(err)
		}
	}
	if st.PID != 1 {
		t.Fatalf("gotgtd is PID %d", st.PID)
	}
	advice := filepath.Base(self) + " is PID 1 here, and the container would end with it: let upgraded be PID 1"
	if out := d.fail(t, "upgrade"); !strings.Contains(out, advice) {
		t.Errorf("upgrade says:\n%s", out)
	}
	now, err := api.Status(t.Context())
	if err != nil || now.PID != 1 || now.Generation != 1 || len(now.Upgrades) != 1 || !strings.Contains(now.Upgrades[0].Error, advice) {
		t.Errorf("after it: %+v, %v", now, err)
	}
}

// TestOpenToEverybody wants a warning where others than this host may use a disk
// without proof, and none elsewhere.
func TestOpenToEverybody(t *testing.T) {
	const warning = "everybody who reaches a portal"
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		disk := filepath.Join(t.TempDir(), "disk.img") + ",size=1MiB"
		d := startDaemon(t, "--disk", disk, "--listen", listen)
		if listen == "0.0.0.0:0" {
			d.waitFor(t, warning)
			continue
		}
		d.status(t)
		for len(d.lines) > 0 {
			if line := <-d.lines; strings.Contains(line, warning) {
				t.Errorf("on %s: %s", listen, line)
			}
		}
	}
}
