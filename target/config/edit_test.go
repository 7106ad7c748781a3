// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/storage"
)

const edited = `# The storage of floor 2.
targets:
  # alice's
  - name: iqn.2026-11.test:a # first
    luns:
      - lun: 1 # system
        path: /srv/a.img
        size: 1GiB   # of the file

      # scratch
      - {lun: 2, backend: ram, size: 1M}
    # end of a

  - name: "iqn.2026-11.test:b"
    access: {addresses: [10.0.0.0/8], initiators: ['iqn.2026-11.test:x']}
    luns: [{lun: 0, path: '/srv/b, 1.img'}, {lun: 5, path: /srv/c.img}]
# the end
limits:
  sessions: 10
# really
`

func editing(t testing.TB, text string) *Editor {
	t.Helper()
	e, err := Edit("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEdit(t *testing.T) {
	const a, b = "iqn.2026-11.test:a", "iqn.2026-11.test:b"
	for name, test := range map[string]struct {
		do       func(*Editor) error
		old, new string // what stands in the text before and after
	}{
		"set a value": {func(e *Editor) error { return e.SetLUN(a, 1, []string{"size=2G"}) }, "size: 1GiB   #", "size: 2GiB   #"},
		"add a key":   {func(e *Editor) error { return e.SetLUN(a, 1, []string{"read-only=true"}) }, "of the file\n", "of the file\n        read-only: true\n"},
		"set in braces": {func(e *Editor) error { return e.SetLUN(a, 2, []string{"size=2M", "vendor=it's"}) },
			"size: 1M}", `size: 2MiB, vendor: "it's"}`},
		"remove a key":       {func(e *Editor) error { return e.SetLUN(a, 1, []string{"size="}) }, "        size: 1GiB   # of the file\n", ""},
		"remove in braces":   {func(e *Editor) error { return e.SetLUN(a, 2, []string{"backend="}) }, "lun: 2, backend: ram, size", "lun: 2, size"},
		"add a LUN":          {func(e *Editor) error { _, err := e.AddLUN(a, -1, []string{"path=/x"}); return err }, "size: 1M}\n", "size: 1M}\n      - lun: 3\n        path: /x\n"},
		"add in brackets":    {func(e *Editor) error { _, err := e.AddLUN(b, 1, []string{"path=/x"}); return err }, "c.img}]", "c.img}, {lun: 1, path: /x}]"},
		"remove a LUN":       {func(e *Editor) error { return e.RemoveLUN(a, 1) }, "      - lun: 1 # system\n        path: /srv/a.img\n        size: 1GiB   # of the file\n", ""},
		"remove in brackets": {func(e *Editor) error { return e.RemoveLUN(b, 0) }, "{lun: 0, path: '/srv/b, 1.img'}, ", ""},
		"remove the last in brackets": {func(e *Editor) error { return e.RemoveLUN(b, 5) },
			", {lun: 5, path: /srv/c.img}", ""},
		"add a target": {func(e *Editor) error {
			return e.AddTarget("iqn.2026-11.test:c", []string{"tid=7", "parameters.queue-depth=8", "portal-groups=1, 2"})
		}, "c.img}]\n", "c.img}]\n  - name: iqn.2026-11.test:c\n    tid: 7\n    portal-groups:\n      - 1\n      - 2\n    parameters:\n      queue-depth: 8\n"},
		"remove a target": {func(e *Editor) error { return e.RemoveTarget(b) },
			"  - name: \"iqn.2026-11.test:b\"\n    access: {addresses: [10.0.0.0/8], initiators: ['iqn.2026-11.test:x']}\n    luns: [{lun: 0, path: '/srv/b, 1.img'}, {lun: 5, path: /srv/c.img}]\n", ""},
		"set a list": {func(e *Editor) error { return e.SetTarget(a, []string{"portal-groups=1,3", "alias=a b"}) },
			"size: 1M}\n", "size: 1M}\n    portal-groups:\n      - 1\n      - 3\n    alias: \"a b\"\n"},
		"add access": {func(e *Editor) error { return e.AddAccess(a, -1, []string{"ALL"}) },
			"size: 1M}\n", "size: 1M}\n    access:\n      addresses:\n        - ALL\n"},
		"add access in braces": {func(e *Editor) error { return e.AddAccess(b, -1, []string{"fe80::/10", "iqn.2026-11.test:*"}) },
			"[10.0.0.0/8], initiators: ['iqn.2026-11.test:x']", `[10.0.0.0/8, "fe80::/10"], initiators: ['iqn.2026-11.test:x', "iqn.2026-11.test:*"]`},
		"mask a LUN": {func(e *Editor) error { return e.AddAccess(a, 1, []string{"account:bob"}) },
			"# of the file\n", "# of the file\n        access:\n          accounts:\n            - bob\n"},
		"remove access": {func(e *Editor) error { return e.RemoveAccess(b, -1, []string{"10.0.0.0/8"}) },
			"addresses: [10.0.0.0/8], ", ""},
		"add a user": {func(e *Editor) error { _, err := e.SetUser(b, "u", "/s/u", true, false); return err },
			"c.img}]\n", "c.img}]\n    auth:\n      users:\n        - user: u\n          secret-file: /s/u\n"},
		"add a discovery user": {func(e *Editor) error { _, err := e.SetUser("", "u", "/s/u", true, false); return err },
			"sessions: 10\n", "sessions: 10\ndiscovery:\n  users:\n    - user: u\n      secret-file: /s/u\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Count(edited, test.old) != 1 {
				t.Fatalf("%q is not in the text once", test.old)
			}
			want := strings.Replace(edited, test.old, test.new, 1)
			for ends, text := range map[string]func(string) string{
				"LF":   func(s string) string { return s },
				"CRLF": func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
				"mark": func(s string) string { return byteOrderMark + s },
				"cut":  func(s string) string { return strings.TrimSuffix(s, "\n") },
			} {
				e := editing(t, text(edited))
				if err := test.do(e); err != nil {
					t.Fatalf("%s: %v", ends, err)
				}
				if diff := cmp.Diff(text(want), string(e.Bytes())); diff != "" {
					t.Errorf("%s: -want +got:\n%s", ends, diff)
				}
			}
		})
	}
}

