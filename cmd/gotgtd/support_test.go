// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/test/peer"
)

// supportSecrets are secrets of every kind, with letters that texts escape.
var supportSecrets = map[string]string{
	"of a shared account": "shared&account\"1", "of a target's user": "targets-user-22", "in a file": "in-a-file-<3>-x", "of the target itself": "outgoing-4444\\4",
	"of discovery": "discovery-55555", "of discovery itself": "discovery-out-66", "of tgtadm": "tgtadm-account-7", "of tgtadm, of no target": "tgtadm-unbound-8",
	"in an included file": "included-file-99", "hash of the web configuration": "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay",
	"in a URL": "hunter2hunter", "that somebody has written into an alias": "discovery-55555", "key of TLS": "MC4CAQAwBQYDK2VwBCIEIJ",
}

// writeSupportConfig writes a configuration that has all of them, and returns its path.
func writeSupportConfig(t *testing.T, dir string) string {
	t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	is := supportSecrets
	write("secret", is["in a file"]+"\n")
	write("web.yaml", "basic_auth_users:\n  admin: "+is["hash of the web configuration"]+"\n")
	write("key.pem", "-----BEGIN PRIVATE KEY-----\n"+is["key of TLS"]+"\n-----END PRIVATE KEY-----\n")
	write("more.yaml", fmt.Sprintf("targets:\n  - name: iqn.2026-11.test:b\n    auth:\n      users:\n        - user: included\n          secret: %q\n    luns:\n      - lun: 1\n        path: %s\n        size: 1MiB\n        create: true\n",
		is["in an included file"], filepath.Join(dir, "b.img")))
	return write("gotgtd.yaml", fmt.Sprintf(`
include: [more.yaml]
metrics:
  listen: 127.0.0.1:0
  web-config: web.yaml
accounts:
  - user: both
    secret: %q
discovery:
  users:
    - user: finder
      secret: %q
  outgoing:
    user: found
    secret: %q
targets:
  - name: iqn.2026-11.test:a
    alias: "see https://admin:%s@example.com/?token=%[4]s and %s"
    auth:
      users:
        - account: both
        - user: one
          secret: %q
        - user: two
          secret-file: secret
      outgoing:
        user: me
        secret: %q
    luns:
      - lun: 1
        path: %s
        size: 1MiB
        create: true
`, is["of a shared account"], is["of discovery"], is["of discovery itself"], is["in a URL"], is["that somebody has written into an alias"], is["of a target's user"], is["of the target itself"], filepath.Join(dir, "a.img")))
}

// unpack returns the members of an archive, without their folder.
func unpack(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return members
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil || h.Mode != 0o600 || !strings.HasPrefix(filepath.Dir(h.Name), "gotgtd-support-") {
			t.Errorf("member %s has mode %o, %v", h.Name, h.Mode, err)
		}
		members[filepath.Base(h.Name)] = string(text)
	}
}

// checkSecrets looks for secrets in all members, in all forms.
func checkSecrets(t *testing.T, members map[string]string) {
	t.Helper()
	for member, text := range members {
		for what, secret := range supportSecrets {
			l := new(secretList)
			l.add(secret)
			for _, form := range l.known {
				if strings.Contains(text, form) {
					t.Errorf("%s has the secret %s: %q", member, what, form)
				}
			}
		}
	}
}

// want looks for texts in members.
func wantIn(t *testing.T, members map[string]string, want map[string][]string) {
	t.Helper()
	for member, texts := range want {
		for _, text := range texts {
			if !strings.Contains(members[member], text) {
				t.Errorf("%s has no %q:\n%.4000s", member, text, members[member])
			}
		}
	}
}

// TestSupport collects from a daemon whose configuration has secrets of every kind.
func TestSupport(t *testing.T) {
	dir := t.TempDir()
	file := writeSupportConfig(t, dir)
	d := startDaemon(t, "--config", file)
	err := control.NewClient(d.socket).Change(t.Context(),
		overlay.Operation{Mode: "account", Op: "new", User: "bound", Password: supportSecrets["of tgtadm"]},
		overlay.Operation{Mode: "account", Op: "new", User: "unbound", Password: supportSecrets["of tgtadm, of no target"]},
		overlay.Operation{Mode: "account", Op: "bind", User: "bound", Target: "iqn.2026-11.test:a", TID: d.status(t).Targets[0].TID})
	if err != nil {
		t.Fatal(err)
	}
	address := d.status(t).Portals[0].Address.String()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: address, TargetName: "iqn.2026-11.test:b", InitiatorName: "iqn.2026-11.test:i", CHAP: initiator.CHAP{User: "included", Secret: supportSecrets["in an included file"]}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	archive := filepath.Join(dir, "out.tar.gz")
	if out := d.output(t, "support", "-o", archive); !strings.HasPrefix(out, archive+" has everything but secrets") {
		t.Errorf("support prints %q", out)
	}
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the archive has mode %v, %v", st.Mode(), err)
	}
	members := unpack(t, f)
	checkSecrets(t, members)
	wantIn(t, members, map[string][]string{
		"contents.txt":   {"goroutines.txt ", "upgraded.json", "MISSING, or not whole: upgraded does not answer on "},
		"status.json":    {`"generation": 2`, `"bound"`, "https://admin:" + hidden + "@example.com/?token=" + hidden + " and " + hidden},
		"config.yaml":    {"iqn.2026-11.test:a", "user: bound", "user: included", "secret-file: "},
		"version.txt":    {"generation 2, PID "},
		"show.txt":       {"Target 1: iqn.2026-11.test:a", "Initiator: iqn.2026-11.test:i "},
		"sessions.txt":   {"iqn.2026-11.test:i"},
		"top.txt":        {"WRITTEN/s", "iqn.2026-11.test:i", "\nSESSIONS "},
		"plan.txt":       {"nothing changes"},
		"metrics.txt":    {"# TYPE gotgtd_lun_size_bytes gauge", "\ngotgtd_generation 2\n"},
		"goroutines.txt": {"goroutine ", "target/iscsi"},
		"recent.txt":     {"msg=\"logged in\" initiator=iqn.2026-11.test:i"},
		"process.txt":    {"Max open files", "serve --listen 127.0.0.1:0", "descriptors", "/wchan"},
		"system.txt":     {"Linux version", "MemTotal", "== df -h"},
	})
	if out := d.fail(t, "support", "-o", archive); !strings.Contains(out, "is there already, and is not written over") {
		t.Errorf("support over an archive prints %q", out)
	}
}

