// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/control"
)

const changedConfig = `# the storage
targets:
  - name: iqn.2026-11.test:a # first
    luns:
      # the system
      - {lun: 1, path: a.img, size: 1MiB, create: true}
`

// startConfigured runs a daemon with a configuration file in a folder of its own.
func startConfigured(t *testing.T, name, text string) (d *daemonProcess, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return startDaemon(t, "--config", file), file
}

func wantText(t *testing.T, file, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil || string(text) != want {
		t.Errorf("%s has (%v):\n%s\nwant:\n%s", file, err, text, want)
	}
}

// TestCommandsChange goes through the commands, one after another, on one daemon.
func TestCommandsChange(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	const a, b = "iqn.2026-11.test:a", "iqn.2026-11.test:b"
	text := changedConfig
	do := func(adds, wants string, args ...string) {
		t.Helper()
		if out := d.output(t, args...); !strings.Contains(out, wants) || !strings.Contains(out, "\ngeneration ") {
			t.Errorf("%v prints:\n%s\nwant %q and the generation", args, out, wants)
		}
		text += adds
		wantText(t, file, text)
	}
	do("      - lun: 2\n        backend: ram\n        size: 2MiB\n", "+ target "+a+" LUN 2", "lun", "add", a, "backend=ram", "size=2M")
	do("  - name: "+b+"\n    alias: \"for b\"\n", "+ target "+b, "target", "add", b, "alias=for b")
	do("    luns:\n      - lun: 7\n        path: "+filepath.Dir(file)+"/b.img\n        size: 1MiB\n        create: true\n",
		"+ target "+b+" LUN 7", "lun", "add", b, filepath.Dir(file)+"/b.img", "--lun", "7", "size=1M", "create=true")
	do("        write-cache: false\n", "~ target "+b+" LUN 7", "lun", "set", b, "7", "write-cache=false")
	do("    access:\n      addresses:\n        - \"127.0.0.0/8\"\n", "~ target "+b, "access", "add", b, "127.0.0.0/8")
	if out := d.output(t, "lun", "list", b); strings.Count(out, "\n") != 2 || !strings.Contains(out, "b.img") {
		t.Errorf("lun list prints:\n%s", out)
	}
	if out := d.output(t, "target", "list"); strings.Count(out, "\n") != 3 || !strings.Contains(out, "127.0.0.0/8") {
		t.Errorf("target list prints:\n%s", out)
	}
	if out := d.output(t, "access", "list", "--json"); !strings.Contains(out, `"127.0.0.0/8"`) {
		t.Errorf("access list prints:\n%s", out)
	}
	var o outcome
	if err := json.Unmarshal([]byte(d.output(t, "target", "remove", b, "--json")), &o); err != nil || !o.Applied || o.Config != file || o.Report == nil || len(o.Plan.Changes) == 0 {
		t.Errorf("target remove --json: %+v, %v", o, err)
	}
	text = changedConfig + "      - lun: 2\n        backend: ram\n        size: 2MiB\n"
	wantText(t, file, text)
	if out := d.output(t, "lun", "remove", a, "2", "--dry-run"); !strings.HasPrefix(out, "- target ") || strings.Contains(out, "generation") {
		t.Errorf("a dry run prints:\n%s", out)
	}
	wantText(t, file, text)
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o640 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
	if out := d.output(t, "show"); strings.Count(out, "Target ") != 1 || !strings.Contains(out, "LUN: 2") {
		t.Errorf("show prints:\n%s", out)
	}
	stopOther(t, d.status(t).PID)
}

