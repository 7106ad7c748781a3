// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// checkText runs check on a configuration and returns what it prints, without
// the folder that the file is in.
func checkText(t *testing.T, name, text string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.img"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err = run(t, append([]string{"check", "--config", file}, args...)...)
	return stdout, strings.ReplaceAll(stderr, dir+"/", ""), err
}

const goodYAML = `targets:
  - name: iqn.2026-11.test:a
    luns:
      - lun: 1
        path: DIR/a.img
    auth:
      users:
        - user: alice
          secret: short
`

func TestCheckReportsEveryError(t *testing.T) {
	out, errs, err := checkText(t, "bad.yaml", strings.Replace(goodYAML, "lun: 1", "lun: one", 1)+"    colour: red\n")
	if !errors.As(err, new(errReported)) || out != "" {
		t.Errorf("error %v, output %q", err, out)
	}
	lines := strings.Split(strings.TrimSpace(errs), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "bad.yaml:4:14: targets[0].luns[0].lun: ") || !strings.HasPrefix(lines[1], "bad.yaml:10:5: targets[0].colour: ") {
		t.Errorf("check prints:\n%s", errs)
	}
	_, errs, err = checkText(t, "targets.conf", "<target iqn.2026-11.test:a>\n  backing-store DIR/a.img\n  driver iser\n</target>\n")
	if err == nil || !strings.HasPrefix(errs, "targets.conf:3:10: driver: ") {
		t.Errorf("error %v, check prints:\n%s", err, errs)
	}
	_, errs, err = run(t, "check", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	if err == nil || !strings.Contains(errs, "none.yaml") {
		t.Errorf("of a file that is not there: error %v, check prints:\n%s", err, errs)
	}
}

func TestCheckPrintsYAML(t *testing.T) {
	out, errs, err := checkText(t, "good.yaml", goodYAML)
	if err != nil || out != "" {
		t.Errorf("error %v, output %q", err, out)
	}
	if !strings.HasPrefix(errs, "good.yaml:9:19: targets[0].auth.users[0].secret: ") || !strings.HasSuffix(errs, " (warning)\n") {
		t.Errorf("of a short secret check says:\n%s", errs)
	}
	out, _, err = checkText(t, "good.yaml", goodYAML, "--print-yaml")
	if err != nil || !strings.Contains(out, "name: iqn.2026-11.test:a") || strings.Contains(out, "short") {
		t.Errorf("error %v, YAML:\n%s", err, out)
	}
}

// A file that tgtd has open, whose place gotgtd is to take, does not keep the
// configuration from being checked.
func TestCheckWhileAnotherServes(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	other := exec.CommandContext(t.Context(), "sh", "-c", "exec 3<>"+image+"; echo; read line")
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		_ = other.Wait() // its status tells of the end of its input
	}()
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	conf := "<target iqn.2026-11.test:a>\n  backing-store " + image + "\n"
	out, errs, err := checkText(t, "targets.conf", conf+"</target>\n", "--print-yaml")
	if err != nil || !strings.Contains(out, "path: "+image) {
		t.Errorf("error %v, YAML:\n%s", err, out)
	}
	if want := fmt.Sprintf("(PID %d) has it open for writing", other.Process.Pid); !strings.Contains(errs, want) || !strings.Contains(errs, "(warning)") {
		t.Errorf("%q is not a warning in:\n%s", want, errs)
	}
	if _, errs, err = checkText(t, "targets.conf", conf+"  driver iser\n</target>\n"); err == nil || !strings.Contains(errs, "driver") {
		t.Errorf("of another error too: %v, check prints:\n%s", err, errs)
	}
}

func TestExitStatus(t *testing.T) {
	clean := strings.Replace(goodYAML, "secret: short", "secret: long-enough-for-chap", 1)
	for _, tc := range []struct {
		text string
		args []string
		want int
	}{
		{clean, []string{"--strict"}, 0},
		{goodYAML, nil, 0},
		{goodYAML, []string{"--strict"}, statusConfig},
		{"colour: red\n", nil, statusConfig},
	} {
		_, errs, err := checkText(t, "a.yaml", tc.text, tc.args...)
		if got := exitStatus(err); got != tc.want {
			t.Errorf("check %v of\n%s\nexits with %d, want %d: %s", tc.args, tc.text, got, tc.want, errs)
		}
	}
	file := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(file, []byte("colour: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := (&serveOptions{config: file}).configuration(nil)
	if got := exitStatus(errRun{err}); got != statusConfig {
		t.Errorf("serve of a bad configuration exits with %d: %v", got, err)
	}
	_, err = (&serveOptions{}).configuration(nil)
	if got := exitStatus(errRun{err}); got != statusUsage {
		t.Errorf("serve of nothing exits with %d: %v", got, err)
	}
	_, _, err = run(t, "show", "--control", filepath.Join(t.TempDir(), "s"))
	if got := exitStatus(err); got != statusFailed {
		t.Errorf("show without a daemon exits with %d: %v", got, err)
	}
}

// TestCheckReadsWebConfig: a file that asks for TLS and passwords is looked at before anybody
// relies on it, by check as by a reload.
func TestCheckReadsWebConfig(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yaml")
	for _, tc := range []struct{ text, want string }{
		{"", ""},
		{"basic_auth_users:\n  admin: $2y$05$PvUO5dSwVdZuYlzJeWYWMeJd2uXMVfTxX1EuX6hxpP6RRELVsRmOO\n", ""},
		{"basic_auth_user:\n  admin: x\n", "field basic_auth_user not found"},
		{"tls_server_config:\n  cert_file: none.pem\n  key_file: none.key\n", "none.pem"},
		{"-", "no such file or directory"},
	} {
		if err := os.Remove(web); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if tc.text != "-" {
			if err := os.WriteFile(web, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, errs, err := checkText(t, "a.yaml", "metrics:\n  listen: 127.0.0.1:9889\n  web-config: "+web+"\ntargets: []\n")
		switch {
		case tc.want == "" && (err != nil || strings.Contains(errs, "web-config")):
			t.Errorf("%q: %v, %s", tc.text, err, errs)
		case tc.want != "" && (err == nil || !strings.Contains(errs, "a.yaml:3:15: metrics.web-config: ") || !strings.Contains(errs, web) || !strings.Contains(errs, tc.want)):
			t.Errorf("%q: %v, %s", tc.text, err, errs)
		}
	}
}