// collect has support collect without a daemon that answers.
func collectSupport(t *testing.T, s *support) (members map[string]string, missing []string) {
	t.Helper()
	var b bytes.Buffer
	missing, err := s.write(t.Context(), &b, supportName(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, &b), missing
}

// TestSupportHangs collects from a daemon that does not answer.
func TestSupportHangs(t *testing.T) {
	dir := t.TempDir()
	file := writeSupportConfig(t, dir)
	d := startDaemon(t, "--config", file)
	if err := d.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.cmd.Process.Signal(unix.SIGCONT) }()
	err := peer.Until(t.Context(), func() error { // the signal takes its time
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
		if err == nil && !strings.Contains(string(text), "State:\tT (stopped)") {
			err = errors.New("the daemon has not stopped")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	hung := &support{client: control.NewClient(d.socket), socket: d.socket, file: file, answer: 300 * time.Millisecond}
	members, missing := collectSupport(t, hung)
	checkSecrets(t, members)
	wantIn(t, members, map[string][]string{
		"contents.txt": {"the daemon has not answered for 300ms"},
		"config.yaml":  {"not what runs: the daemon does not answer\n", "iqn.2026-11.test:a", "user: included"},
		"process.txt":  {"State:\tT (stopped)", "serve --listen"},
		"system.txt":   {"Linux version"},
	})
	if members["status.json"] != "" || !slices.ContainsFunc(missing, func(m string) bool { return strings.HasPrefix(m, "status.json: ") }) {
		t.Errorf("missing: %q", missing)
	}
	// It may also hang since it has told its status.
	hung.silent = nil
	ctx, cancel := context.WithTimeout(t.Context(), hung.answer)
	defer cancel()
	if text, err := hung.collectConfig(ctx); !strings.Contains(text, "iqn.2026-11.test:a") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the configuration of a daemon that hangs since: %q, %v", text, err)
	}
}

// TestSupportWithoutDaemon collects where there is none, and no configuration that can be read.
func TestSupportWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "none.sock")
	file := filepath.Join(dir, "gotgtd.yaml")
	text := "accounts:\n  - {user: a, secret: " + supportSecrets["of a target's user"] + "}\n  - user: b\n    secrte: x\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	members, missing := collectSupport(t, &support{client: control.NewClient(socket), socket: socket, file: file, answer: time.Minute})
	checkSecrets(t, members)
	wantIn(t, members, map[string][]string{
		"contents.txt": {"can't reach gotgtd", "gotgtd.yaml:4:", "no process listens on " + socket},
		"version.txt":  {"this program: gotgtd "},
	})
	if len(missing) < 8 {
		t.Errorf("missing: %q", missing)
	}
}

func TestHide(t *testing.T) {
	l := new(secretList)
	l.add("sec", "secret one", "secret one and two", `a"b\c`)
	for text, want := range map[string]string{
		"secret one and two, secret one":              hidden + ", " + hidden,
		`"a\"b\\c" a"b\c`:                             `"` + hidden + `" ` + hidden,
		"nbd+unix://u:pw@h/x curl=http://h:80/a@b":    "nbd+unix://u:" + hidden + "@h/x curl=http://h:80/a@b",
		"rbd:pool/img:key=AQ==&x=1 PASSWORD=p token=": "rbd:pool/img:key=" + hidden + "&x=1 PASSWORD=" + hidden + " token=",
		"insecurity": "insecurity",
	} {
		if got := l.hide(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	path := filepath.Join(t.TempDir(), "targets.conf")
	if err := os.WriteFile(path, []byte("<target iqn.x>\n  incominguser joe first-secret\n\toutgoinguser \"jim\" second-secret\n</target>\n{\"password\": \"third\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l = new(secretList)
	l.addFile(path)
	if got := l.hide("first-secret second-secret third joe"); got != hidden+" "+hidden+" "+hidden+" joe" {
		t.Errorf("of a file: %q", got)
	}
}

func TestReadEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789abcdef"), maxMember/16+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := readEnd(path); err != nil || len(text) != maxMember || !strings.HasPrefix(text, "0123") {
		t.Errorf("%d bytes, %.10q, %v", len(text), text, err)
	}
	if _, err := readEnd(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("of a folder: %v", err)
	}
}