// A user's account is added, changed and removed.
func TestEditUser(t *testing.T) {
	const text = "discovery:\n  users:\n    # bob\n    - user: bob\n      secret: \"not so secret\" # old\n"
	e := editing(t, text)
	if old, err := e.SetUser("", "bob", "/s/bob", false, false); err != nil || old != "" {
		t.Fatalf("%q, %v", old, err)
	}
	if want := "discovery:\n  users:\n    # bob\n    - user: bob\n      secret-file: /s/bob\n"; string(e.Bytes()) != want {
		t.Errorf("%s", e.Bytes())
	}
	if _, err := e.RemoveUser("", "bob", false, false); err == nil || !strings.Contains(err.Error(), "--last") {
		t.Errorf("the last account: %v", err)
	}
	if old, err := e.SetUser("", "bob", "/s/new", false, false); err != nil || old != "/s/bob" {
		t.Fatalf("%q, %v", old, err)
	}
	if old, err := e.RemoveUser("", "bob", false, true); err != nil || old != "/s/new" {
		t.Fatalf("%q, %v", old, err)
	}
	if got := string(e.Bytes()); got != "" && strings.TrimSpace(got) != "# bob" {
		t.Errorf("%q", got)
	}
}

// Files without anything in them, and those that can't be changed.
func TestEditOdd(t *testing.T) {
	const target = "targets:\n  - name: iqn.2026-11.test:a"
	for text, want := range map[string]string{
		"":                    target + "\n",
		"# nothing yet\n":     "# nothing yet\n" + target + "\n",
		"# nothing yet":       "# nothing yet\n" + target,
		"targets: []\n":       target + "\n",
		"targets: [] # x\n":   "targets: # x\n  - name: iqn.2026-11.test:a\n",
		"{}\n":                "{targets: [{name: \"iqn.2026-11.test:a\"}]}\n",
		"---\n# x\n":          "---\n# x\n" + target + "\n",
		"ignore-errors: true": "ignore-errors: true\n" + target,
		"targets:\n- name: iqn.2026-11.test:b\n  alias: \"#é\"\n\n# x\n":             "targets:\n- name: iqn.2026-11.test:b\n  alias: \"#é\"\n- name: iqn.2026-11.test:a\n\n# x\n",
		"targets:\n  - alias: |\n      a\n      # b\n    name: iqn.2026-11.test:b\n": "targets:\n  - alias: |\n      a\n      # b\n    name: iqn.2026-11.test:b\n  - name: iqn.2026-11.test:a\n",
	} {
		e := editing(t, text)
		if err := e.AddTarget("iqn.2026-11.test:a", nil); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if got := string(e.Bytes()); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", text, got, want)
		}
	}
	const list = "targets:\n  - name: iqn.2026-11.test:a\n    portal-groups: [1, 2] # \"both\" # y\n"
	e := editing(t, list)
	if err := e.SetTarget("iqn.2026-11.test:a", []string{"portal-groups=2"}); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(list, " [1, 2] # \"both\" # y", " # \"both\" # y\n      - 2", 1)
	if got := string(e.Bytes()); got != want {
		t.Errorf("a list with a comment:\n%s\nwant\n%s", got, want)
	}
	for text, want := range map[string]string{
		"a: 1\r\nb: 2\n": "CR LF",
		"targets: [":     "a.yaml:1:",
		"targets:\n":     "has no value",
		"nonsense: 1\n":  "unknown key",
	} {
		if _, err := Edit("a.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Edit("targets.conf", nil); err == nil || !strings.Contains(err.Error(), "gotgtd config convert") {
		t.Errorf("targets.conf: %v", err)
	}
}