// TestCommandsUser gives accounts their secrets.
func TestCommandsUser(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	secrets := func(want int) []string {
		t.Helper()
		list, err := filepath.Glob(filepath.Join(filepath.Dir(file), secretsFolder, "*"))
		if err != nil || len(list) != want {
			t.Fatalf("%d secret files, want %d: %v", len(list), want, list)
		}
		for _, path := range list {
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
		return list
	}
	user := func(secret string, args ...string) (string, error) {
		c := d.command(append([]string{"user"}, args...)...)
		c.Stdin = strings.NewReader(secret)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	const a = "iqn.2026-11.test:a"
	if out, err := user("secret-of-bob-1\n", "add", a, "bob"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	first := secrets(1)[0]
	if out := d.output(t, "user", "list"); !strings.HasPrefix(out, "TARGET ") || !strings.Contains(out, a+"  bob   incoming\n") || strings.Contains(out, "secret") {
		t.Errorf("user list prints:\n%s", out)
	}
	if out := d.output(t, "user", "list", a, "--json"); !strings.Contains(out, `"user": "bob"`) {
		t.Errorf("user list --json prints:\n%s", out)
	}
	if out, err := user("secret-of-bob-2\n", "set", a, "bob"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	second := secrets(1)[0]
	if text, err := os.ReadFile(second); err != nil || string(text) != "secret-of-bob-2" || first == second {
		t.Errorf("%s has %q, %v", second, text, err)
	}
	if out, err := user("another-secret-1\n", "add", a, "bob"); err == nil || !strings.Contains(out, "there is an account \"bob\" already") {
		t.Errorf("bob again: %v\n%s", err, out)
	}
	if out, err := user("", "add", a, "eve"); err == nil || !strings.Contains(out, "must be the secret") {
		t.Errorf("no secret: %v\n%s", err, out)
	}
	own := filepath.Join(filepath.Dir(file), "own")
	if err := os.WriteFile(own, []byte("secret-of-floor-2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := user("", "add", "--discovery", "scan", "--secret-file", own); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	secrets(1)
	if out, err := user("", "remove", a, "bob"); err == nil || !strings.Contains(out, "--last") {
		t.Errorf("the last account: %v\n%s", err, out)
	}
	secrets(1)
	if out, err := user("", "add", "--discovery", "also", "--secret-file", second); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, step := range []struct {
		left int // files with secrets
		args []string
	}{{1, []string{"remove", a, "bob", "--last"}}, {1, []string{"remove", "--discovery", "scan"}}, {0, []string{"remove", "--discovery", "also", "--last"}}} {
		if out, err := user("", step.args...); err != nil {
			t.Fatalf("%v: %v\n%s", step.args, err, out)
		}
		secrets(step.left)
	}
	if _, err := os.Stat(own); err != nil {
		t.Errorf("a secret file that no command has made: %v", err)
	}
	wantText(t, file, changedConfig)
	stopOther(t, d.status(t).PID)
}

// TestCommandsRefused has changes that are refused at each stage: the file, its
// folder and the daemon are as before.
func TestCommandsRefused(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	const a = "iqn.2026-11.test:a"
	taken := filepath.Join(filepath.Dir(file), "taken.img")
	lockFile(t, taken)
	new := filepath.Join(t.TempDir(), "new.yaml")
	if err := os.WriteFile(new, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"has no LUN 5", []string{"lun", "remove", a, "5"}},
		{"no such file", []string{"lun", "add", a, "/none/x.img"}}, // by the check
		{file + " is as before", []string{"lun", "add", a, taken}}, // by the successor, which can't open it
		{"nonsense", []string{"apply", "-f", new}},
		{"is empty", []string{"apply", "-f", os.DevNull}},
	} {
		if out := d.fail(t, tc.args...); !strings.Contains(out, tc.want) {
			t.Errorf("%v prints:\n%s\nwant %q", tc.args, out, tc.want)
		}
		wantText(t, file, changedConfig)
	}
	if st := d.status(t); st.Generation != 1 {
		t.Errorf("generation %d", st.Generation)
	}
	if _, err := os.Stat(file + ".bak"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an old text is kept that is not old: %v", err)
	}
}

// TestCommandIsInterrupted sends a command a signal while the daemon, which then refuses,
// tries its change: the command ends when the file is as before.
func TestCommandIsInterrupted(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	started := hangingSuccessor(t, d)
	c := asMain(exec.Command(os.Args[0], "target", "add", "iqn.2026-11.test:b", "--control", d.socket))
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := started.Read(make([]byte, 16)); err != nil {
		t.Fatalf("no successor was started: %v", err)
	}
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	answer := bufio.NewReader(stderr)
	if line, err := answer.ReadString('\n'); !strings.HasPrefix(line, "the change is under way") {
		t.Errorf("to the signal it says %q, %v", line, err)
	}
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(answer)
	if err := c.Wait(); c.ProcessState.ExitCode() != 1 || !strings.Contains(string(rest), file+" is as before") {
		t.Errorf("%v\n%s", err, rest)
	}
	wantText(t, file, changedConfig)
	d.waitEnd(t)
}

// TestCommandsPointOut: what is wrong is said with its place and the way out, and by
// the exit status.
func TestCommandsPointOut(t *testing.T) {
	dir := t.TempDir()
	file, wrong := filepath.Join(dir, "gotgtd.yaml"), filepath.Join(dir, "wrong.yaml")
	for path, text := range map[string]string{
		file:                            "include: [more.yaml]\n" + changedConfig,
		filepath.Join(dir, "more.yaml"): "targets:\n  - name: iqn.2026-11.test:more\n",
		wrong:                           "targets:\n  - nome: iqn.2026-11.test:a\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := startDaemon(t, "--config", file)
	const a = "iqn.2026-11.test:a"
	for _, tc := range []struct {
		status int
		want   string
		args   []string
	}{
		{statusFailed, "is served, but does not stand in " + file, []string{"lun", "add", "iqn.2026-11.test:more", "backend=ram", "size=1MiB"}},
		{statusFailed, "there is no target iqn.2026-11.test:none in " + file, []string{"target", "remove", "iqn.2026-11.test:none"}},
		{statusUsage, "is not KEY=VALUE", []string{"target", "set", a, "alias"}},
		{statusUsage, "unknown key", []string{"lun", "set", a, "1", "sice=2MiB"}},
		{statusUsage, "is not a size", []string{"lun", "resize", a, "1", "large"}},
		{statusConfig, "add it there first (gotgtd user add)", []string{"access", "add", a, "account:x"}},
		{statusConfig, "gotgtd: " + wrong + ":2:5: ", []string{"apply", "-f", wrong}},
		{statusFailed, wrong + " is there already", []string{"config", "convert", "-o", wrong}},
	} {
		out, err := d.command(tc.args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != tc.status || !strings.Contains(string(out), tc.want) {
			t.Errorf("%v: %v, prints:\n%s\nwant exit status %d and %q", tc.args, err, out, tc.status, tc.want)
		}
	}
	wantText(t, file, "include: [more.yaml]\n"+changedConfig)
	if out := d.output(t, "lun", "add", a, "backend=ram", "size=1MiB", "--dry-run"); !strings.Contains(out, "LUN 2: ram, 1 MiB\n") {
		t.Errorf("a RAM disk is\n%s", out)
	}
}

// lockFile makes a disk that another program has locked.
func lockFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := errors.Join(f.Truncate(1<<20), unix.Flock(int(f.Fd()), unix.LOCK_EX)); err != nil {
		t.Fatal(err)
	}
}

// TestApply puts another file in the place of one that was changed by hand
// meanwhile.
func TestApply(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	byHand := changedConfig + "      - {lun: 3, backend: ram, size: 1MiB}\n"
	if err := os.WriteFile(file, []byte(byHand), 0o640); err != nil {
		t.Fatal(err)
	}
	next := byHand + "      - {lun: 4, backend: ram, size: 1MiB}\n"
	c := d.command("apply", "-f", "-")
	c.Stdin = strings.NewReader(next)
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "was changed before this and not reloaded") || bytes.Count(out, []byte("+ target iqn.2026-11.test:a LUN 3")) != 2 ||
		bytes.Count(out, []byte("+ target iqn.2026-11.test:a LUN 4")) != 1 {
		t.Errorf("apply: %v\n%s", err, out)
	}
	wantText(t, file, next)
	wantText(t, file+".bak", byHand)
	stopOther(t, d.status(t).PID)
}

// TestByteOrderMark gives the daemon texts that begin with one, by every way
// there is. The file keeps it.
func TestByteOrderMark(t *testing.T) {
	text := "\ufeff" + changedConfig
	d, file := startConfigured(t, "gotgtd.yaml", text)
	lun := 1
	next := func() string {
		lun++
		text += fmt.Sprintf("      - {lun: %d, backend: ram, size: 1MiB}\n", lun)
		return text
	}
	other := filepath.Join(t.TempDir(), "next.yaml")
	if err := os.WriteFile(other, []byte(next()), 0o600); err != nil {
		t.Fatal(err)
	}
	d.output(t, "apply", "-f", other)
	wantText(t, file, text)
	c := d.command("apply", "-f", "-")
	c.Stdin = strings.NewReader(next())
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("from standard input: %v\n%s", err, out)
	}
	wantText(t, file, text)
	api := control.NewClient(d.socket)
	now, err := api.Config(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := api.Plan(t.Context(), control.Proposal{Config: next()}); err != nil || len(p.Changes) != 1 {
		t.Errorf("POST /v1/plan: %+v, %v", p, err)
	}
	if _, err := api.Apply(t.Context(), control.Proposal{Config: text, Revision: now.Revision}); err != nil {
		t.Errorf("PUT /v1/config: %v", err)
	}
	wantText(t, file, text)
	d.output(t, "lun", "add", "iqn.2026-11.test:a", "backend=ram", "size=1MiB", "read-only=yes")
	if out, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(out), text) || !strings.Contains(string(out), "read-only: true") {
		t.Errorf("after lun add (%v):\n%s", err, out)
	}
	if got := len(d.status(t).Targets[0].LUNs); got != lun+2 { // LUN 0 and the one added last
		t.Errorf("%d logical units, want %d", got, lun+2)
	}
	stopOther(t, d.status(t).PID)
}

// TestCommandsWithoutYAML says how to get a file that can be changed.
func TestCommandsWithoutYAML(t *testing.T) {
	d := startDaemon(t)
	if out := d.fail(t, "target", "add", "iqn.2026-11.test:a"); !strings.Contains(out, "gotgtd config convert -o FILE.yaml") {
		t.Errorf("without a file:\n%s", out)
	}
	disk := filepath.Join(t.TempDir(), "c.img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, file := startConfigured(t, "targets.conf", fmt.Sprintf("<target iqn.2026-11.test:c>\n  backing-store %s\n</target>\n", disk))
	if out := d.fail(t, "target", "add", "iqn.2026-11.test:a"); !strings.Contains(out, "gotgtd config convert "+file) {
		t.Errorf("with targets.conf:\n%s", out)
	}
}

// TestCommandsUnderSession takes a disk's file away from under a session: each
// way to do so is refused, and the file is as before; --force does it.
func TestCommandsUnderSession(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	const a = "iqn.2026-11.test:a"
	s, err := initiator.Dial(t.Context(), initiator.Options{
		Address: d.status(t).Portals[0].Address.String(), TargetName: a, InitiatorName: "iqn.2026-11.test:host",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(filepath.Dir(file), "other.img")
	if err := os.WriteFile(other, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	exchanged := strings.Replace(changedConfig, "a.img", other, 1)
	next := filepath.Join(t.TempDir(), "next.yaml")
	if err := os.WriteFile(next, []byte(exchanged), 0o600); err != nil {
		t.Fatal(err)
	}
	set := []string{"lun", "set", a, "1", "path=" + other}
	for _, args := range [][]string{set, {"apply", "-f", next}, append(set, "--dry-run")} {
		if out := d.fail(t, args...); !strings.Contains(out, "--force") || !strings.Contains(out, "iqn.2026-11.test:host") {
			t.Errorf("%v prints:\n%s", args, out)
		}
		wantText(t, file, changedConfig)
	}
	if st := d.status(t); st.Generation != 1 {
		t.Errorf("generation %d", st.Generation)
	}
	// What somebody has put into the file and not reloaded is not what --force is for.
	if err := os.WriteFile(file, []byte(exchanged), 0o640); err != nil {
		t.Fatal(err)
	}
	if out := d.fail(t, "lun", "add", a, "backend=ram", "size=1M", "--force"); !strings.Contains(out, "was changed before this") || !strings.Contains(out, "iqn.2026-11.test:host") {
		t.Errorf("forced for another disk, it prints:\n%s", out)
	}
	wantText(t, file, exchanged)
	if err := os.WriteFile(file, []byte(changedConfig), 0o640); err != nil {
		t.Fatal(err)
	}
	if out := d.output(t, append(set, "--force")...); !strings.Contains(out, "\ngeneration 2") {
		t.Errorf("forced, it prints:\n%s", out)
	}
	wantText(t, file, exchanged)
	stopOther(t, d.status(t).PID)
}

// TestCommandsResize grows a disk and its file.
func TestCommandsResize(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	if out := d.output(t, "lun", "resize", "iqn.2026-11.test:a", "1", "2MiB"); !strings.Contains(out, "grows from 1 MiB to 2 MiB") {
		t.Errorf("resize prints:\n%s", out)
	}
	wantText(t, file, strings.Replace(changedConfig, "1MiB", "2MiB", 1))
	st := d.status(t)
	for _, l := range st.Targets[0].LUNs {
		if l.LUN == 1 && l.Size != 2<<20 {
			t.Errorf("LUN 1 has %d bytes", l.Size)
		}
	}
	stopOther(t, st.PID)
}
