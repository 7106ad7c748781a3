// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func wantLength(t *testing.T, path string, want int64) {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.Size() != want {
		t.Errorf("%s has %v, %v, want %d bytes", path, info.Size(), err, want)
	}
}

// TestGrowthIsUndone: an upgrade that fails after the successor has grown a disk's file, by itself or by being killed,
// leaves file and configuration as before, and the change can be made again.
func TestGrowthIsUndone(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	const a = "iqn.2026-11.test:a"
	disk, taken := filepath.Join(filepath.Dir(file), "a.img"), filepath.Join(filepath.Dir(file), "taken.img")
	lockFile(t, taken)
	next := filepath.Join(t.TempDir(), "next.yaml")
	grown := strings.Replace(changedConfig, "1MiB", "2MiB", 1)
	if err := os.WriteFile(next, []byte(grown+"      - {lun: 2, path: "+taken+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The successor opens, and grows, one file after the other.
	if out := d.fail(t, "apply", "-f", next); !strings.Contains(out, file+" is as before") {
		t.Errorf("apply prints:\n%s", out)
	}
	wantText(t, file, changedConfig)
	wantLength(t, disk, 1<<20)
	d.output(t, "upgrade")

	program, err := filepath.EvalSymlinks(d.program)
	if err != nil {
		t.Fatal(err)
	}
	slowSuccessor(t, d, "truncate -s 2M "+disk+"; kill -9 $$")
	c := asMain(exec.Command(os.Args[0], "lun", "resize", a, "1", "2MiB", "--control", d.socket))
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), file+" is as before") {
		t.Errorf("resize prints:\n%s", out)
	}
	wantText(t, file, changedConfig)
	wantLength(t, disk, 1<<20)
	if err := errors.Join(os.Remove(d.program), os.Symlink(program, d.program)); err != nil {
		t.Fatal(err)
	}
	d.output(t, "upgrade")
	d.output(t, "lun", "resize", a, "1", "2MiB")
	wantText(t, file, grown)
	wantLength(t, disk, 2<<20)
	stopOther(t, d.status(t).PID)
}

// TestDaemonKilledDuringChange: whatever a command has asked for is what the next start serves, and what the
// new text names is there.
func TestDaemonKilledDuringChange(t *testing.T) {
	const a = "iqn.2026-11.test:a"
	for _, c := range []struct {
		size string // of the disk
		args []string
	}{{"2M", []string{"lun", "resize", a, "1", "2MiB"}}, {"1M", []string{"user", "add", a, "bob"}}} {
		args := c.args
		t.Run(args[0], func(t *testing.T) {
			d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
			disk, pid := filepath.Join(filepath.Dir(file), "a.img"), filepath.Join(d.dir, "pid")
			started := slowSuccessor(t, d, "truncate -s "+c.size+" "+disk+"; echo $$ >"+pid+"; echo started >"+filepath.Join(d.dir, "started")+"; exec sleep 60")
			c := asMain(exec.Command(os.Args[0], append(args, "--control", d.socket)...))
			c.Stdin = strings.NewReader("secret-of-bob-1\n")
			var out bytes.Buffer
			c.Stdout, c.Stderr = &out, &out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			for text := ""; strings.Count(text, "started") < 2; {
				b := make([]byte, 64)
				n, err := started.Read(b)
				if err != nil {
					t.Fatalf("no successor was started: %v", err)
				}
				text += string(b[:n])
			}
			if err := d.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-d.ended
			if b, err := os.ReadFile(pid); err == nil {
				if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
					_ = unix.Kill(n, unix.SIGKILL)
				}
			}
			if err := c.Wait(); err == nil || !strings.Contains(out.String(), file+": it has the new text") || !strings.Contains(out.String(), "gotgtd upgrade") {
				t.Errorf("%v:\n%s", err, &out)
			}
			// This is what a killed command leaves beside it.
			left := filepath.Join(filepath.Dir(file), ".gotgtd.yaml."+strconv.Itoa(c.Process.Pid)+".new")
			if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
			again := startDaemon(t, "--config", file)
			again.waitFor(t, "removed what was being written")
			if _, err := os.Lstat(left); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", left, err)
			}
			st := again.status(t)
			switch l := st.Targets[0].LUNs; {
			case args[0] == "lun" && l[len(l)-1].Size != 2<<20:
				t.Errorf("LUN 1 has %d bytes", l[len(l)-1].Size)
			case args[0] == "user" && len(st.Targets[0].Accounts) != 1:
				t.Errorf("the accounts are %q", st.Targets[0].Accounts)
			}
		})
	}
}