func TestEditErrors(t *testing.T) {
	const a = "iqn.2026-11.test:a"
	e := editing(t, edited)
	for want, err := range map[string]error{
		"no target iqn.x":           e.RemoveTarget("iqn.x"),
		"there already":             e.AddTarget(a, nil),
		"has no LUN 7":              e.RemoveLUN(a, 7),
		"not a size":                e.SetLUN(a, 1, []string{"size=big"}),
		"unknown key":               e.SetLUN(a, 1, []string{"sise=1M"}),
		"not KEY=VALUE":             e.SetTarget(a, []string{"offline"}),
		"neither true nor false":    e.SetTarget(a, []string{"offline=perhaps"}),
		"not a number":              e.SetTarget(a, []string{"tid=x"}),
		"can't be set":              e.SetTarget(a, []string{"name=x"}),
		"name a key in it":          e.SetTarget(a, []string{"parameters=x"}),
		"not in the access list":    e.RemoveAccess(a, -1, []string{"10.0.0.1"}),
		"everybody is admitted":     e.RemoveAccess("iqn.2026-11.test:b", -1, []string{"10.0.0.0/8", "iqn.2026-11.test:x"}),
		"there is no account \"x\"": func() error { _, err := e.RemoveUser(a, "x", false, true); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// editStep is a change of the text, and the same of what it means.
type editStep struct {
	what string
	text func(*Editor) error
	conf func(*Config)
}

// drawStep draws a change that makes sense in cfg.
func drawStep(t *rapid.T, cfg *Config, step int) editStep {
	fresh := fmt.Sprintf("iqn.2026-11.test:n%d", step)
	if len(cfg.Targets) == 0 || rapid.IntRange(0, 5).Draw(t, "new target") == 0 {
		return editStep{"add " + fresh, func(e *Editor) error { return e.AddTarget(fresh, []string{"alias=x: #y"}) },
			func(c *Config) { c.Targets = append(c.Targets, Target{Name: fresh, Alias: "x: #y"}) }}
	}
	i := rapid.IntRange(0, len(cfg.Targets)-1).Draw(t, "target")
	target := &cfg.Targets[i]
	name := target.Name
	size := rapid.Int64Range(1, 1<<30).Draw(t, "size")
	choice := rapid.IntRange(0, 5).Draw(t, "what")
	if len(target.LUNs) > 0 {
		j := rapid.IntRange(0, len(target.LUNs)-1).Draw(t, "lun")
		n := target.LUNs[j].Number
		switch choice {
		case 0:
			return editStep{fmt.Sprintf("remove %s LUN %d", name, n), func(e *Editor) error { return e.RemoveLUN(name, n) },
				func(c *Config) { c.Targets[i].LUNs = slices.Delete(c.Targets[i].LUNs, j, j+1) }}
		case 1:
			return editStep{fmt.Sprintf("set %s LUN %d", name, n), func(e *Editor) error { return e.SetLUN(name, n, []string{fmt.Sprintf("size=%d", size), "vendor=a, b"}) },
				func(c *Config) { c.Targets[i].LUNs[j].Size, c.Targets[i].LUNs[j].Vendor = size, "a, b" }}
		}
	}
	switch choice {
	case 2:
		return editStep{"remove " + name, func(e *Editor) error { return e.RemoveTarget(name) },
			func(c *Config) { c.Targets = slices.Delete(c.Targets, i, i+1) }}
	case 3:
		return editStep{"access of " + name, func(e *Editor) error { return e.AddAccess(name, -1, []string{fresh}) },
			func(c *Config) { c.Targets[i].Access.Initiators = append(c.Targets[i].Access.Initiators, fresh) }}
	case 4:
		return editStep{"alias of " + name, func(e *Editor) error { return e.SetTarget(name, []string{"alias=" + fresh, "tid="}) },
			func(c *Config) { c.Targets[i].Alias, c.Targets[i].TID = fresh, 0 }}
	}
	n := uint16(0)
	for _, l := range target.LUNs {
		n = max(n, l.Number+1)
	}
	return editStep{fmt.Sprintf("add %s LUN %d", name, n), func(e *Editor) error {
		_, err := e.AddLUN(name, int(n), []string{"backend=ram", fmt.Sprintf("size=%d", size)})
		return err
	}, func(c *Config) {
		c.Targets[i].LUNs = append(c.Targets[i].LUNs, LUN{Number: n, Backend: "ram", Options: storage.Options{Size: size}})
	}}
}

// raw parses without defaults.
func raw(t *rapid.T, text []byte) *Config {
	cfg, errs := parseYAMLConfig("a.yaml", text)
	if len(errs) > 0 {
		t.Fatalf("%v\nin:\n%s", errs, text)
	}
	return cfg
}

// TestEditProperty: to change the text and read it is to read it and to change
// that; comments that are in nothing that was removed stay, and so do all lines
// that are not concerned, in their order.
func TestEditProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "# none\n", edited, strings.ReplaceAll(edited, "\n", "\r\n"), "targets: []", "{targets: [{name: 'iqn.2026-11.test:a'}], limits: {sessions: 3}}"}).Draw(t, "text")
		e, err := Edit("a.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for i := range rapid.IntRange(1, 6).Draw(t, "steps") {
			before := e.Bytes()
			want := raw(t, before)
			step := drawStep(t, want, i)
			if err := step.text(e); err != nil {
				t.Fatalf("%s: %v\nin:\n%s", step.what, err, before)
			}
			step.conf(want)
			if diff := cmp.Diff(want, raw(t, e.Bytes()), sameConfig); diff != "" {
				t.Fatalf("%s: %s\nbefore:\n%s\nafter:\n%s", step.what, diff, before, e.Bytes())
			}
			checkUntouched(t, step.what, string(before), string(e.Bytes()))
		}
	})
}

