// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// inJournal runs a program whose standard error leads to a journald of its own, which has $1 in the place of /run.
const inJournal = `set -e
run=$1; shift
mount --bind "$run" /run
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald &
until [ -S /run/systemd/journal/stdout ]; do sleep 0.02; done
exec systemd-cat sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh "$@"`

// TestJournal has a real journald take the daemon's log, and asks it for fields and priorities.
func TestJournal(t *testing.T) {
	peer.NeedRoot(t)
	peer.Need(t, "/lib/systemd/systemd-journald", "systemd-cat", "journalctl", "unshare")
	dir, run := t.TempDir(), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "gotgtd.sock")
	c := asMain(exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", inJournal, "sh", run,
		self, "serve", "--listen", "0.0.0.0:0", "--disk", filepath.Join(dir, "disk.img")+",size=1MiB", "--control", socket))
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out := new(peer.Log)
	c.Stdout, c.Stderr = out, out
	c.WaitDelay = time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	})
	entry := func(match ...string) map[string]any { return journalEntry(t, run, out, match...) }

	serving := entry("TARGET="+defaultTarget, "LUN=1")
	if got := serving["MESSAGE"]; serving["PRIORITY"] != "6" || serving["SYSLOG_IDENTIFIER"] != "gotgtd" || !strings.HasPrefix(fmt.Sprint(got), "serving target="+defaultTarget+" lun=1 ") {
		t.Errorf("the journal has %v", serving)
	}
	if e := entry("PRIORITY=4"); e["TARGET"] != defaultTarget || !strings.Contains(fmt.Sprint(e["MESSAGE"]), "everybody") {
		t.Errorf("the journal has the warning %v", e)
	}
	_, port, _ := strings.Cut(fmt.Sprint(serving["PORTAL"]), ":")
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: "127.0.0.1:" + port, TargetName: defaultTarget, InitiatorName: "iqn.2026-11.test:a\u202eb"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if e := entry(`INITIATOR=iqn.2026-11.test:a\u202eb`); e["TARGET"] != defaultTarget || !strings.HasPrefix(fmt.Sprint(e["MESSAGE"]), "logged in ") {
		t.Errorf("the journal has the login %v", e)
	}
}

// journalEntry waits for an entry of the journal below run.
func journalEntry(t *testing.T, run string, out fmt.Stringer, match ...string) (e map[string]any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := append([]string{"--directory", filepath.Join(run, "log/journal"), "--output", "json", "--lines", "1", "--no-pager"}, match...)
	err := peer.Until(ctx, func() error {
		text, err := exec.CommandContext(ctx, "journalctl", args...).Output()
		if err != nil || len(text) == 0 {
			return errors.Join(err, errors.New("no such entry"))
		}
		return json.Unmarshal(text, &e)
	})
	if err != nil {
		t.Fatalf("the journal has no %v: %v\n%s", match, err, out)
	}
	return e
}
