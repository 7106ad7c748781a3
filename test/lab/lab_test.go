// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/test/lab/latency"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// try runs a suite without any machine and returns what it prints and its exit status.
func try(t *testing.T, f func(ctx context.Context, l *Lab) error) (text, markdown string, status int) {
	t.Helper()
	var out bytes.Buffer
	dir := t.TempDir()
	s := Suite{Name: "try", Title: "A try", Run: f}
	found, err := run(t.Context(), s, &Lab{Dir: dir, out: &out}).outcome(dir)
	if err := errors.Join(err, found.write(dir, s)); err != nil {
		t.Fatal(err)
	}
	if status, err = conclude(&out, dir, []outcome{readOutcome(dir, s, nil)}, nil); err != nil {
		t.Fatal(err)
	}
	md, err := os.ReadFile(filepath.Join(dir, "lab-report.md"))
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), string(md), status
}

func TestReport(t *testing.T) {
	text, markdown, status := try(t, func(ctx context.Context, l *Lab) error {
		l.Step(ctx, "first | step", func(context.Context) error { return nil })
		l.Mark("upgrade")
		l.Mark("upgrade")
		l.Figure("size", "%d bytes", 7)
		var ops []latency.Operation
		for i := range 20 {
			ops = append(ops, latency.Operation{Start: time.Now().Add(time.Duration(i) * window), Took: time.Duration(i+1) * time.Millisecond})
		}
		l.report.load(loadReport{"disk", ops})
		return nil
	})
	if status != 0 || !strings.HasSuffix(text, "\n1 passed, 0 failed\n") {
		t.Errorf("status %d after:\n%s", status, text)
	}
	for _, want := range []string{`| first \| step |`, "| number of: upgrade | 2 |", "| size | 7 bytes |", "worst pause 20.0 ms", "](lab-try.svg)"} {
		if !strings.Contains(markdown, want) {
			t.Errorf("%q is not in the report:\n%s", want, markdown)
		}
	}
}

func TestFailuresCount(t *testing.T) {
	broken := errors.New("broken\nand more")
	tests := map[string]struct {
		suite func(ctx context.Context, l *Lab) error
		want  string
	}{
		"a step whose error is not returned": {func(ctx context.Context, l *Lab) error {
			l.Step(ctx, "bad", func(context.Context) error { return broken })
			return nil
		}, "\n0 passed, 1 failed\n"},
		"a step whose error is returned": {func(ctx context.Context, l *Lab) error {
			return l.Step(ctx, "bad", func(context.Context) error { return broken })
		}, "\n0 passed, 1 failed\n"},
		"an error outside of steps": {func(ctx context.Context, l *Lab) error {
			l.Step(ctx, "good", func(context.Context) error { return nil })
			return broken
		}, "\n1 passed, 1 failed\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			text, markdown, status := try(t, tc.suite)
			if status != 1 || !strings.HasSuffix(text, tc.want) {
				t.Errorf("status %d after:\n%s", status, text)
			}
			if !strings.Contains(markdown, "    and more\n") {
				t.Errorf("the report does not say why:\n%s", markdown)
			}
		})
	}
}

func TestArguments(t *testing.T) {
	suites := []Suite{{Name: "a"}, {Name: "b"}}
	o, err := parse(suites, []string{"-short", "b", "a"})
	if err != nil || !o.short || len(o.suites) != 2 || o.suites[0].Name != "a" {
		t.Errorf("%+v, %v", o, err)
	}
	// A suite's own process gets the same options.
	if again, err := parse(suites, o.arguments(suites[1])); err != nil || !again.short || again.out != o.out || len(again.suites) != 1 || again.suites[0].Name != "b" {
		t.Errorf("%+v, %v", again, err)
	}
	for _, args := range [][]string{{}, {"c"}, {"a", "c"}, {"a", "a"}, {"-side-by-side", "0", "a"}} {
		if o, err := parse(suites, args); err == nil {
			t.Errorf("%q is taken: %+v", args, o)
		}
	}
}