// checkUntouched wants the texts to differ in one place: each change is of one
// run of lines, or of two where two keys are set.
func checkUntouched(t *rapid.T, what, before, after string) {
	for line := range strings.Lines(before) {
		if comment := strings.TrimSpace(line); strings.HasPrefix(comment, "#") && !strings.HasPrefix(what, "remove") && !strings.Contains(after, line) {
			t.Fatalf("%s loses the comment %q:\n%s", what, comment, after)
		}
	}
	a, b := strings.SplitAfter(before, "\n"), strings.SplitAfter(after, "\n")
	kept, added := 0, 0
	for _, line := range b {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if i := slices.Index(a[kept:], line); i >= 0 {
			kept += i + 1
		} else {
			added++
		}
	}
	removes := strings.HasPrefix(what, "remove ")
	if len(a) > 12 && kept == 0 && !removes {
		t.Fatalf("%s keeps nothing:\n%s", what, after)
	}
	if removes && added > 1 { // what was a list may be an empty one now
		t.Fatalf("%s adds lines:\n%s\nto\n%s", what, after, before)
	}
}

// What is in the documentation can be changed by commands.
func TestEditExamples(t *testing.T) {
	paths, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal(err)
	}
	for _, p := range paths {
		data, err := readFile(p)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Edit(p, data)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.AddTarget("iqn.2026-11.test:new", nil); err != nil {
			t.Errorf("%v", err)
		}
		if _, err := e.AddLUN("iqn.2026-11.test:new", 3, []string{"path=/x"}); err != nil {
			t.Errorf("%v", err)
		}
		if err := e.RemoveTarget("iqn.2026-11.test:new"); err != nil {
			t.Errorf("%v", err)
		}
		if diff := cmp.Diff(string(data), string(e.Bytes())); diff != "" {
			t.Errorf("%s is not as before:\n%s", p, diff)
		}
	}
}
