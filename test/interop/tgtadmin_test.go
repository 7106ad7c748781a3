// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// adminPair is gotgtd's tgt-admin and Debian's, each with its daemon, configuration and
// images of the same contents.
type adminPair struct {
	tools        *tools
	tgt          *peer.Tgt
	ours, theirs string // folders
}

func startAdmins(t *testing.T) *adminPair {
	t.Helper()
	p := &adminPair{startTools(t), startDebian(t), t.TempDir(), t.TempDir()}
	for _, dir := range []string{p.ours, p.theirs} {
		for _, name := range []string{"a1.img", "a2.img", "b.img", "c.img"} {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 8<<20)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p
}

// write writes both configurations; DIR in the text is the folder.
func (p *adminPair) write(t *testing.T, text string) {
	t.Helper()
	for _, dir := range []string{p.ours, p.theirs} {
		if err := os.WriteFile(filepath.Join(dir, "targets.conf"), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// firstImage is the disk of the target that a daemon was started with.
var firstImage = regexp.MustCompile(`/\S+/(file|b)\.img\b`)

// aside are the lines that only one of them has: what gotgtd adds to a message, which of
// its commands failed in tgt-admin, and what gotgtd's show leaves out.
var aside = regexp.MustCompile(`^(\(|Command:\s*$|\ttgtadm -C|exited with code|\s+SWP:|\s+Thin-provisioning:)`)

// without is output without what can't be the same: folders and the lines above. Targets are put in the order of their numbers
// where tgt-admin has them in none.
func without(s, dir string) string {
	s = firstImage.ReplaceAllStringFunc(strings.ReplaceAll(s, dir, "DIR"), func(m string) string {
		if strings.HasPrefix(m, "DIR") {
			return m
		}
		return "FIRST"
	})
	var lines []string
	for line := range strings.Lines(s) {
		if !aside.MatchString(line) {
			lines = append(lines, strings.TrimRight(line, " \n"))
		}
	}
	s = strings.Join(lines, "\n")
	if head, dump, ok := strings.Cut(s, "default-driver iscsi\n\n"); ok {
		targets := strings.SplitAfter(dump, "</target>")
		for i := range targets {
			targets[i] = strings.TrimSpace(targets[i])
		}
		slices.Sort(targets)
		s = head + "default-driver iscsi\n" + strings.Join(targets, "\n")
	}
	return s
}

// compare runs both with the same arguments, and compares what they say, their exit
// status, and what is there afterwards.
func (p *adminPair) compare(t *testing.T, args ...string) string {
	t.Helper()
	in := func(dir string, more ...string) []string {
		list := slices.Concat(more, args)
		for i := range list {
			list[i] = strings.ReplaceAll(list[i], "DIR", dir)
		}
		return list
	}
	got, code := p.tools.run(t, nil, "tgt-admin", in(p.ours)...)
	want, wantCode := debianAdmin(t, in(p.theirs, "-C", p.tgt.ControlPort()))
	if diff := cmp.Diff(without(want, p.theirs), without(got, p.ours)); diff != "" || code != wantCode {
		t.Errorf("tgt-admin %q: exit status %d, want %d; - is tgt's, + gotgtd's\n%s", args, code, wantCode, diff)
	}
	show, _ := debian(t, p.tgt, strings.Fields("--op show --mode target"))
	if diff := cmp.Diff(without(show, p.theirs), without(p.tools.show(t), p.ours)); diff != "" {
		t.Errorf("after tgt-admin %q; - is tgt's, + gotgtd's\n%s", args, diff)
	}
	return got
}

// debianAdmin runs Debian's tgt-admin.
func debianAdmin(t *testing.T, args []string) (string, int) {
	t.Helper()
	c := exec.CommandContext(context.WithoutCancel(t.Context()), "/usr/sbin/tgt-admin", args...)
	c.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

const adminConf = `default-driver iscsi
<target iqn.2026-11.test:first>
</target>
<target iqn.2026-11.test:a>
	backing-store DIR/a1.img
	backing-store DIR/a2.img
	incominguser alice correct-horse-1
	outgoinguser target correct-horse-2
	initiator-address 127.0.0.1
	initiator-name iqn.2026-11.test:host
</target>
<target iqn.2026-11.test:b>
	controller_tid 9
	<backing-store DIR/b.img>
		scsi_sn serial-b
		vendor_id VENDOR
		readonly 1
		lun 7
	</backing-store>
</target>
`

// TestTgtAdmin compares tgt-admin with Debian's, command by command.
func TestTgtAdmin(t *testing.T) {
	t.Parallel()
	p := startAdmins(t)
	conf := strings.Replace(adminConf, "<target iqn.2026-11.test:first>\n</target>\n", "<target "+peer.IQN+">\n\tbacking-store FIRST\n</target>\n", 1)
	p.write(t, conf)
	const file = "DIR/targets.conf"
	a, b := "iqn.2026-11.test:a", "iqn.2026-11.test:b"
	p.compare(t, "-s")
	p.compare(t, "-e", "-c", file)
	p.compare(t, "-e", "-c", file) // all are there
	p.compare(t, "--dump")
	p.compare(t, "--show")
	for _, which := range []string{a, "tid=9", "ALL", "iqn.2026-11.test:none", "tid=77"} {
		p.compare(t, "--offline", which)
		p.compare(t, "--ready", which)
	}
	p.compare(t, "--offline", a, "--ready", b)
	p.compare(t, "-c", "DIR/none.conf", "-e")

	// Updates, by name and number, of what has changed, come and gone.
	p.write(t, strings.ReplaceAll(conf, "a2.img", "c.img")+"<target iqn.2026-11.test:new>\n\tbacking-store DIR/a2.img\n</target>\n")
	p.compare(t, "-c", file, "--update", a)
	p.compare(t, "-c", file, "--update", "tid=9")
	p.compare(t, "-c", file, "--update", "iqn.2026-11.test:new")
	p.compare(t, "-c", file, "--update", "iqn.2026-11.test:none")
	p.compare(t, "-c", file, "--update", "tid=77")
	p.write(t, conf)
	p.compare(t, "-c", file, "--update", "iqn.2026-11.test:new")
	p.compare(t, "--delete", b)
	p.compare(t, "--delete", b)
	p.compare(t, "--delete", "tid=77")
	p.compare(t, "-c", file, "--update", b)

	// What is in use stays as it is, unless forced.
	var sessions []*initiator.Session
	for _, portal := range []string{p.tools.gotgtd.Portals()[0], p.tgt.Portals()[0]} {
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: portal, TargetName: b})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sessions = append(sessions, s)
	}
	p.write(t, strings.Replace(conf, "serial-b", "serial-x", 1))
	p.compare(t, "-c", file, "--update", b)
	p.compare(t, "--delete", b)
	p.compare(t, "-c", file, "--update", b, "--force")
	for _, s := range sessions {
		<-s.Done()
	}
	p.compare(t, "--delete", "ALL", "--force")
}

// TestTgtAdminExecute takes away what the file does not have.
func TestTgtAdminExecute(t *testing.T) {
	t.Parallel()
	p := startAdmins(t)
	p.write(t, adminConf)
	p.compare(t, "-e", "-c", "DIR/targets.conf")
	p.write(t, strings.ReplaceAll(strings.ReplaceAll(adminConf, "test:b>", "test:c>"), "/b.img", "/c.img"))
	p.compare(t, "-e", "-c", "DIR/targets.conf")
	p.write(t, "incomingdiscoveryuser alice correct-horse-1\n"+adminConf)
	p.tools.must(t, "tgt-admin", "--update", "ALL", "-c", filepath.Join(p.ours, "targets.conf")) // Debian's fails at its second target
	portal := p.tools.gotgtd.Portals()[0]
	refuses(t, "iscsi-ls", "iscsi://"+portal)
	contains(t, must(t, "iscsi-ls", "iscsi://alice%correct-horse-1@"+portal), "iqn.2026-11.test:b")
}

// TestTgtAdminLives: what tgt's tools make is there after an upgrade and a
// reload, is in `config dump`, and is gone after a restart.
func TestTgtAdminLives(t *testing.T) {
	t.Parallel()
	s := startTools(t)
	image := sparse(t, "made.img", 8<<20)
	conf := filepath.Join(t.TempDir(), "targets.conf")
	text := fmt.Sprintf("<target iqn.2026-11.test:made>\n<backing-store %s>\nscsi_sn made-here\nlun 4\n</backing-store>\nincominguser alice correct-horse-1\ninitiator-name iqn.2026-11.test:host\nstate offline\n</target>\n", image)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first := s.show(t)
	s.must(t, "tgt-admin", "--conf", conf, "--update", "iqn.2026-11.test:made")
	made := s.show(t)
	contains(t, made, "Target 2: iqn.2026-11.test:made\n", "State: offline", "LUN: 4\n", "made-here", image, "alice\n", "iqn.2026-11.test:host\n")

	s.gotgtctl(t, "upgrade")
	if again := s.show(t); again != made {
		t.Errorf("after an upgrade:\n%s\nwant\n%s", again, made)
	}
	contains(t, s.gotgtctl(t, "config", "dump"), "- name: iqn.2026-11.test:made\n", "serial: made-here\n", "path: "+image, "user: alice\n", "- iqn.2026-11.test:host\n", "offline: true\n")

	// A reload of another file: its changes go along, what was made stays.
	file := filepath.Join(filepath.Dir(s.gotgtd.Control()), "targets.conf")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("<target iqn.2026-11.test:more>\nbacking-store %s\n</target>\n", sparse(t, "more.img", 8<<20))
	if err := os.WriteFile(file, append(old, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.gotgtctl(t, "upgrade")
	contains(t, s.show(t), strings.TrimPrefix(made, first), "iqn.2026-11.test:more")

	s.restart(t)
	if show := s.show(t); strings.Contains(show, "made") || !strings.Contains(show, "iqn.2026-11.test:more") {
		t.Errorf("after a restart:\n%s", show)
	}
}
