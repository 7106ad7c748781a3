// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeTree writes files below a new directory, and returns that.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, text)
	}
	return dir
}

func TestYAMLInclude(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"a.yaml":         "include: [d/*.yaml, other.yaml]\ntargets: [{name: eui.0200000000000001}]\n",
		"d/2.yaml":       "targets:\n  - name: eui.0200000000000003\n    auth: {users: [{account: shared}]}\n",
		"d/1.yaml":       "targets: [{name: eui.0200000000000002, luns: [{lun: 1, path: disk.img}]}]\ninclude: [../d2/x.yaml, ../other.yaml]\n",
		"d/.hidden.yaml": "targets: [{name: eui.0200000000000009}]\n",
		"d/disk.img":     strings.Repeat("x", 512),
		"d2/x.yaml":      "accounts: [{name: shared, user: u, secret-file: u.secret}]\n",
		"d2/u.secret":    "the secret of u",
		"other.yaml":     "",
	})
	if err := os.Chmod(filepath.Join(dir, "d2/u.secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(filepath.Join(dir, "a.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, tgt := range cfg.Targets {
		names = append(names, tgt.Name[len(tgt.Name)-1:])
		if tgt.TID != i+1 {
			t.Errorf("target %d has TID %d", i, tgt.TID)
		}
	}
	if !slices.Equal(names, []string{"1", "2", "3"}) {
		t.Errorf("targets %v", names)
	}
	if got := cfg.Targets[1].LUNs[0].Path; got != filepath.Join(dir, "d/disk.img") {
		t.Errorf("path %q", got)
	}
	if u := cfg.Targets[2].Auth.Users[0]; u.User != "u" || u.Secret != "the secret of u" || u.Shared != "shared" {
		t.Errorf("account %+v", u)
	}
	var files []string
	for _, f := range cfg.Files {
		name, _ := filepath.Rel(dir, f)
		files = append(files, name)
	}
	if !slices.Equal(files, []string{"a.yaml", "d/1.yaml", "d2/x.yaml", "other.yaml", "d/2.yaml"}) {
		t.Errorf("files %v", files)
	}
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0].Error(), "is once only") {
		t.Errorf("warnings %v", cfg.Warnings)
	}
	if p := cfg.Where("targets[2].auth.users[0]"); p.File != filepath.Join(dir, "d/2.yaml") || p.Line != 3 {
		t.Errorf("the account is at %v", p)
	}
	checkRoundTrip(t, cfg)
}

func TestYAMLIncludeErrors(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"a.yaml":    "include: [missing.yaml, '[', '', b.yaml, dir, 'none*.yaml', a.yaml]\ntargets: [{name: eui.0200000000000001, auth: {users: [{account: x}]}}]\n",
		"b.yaml":    "include: [a.yaml]\nlimits: {sessions: 1}\ntargets:\n  - name: eui.0200000000000001\n  - name: disk\n    tid: many\naccounts: [{user: u, secret: abcdefghijkl}, {user: u, secret: abcdefghijkl}]\n",
		"dir/x.txt": "",
	})
	name := filepath.Join(dir, "a.yaml")
	_, err := Load(name)
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
	want := []string{
		`a.yaml:1:11: include[0]: can't include "missing.yaml": no such file`,
		`a.yaml:1:25: include[1]: "[" is not a pattern`,
		`a.yaml:1:30: include[2]: is missing`,
		`a.yaml:1:42: include[4]: can't include "dir": it is not a regular file`,
		`a.yaml:1:61: include[6]: "a.yaml" includes itself`,
		`a.yaml:2:65: targets[0].auth.users[0].account: there is no "x" in accounts`,
		`b.yaml:1:11: include[0]: "a.yaml" includes itself`,
		`b.yaml:2:1: limits: unknown key, expected one of accounts, include, targets`,
		`b.yaml:4:11: targets[0].name: target "eui.0200000000000001" is defined already at a.yaml:2:18`,
		`b.yaml:5:11: targets[1].name: "disk" is not an iSCSI name`,
		`b.yaml:6:10: targets[1].tid: must be a number, but is text`,
		`b.yaml:7:45: accounts[1].name: there is an account "u" already at b.yaml:7:12`,
	}
	checkLines(t, got, want)
}

func TestYAMLAccessErrors(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a.yaml")
	write(t, name, `accounts:
  - {user: s, secret: abcdefghijkl, initiators: ['[']}
targets:
  - name: eui.0200000000000001
    access: {accounts: [nobody]}
    auth:
      users:
        - {account: s, user: s}
        - {user: u, secret: abcdefghijkl, initiators: [x]}
        - {account: s, initiators: [eui.0200000000000002]}
      outgoing: {user: o, secret: mnopqrstuvwx, initiators: [eui.0200000000000002]}
    luns:
      - {lun: 1, backend: ram, size: 1M, access: {accounts: [s, t], addresses: [x]}}
`)
	_, err := Load(name)
	checkLines(t, lines(t, err, name), []string{
		`2:50: accounts[0].initiators[0]: "[" is not a pattern`,
		`5:25: targets[0].access.accounts[0]: the target has no user "nobody" in auth`,
		`8:21: targets[0].auth.users[0].account: stands for an account with all it has`,
		`9:56: targets[0].auth.users[1].initiators[0]: "x" is not an iSCSI name`,
		`10:11: targets[0].auth.users[2].user: "s" has an account already`,
		`10:21: targets[0].auth.users[2].account: stands for an account with all it has`,
		`11:17: targets[0].auth.outgoing: an account for initiators of some names`,
		`13:65: targets[0].luns[0].access.accounts[1]: the target has no user "t" in auth`,
		`13:81: targets[0].luns[0].access.addresses[0]: "x" is neither`,
	})
}

func TestBinds(t *testing.T) {
	all, some := Account{}, Account{Initiators: []string{"iqn.2001-04.com.example:a*"}}
	for name, want := range map[string]bool{"iqn.2001-04.com.example:a1": true, "IQN.2001-04.com.example:A": true, "iqn.2001-04.com.example:b": false} {
		if some.Binds(name) != want || !all.Binds(name) {
			t.Errorf("%s: %v, want %v", name, some.Binds(name), want)
		}
	}
}

// TestSettingsOfSharedAccount wants a change of an account to show at each target
// that has it.
func TestSettingsOfSharedAccount(t *testing.T) {
	const text = "accounts: [{name: n, user: u, secret: abcdefghijkl, initiators: [eui.020000000000000%d]}]\ntargets: [{name: eui.0200000000000001, auth: {users: [{account: n}]}}]\n"
	var all []Settings
	for i := range 2 {
		all = append(all, mustParse(t, "a.yaml", fmt.Sprintf(text, i)).Targets[0].Settings())
	}
	const key = "auth.users[0].initiators"
	if all[0][key] == "" || all[0][key] == all[1][key] || all[0]["secret of u"] == "" {
		t.Errorf("%v\n%v", all[0], all[1])
	}
}
