// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// script writes a program for the shell.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	writeProgram(t, path, []byte("#!/bin/sh\n"+text))
	return path
}

// writeProgram writes a file that can be executed at once: a process that another
// test starts meanwhile would keep it open for writing until it is itself executed.
func writeProgram(t *testing.T, path string, text []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestFailures lets upgrades fail in every way. Whenever a generation is left
// alive, a client that reads all the while notices nothing, what was written
// before is there, and the reason names what happened.
func TestFailures(t *testing.T) {
	peer.Need(t, "iscsi-perf", "qemu-io")
	replace := func(text string) func(*testing.T, *daemon) {
		return func(t *testing.T, d *daemon) { d.install(t, script(t, text)) }
	}
	nothing := func(*testing.T, *daemon) {}
	for _, c := range []struct {
		name    string
		fault   string // HANDOFF_FAULT of both generations
		arrange func(*testing.T, *daemon)
		want    string // in the reason, or one of these with | between them; empty: a generation takes over
		oldDies bool   // the request for the upgrade gets no answer
		lost    bool   // no generation is left alive
	}{
		{"binary missing", "", func(t *testing.T, d *daemon) { rm(t, d.program) }, "is missing", false, false},
		{"not executable", "", func(t *testing.T, d *daemon) {
			d.install(t, script(t, "exit 0"))
			if err := os.Chmod(d.program, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "is not executable", false, false},
		{"wrong architecture", "", func(t *testing.T, d *daemon) { foreign(t, d) }, "another architecture", false, false},
		{"exits at once", "", replace("exit 7"), "exited with exit status 7", false, false},
		{"dies of a signal", "", replace("kill -SEGV $$"), "killed by a signal", false, false},
		{"hangs without a word", "", replace("exec sleep 60"), "not done within the 8s that were given", false, false},
		{"bad configuration", "", func(t *testing.T, d *daemon) { d.configure(t, "<target t>\n nonsense 1\n</target>\n") }, "targets.conf:", false, false},
		{"backing store missing", "", func(t *testing.T, d *daemon) {
			d.configure(t, peer.OneDisk(filepath.Join(d.dir, "gone.img"), ""))
		}, "gone.img", false, false},

		{"unknown schema, of a later version", "new.schemas=later", nothing, "before the freeze: version faulty reads snapshot schemas 2 to 4, this one writes 1", false, false},
		{"unknown schema, of an earlier version", "new.schemas=earlier", nothing, "before the freeze: version faulty reads snapshot schemas 0 to 0, this one writes 1", false, false},

		{"new one killed before HELLO", "new.start=kill", nothing, "before the freeze", false, false},
		{"new one hangs before HELLO", "new.start=stop", nothing, "before the freeze: waiting for HELLO", false, false},
		{"new one killed after HELLO", "new.hello=kill", nothing, "the other process has gone|killed by signal 9", false, false},
		{"new one exits after HELLO", "new.hello=exit", nothing, "exit status 3", false, false},
		{"new one killed after the snapshot", "new.received=kill", nothing, "after the snapshot was sent", false, false},
		{"new one killed when all is rebuilt", "new.restored=kill", nothing, "after the snapshot was sent", false, false},
		{"new one killed after PREPARED", "new.prepared=kill", nothing, "COMMIT", false, false},
		{"new one killed after COMMIT", "new.committed=kill", nothing, "COMMIT", false, false},
		{"new one killed after TAKEN", "new.taken=kill", nothing, "", false, true},
		{"new one hangs after HELLO", "new.received=stop", nothing, "limit of 4s", false, false},
		{"new one hangs after PREPARED", "new.prepared=stop", nothing, "limit of 4s", false, false},
		{"new one hangs after COMMIT", "new.committed=stop", nothing, "limit of 4s", false, false},

		{"old one killed before the freeze", "old.hello=kill", nothing, "", true, true},
		{"old one killed when frozen", "old.frozen=kill", nothing, "", true, true},
		{"old one killed after the snapshot", "old.sent=kill", nothing, "", true, false},
		{"old one killed before COMMIT", "old.prepared=kill", nothing, "", true, false},
		{"old one killed after COMMIT", "old.committed=kill", nothing, "", true, false},
		{"old one killed after TAKEN", "old.taken=kill", nothing, "", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			program := builds.a.Path(t)
			if c.fault != "" {
				program = builds.faulty.Path(t)
			}
			d := start(t, program, "HANDOFF_FAULT="+c.fault)
			pattern(t, d, "write")
			client, err := peer.Spawn("iscsi-perf", "-i", "iqn.2026-11.test:reader", "-t", "120", "-b", "8", "-m", "8", "-r", d.url(1))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Kill()
			session := d.reading(t)
			c.arrange(t, d)
			r, err := d.client.Upgrade(t.Context(), 8*time.Second)
			if err == nil {
				d.remember(r)
			}
			if c.lost {
				d.expectGone(t)
				return
			}
			switch {
			case c.oldDies && err == nil:
				t.Error("the upgrade was answered by a process that should have died")
			case !c.oldDies && c.want == "" && err != nil:
				t.Errorf("upgrade: %v", err)
			case c.want != "" && (err == nil || !says(err.Error(), c.want)):
				t.Errorf("the reason is %v, want %q", err, c.want)
			}
			if again := d.reading(t); again != session {
				t.Errorf("the client's session was %v and is %v", session, again)
			}
			select {
			case <-client.Done():
				t.Errorf("the client has ended:\n%s", client.Log())
			default:
			}
			client.Kill()
			pattern(t, d, "read")
			d.history(t, c.want)
		})
	}
}

// says reports whether a text contains one of the alternatives in want.
func says(text, want string) bool {
	return slices.ContainsFunc(strings.Split(want, "|"), func(part string) bool { return strings.Contains(text, part) })
}

func rm(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// foreign installs a program for a machine that this is not: a copy of the
// present one with another machine number in its ELF header.
func foreign(t *testing.T, d *daemon) {
	t.Helper()
	b, err := os.ReadFile(d.program)
	if err != nil {
		t.Fatal(err)
	}
	b[18], b[19] = 0xf3, 0x7f
	path := filepath.Join(t.TempDir(), "foreign")
	writeProgram(t, path, b)
	d.install(t, path)
}

// pattern writes or verifies a pattern with QEMU.
func pattern(t *testing.T, d *daemon, what string) {
	t.Helper()
	args := []string{"-f", "raw"}
	for i := range 8 {
		args = append(args, "-c", fmt.Sprintf("%s -P %d %d 64k", what, 0x11*(i+1), i<<22))
	}
	if what == "write" {
		args = append(args, "-c", "flush")
	}
	out, err := peer.Run(t.Context(), "qemu-io", append(args, d.url(0))...)
	if err != nil || strings.Contains(out, "failed") {
		t.Errorf("qemu-io %s: %v\n%s", what, err, out)
	}
}

// session identifies the reading client's session.
type session struct {
	tsih   uint16
	remote string
}

// reading waits until the reading client has read more than it has now, and
// returns its session.
func (d *daemon) reading(t *testing.T) (s session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	first := uint64(0)
	err := peer.Until(ctx, func() error {
		st, err := d.client.Status(ctx)
		if err != nil {
			return err
		}
		for _, i := range st.Sessions {
			if i.Initiator != "iqn.2026-11.test:reader" || i.Target == "" || len(i.Connections) == 0 {
				continue
			}
			s = session{i.TSIH, i.Connections[0].Remote.String()}
			if first == 0 {
				first = i.Counters.Reads
			}
			if i.Counters.Reads > first {
				return nil
			}
		}
		return fmt.Errorf("no reads")
	})
	if err != nil {
		t.Errorf("the client does not read: %v", err)
	}
	return s
}

// expectGone waits until no generation is left.
func (d *daemon) expectGone(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	d.gone = true
	if err := peer.Until(ctx, func() error { return d.reap() }); err != nil {
		t.Errorf("a generation lives that should not: %v", err)
		d.killAll()
	}
}

// history checks that the last upgrade in the history failed for the reason.
func (d *daemon) history(t *testing.T, reason string) {
	t.Helper()
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	if len(st.Upgrades) != 1 || !says(st.Upgrades[0].Error, reason) {
		t.Errorf("the history is %+v, want one entry with %q", st.Upgrades, reason)
	}
}
