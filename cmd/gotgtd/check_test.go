// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
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
