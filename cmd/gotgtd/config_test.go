// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
)

const secretConfig = changedConfig + `    auth:
      users:
        - user: bob
          secret: "secret-of-bob-1"
`

// TestConfigDump prints what runs, not what the file has become.
func TestConfigDump(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", secretConfig)
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := d.output(t, "config", "dump")
	for _, want := range []string{"tid: 1", "lun: 1", "naa: ", "serial: ", "vendor: IET", "user: bob"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "secret-of-bob-1") {
		t.Errorf("a secret in:\n%s", out)
	}
	if out := d.output(t, "config", "dump", "--secrets"); !strings.Contains(out, "secret-of-bob-1") {
		t.Errorf("no secret in:\n%s", out)
	}
	if out := d.output(t, "config", "dump", "--json"); !strings.Contains(out, `"revision": "`) || !strings.Contains(out, file) {
		t.Errorf("--json prints:\n%s", out)
	}
}

// TestConfigConvert makes a file of what runs, and of a targets.conf.
func TestConfigConvert(t *testing.T) {
	dir := t.TempDir()
	disk, conf, out := filepath.Join(dir, "c.img"), filepath.Join(dir, "targets.conf"), filepath.Join(dir, "new", "c.yaml")
	text := fmt.Sprintf("<target iqn.2026-11.test:c>\n  backing-store %s\n  incominguser bob secret-of-bob-1\n</target>\n", disk)
	if err := errors.Join(os.WriteFile(disk, make([]byte, 1<<20), 0o600), os.WriteFile(conf, []byte(text), 0o600), os.Mkdir(filepath.Dir(out), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t, "config", "convert", conf); err == nil || !strings.Contains(err.Error(), "-o OUT") {
		t.Errorf("secrets to standard output: %v", err)
	}
	if _, _, err := run(t, "config", "convert", conf, "-o", out); err != nil {
		t.Fatal(err)
	}
	was, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	is, err := config.Load(out)
	if err != nil {
		t.Fatal(err)
	}
	l, m := was.Targets[0].LUNs[0], is.Targets[0].LUNs[0]
	if l.NAA != m.NAA || l.SCSIID != m.SCSIID || l.Serial != m.Serial || l.Number != m.Number {
		t.Errorf("the disk was %+v, and is %+v", l, m)
	}
	u := is.Targets[0].Auth.Users[0]
	if u.Secret != "secret-of-bob-1" || filepath.Dir(u.SecretFile) != filepath.Join(dir, "new", secretsFolder) || len(is.Warnings) > 0 {
		t.Errorf("the secret is in %q, warnings %v", u.SecretFile, is.Warnings)
	}
	if _, _, err := run(t, "config", "convert", conf, "-o", out); !errors.Is(err, os.ErrExist) {
		t.Errorf("onto a file that is there: %v", err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "new", secretsFolder)); err != nil || len(list) != 1 {
		t.Errorf("secrets that are left: %v, %v", list, err)
	}
	d := startDaemon(t)
	running := filepath.Join(dir, "new", "running.yaml")
	d.output(t, "config", "convert", "-o", running)
	if is, err := config.Load(running); err != nil || is.Targets[0].Name != defaultTarget {
		t.Errorf("what runs: %v", err)
	}
}

// TestConfigEdit edits with a program: a mistake first, then a change.
func TestConfigEdit(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	script := filepath.Join(d.dir, "editor")
	edit := func(answers, text string) (string, error) {
		t.Helper()
		if err := os.WriteFile(script, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		c := d.command("config", "edit")
		c.Env = append(c.Env, "VISUAL=", "EDITOR=sh "+script)
		c.Stdin = strings.NewReader(answers)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := edit("", "exit 0\n"); err != nil || !strings.Contains(out, "not edited") {
		t.Errorf("nothing done: %v\n%s", err, out)
	}
	if out, err := edit("n\n", "echo nonsense: 1 >>$1\n"); err == nil || !strings.Contains(out, "Edit again?") || !strings.HasSuffix(err.Error(), "exit status 3") {
		t.Errorf("given up: %v\n%s", err, out)
	}
	if out, err := edit("n\n", ": >$1\n"); err == nil || !strings.Contains(out, "is empty") {
		t.Errorf("emptied: %v\n%s", err, out)
	}
	wantText(t, file, changedConfig)
	add := "      - {lun: 2, backend: ram, size: 1MiB}\n"
	out, err := edit("y\n", `if grep -q nonsense $1; then sed -i '/nonsense/d' $1; echo "`+add+`" >>$1; else echo nonsense: 1 >>$1; fi`+"\n")
	if err != nil || !strings.Contains(out, "+ target iqn.2026-11.test:a LUN 2") {
		t.Errorf("edited: %v\n%s", err, out)
	}
	wantText(t, file, changedConfig+add+"\n")
	stopOther(t, d.status(t).PID)
}

// TestConfigAPI reads, proposes and applies, as a program does that manages
// volumes.
func TestConfigAPI(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", changedConfig)
	c := control.NewClient(d.socket)
	was, err := c.Config(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	next := changedConfig + "      - {lun: 2, backend: ram, size: 1MiB}\n"
	p, err := c.Plan(t.Context(), control.Proposal{Config: next})
	if err != nil || len(p.Changes) != 1 || p.Applied || len(p.Lines) != 1 {
		t.Fatalf("plan: %+v, %v", p, err)
	}
	if _, err := c.Plan(t.Context(), control.Proposal{Config: "nonsense: 1\n"}); err == nil || !strings.Contains(err.Error(), "gotgtd.yaml:1:1: nonsense") {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := c.Apply(t.Context(), control.Proposal{Config: next}); err == nil || !strings.Contains(err.Error(), "revision is missing") {
		t.Errorf("without a revision: %v", err)
	}
	if _, err := c.Apply(t.Context(), control.Proposal{Revision: was.Revision}); err == nil || !strings.Contains(err.Error(), "config is missing") {
		t.Errorf("without a configuration: %v", err)
	}
	wantText(t, file, changedConfig)
	p, err = c.Apply(t.Context(), control.Proposal{Config: next, Revision: was.Revision})
	if err != nil || !p.Applied || p.Report == nil || p.Report.Generation != 2 {
		t.Fatalf("apply: %+v, %v", p, err)
	}
	wantText(t, file, next)
	if _, err := c.Apply(t.Context(), control.Proposal{Config: changedConfig, Revision: was.Revision}); err == nil || !strings.Contains(err.Error(), control.ErrRevision.Error()) {
		t.Errorf("an old revision: %v", err)
	}
	wantText(t, file, next)
	// Somebody edits the file by hand, which no program may overwrite.
	now, err := c.Config(t.Context(), false)
	if err != nil || now.Revision == was.Revision {
		t.Fatalf("%+v, %v", now, err)
	}
	if err := os.WriteFile(file, []byte(next+"# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apply(t.Context(), control.Proposal{Config: changedConfig, Revision: now.Revision}); err == nil || !strings.Contains(err.Error(), control.ErrRevision.Error()) {
		t.Errorf("over an edited file: %v", err)
	}
	stopOther(t, d.status(t).PID)
}