func TestFolderForReports(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "a", "b")
	for range 2 { // the second time it is there
		if err := prepareOut(out); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("%v are left behind, %v", left, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := prepareOut(file); err == nil {
		t.Error("a file is taken for a folder")
	}
}

func TestImageDependsOnItsInputs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sub", "file")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	for name, change := range map[string]func() error{
		"contents":   func() error { return os.WriteFile(file, []byte("one"), 0o644) },
		"others":     func() error { return os.WriteFile(file, []byte("two"), 0o644) },
		"executable": func() error { return os.Chmod(file, 0o755) },
		"name":       func() error { return os.Rename(file, file+"2") },
	} {
		file := file
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		sum, err := hashFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[sum]; ok {
			t.Errorf("%s: the same hash as with %s", name, other)
		}
		seen[sum] = name
		if err := errors.Join(os.RemoveAll(filepath.Dir(file)), os.Mkdir(filepath.Dir(file), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSessionState(t *testing.T) {
	const out = `iSCSI Transport Class version 2.0-870
version 2.1.8
Target: iqn.2015-02.com.stu31:t1 (non-flash)
	Current Portal: 172.16.31.1:3260,1
	Persistent Portal: 172.16.31.1:3260,1
		SID: 3
		iSCSI Connection State: LOGGED IN
		iSCSI Session State: LOGGED_IN
		Internal iscsid Session State: NO CHANGE
		Target Reset Timeout: 30
		username: <empty>
			Attached scsi disk sda		State: running
0      0      172.16.31.11:40952      172.16.31.1:3260
`
	want := []string{
		"Attached scsi disk sda\t\tState: running", "Current Portal: 172.16.31.1:3260,1",
		"Internal iscsid Session State: NO CHANGE", "SID: 3", "TCP 172.16.31.11:40952 to 172.16.31.1:3260",
		"Target: iqn.2015-02.com.stu31:t1 (non-flash)", "iSCSI Connection State: LOGGED IN", "iSCSI Session State: LOGGED_IN",
	}
	if diff := cmp.Diff(want, sessionState(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDisturbances(t *testing.T) {
	for _, line := range []string{
		"kernel:  connection1:0: detected conn error (1020)",
		"kernel:  connection1:0: ping timeout of 5 secs expired, recv timeout 5, last rx 4294940000",
		"kernel:  session1: session recovery timed out after 120 secs",
		"kernel: sd 2:0:0:1: rejecting I/O to offline device",
		"kernel: blk_update_request: I/O error, dev sda, sector 8 op 0x1:(WRITE) flags 0x0",
		"kernel: sd 2:0:0:1: [sda] tag#3 Sense Key : Medium Error [current]",
		"kernel: critical target error, dev sda, sector 0",
		"kernel: critical nexus error, dev sda, sector 8 op 0x1:(WRITE) flags 0x0",
		"kernel: sd 2:0:0:1: reservation conflict",
		"iscsid[181]: Kernel reported iSCSI connection 1:0 error (1020 - ISCSI_ERR_TCP_CONN_CLOSE: TCP connection closed) state (3)",
		"iscsid[181]: connection1:0 is operational after recovery (1 attempts)",
	} {
		if !disturbance.MatchString(line) {
			t.Errorf("not a disturbance: %s", line)
		}
	}
	for _, line := range []string{
		"kernel: iscsi: registered transport (tcp)",
		"kernel: scsi host2: iSCSI Initiator over TCP/IP",
		"kernel: sd 2:0:0:1: [sda] Attached SCSI disk",
		"kernel: sd 2:0:0:1: Power-on or device reset occurred",
		"iscsid[181]: Connection1:0 to [target: iqn.2015-02.com.stu31:t1, portal: 172.16.31.1,3260] through [iface: default] is operational now",
	} {
		if disturbance.MatchString(line) {
			t.Errorf("a disturbance: %s", line)
		}
	}
}
