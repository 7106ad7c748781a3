// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReferences counts those of a package of three files with one below it.
func TestReferences(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":     "module example.org/m\n\ngo 1.26\n",
		"a.go":       "package m\n\nimport \"example.org/m/below\"\n\ntype conn struct{ n int }\n\nfunc (c *conn) go1() { c.go2(); help(c); below.F(); _ = limit }\n\ntype caller interface{ go2() }\n",
		"b.go":       "package m\n\nfunc (c *conn) go2() {}\n\nfunc viaInterface(c caller) { c.go2() }\n\nvar _ = limit\n",
		"c.go":       "package m\n\nconst limit = 1\n\nfunc help(any) { viaInterface(nil) }\n",
		"below/f.go": "package below\n\nfunc F() { g() }\n",
		"below/g.go": "package below\n\nfunc g() {}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	packages, exports, err := list(dir, "example.org/m")
	if err != nil {
		t.Fatal(err)
	}
	got, conn, err := references(packages, exports)
	if err != nil {
		t.Fatal(err)
	}
	want := []reference{{"a.go", "b.go"}, {"a.go", "below/f.go"}, {"a.go", "c.go"}, {"b.go", "a.go"}, {"b.go", "c.go"}, {"below/f.go", "below/g.go"}, {"c.go", "b.go"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(reference{})); d != "" {
		t.Errorf("references (-want +got):\n%s", d)
	}
	if len(conn) != 2 {
		t.Errorf("conn has methods in %q", conn)
	}
	order := orderOf([]byte("text\n"+orderBegins+"\n`a`, `b` and more.\n\n`c`"), want)
	if d := cmp.Diff([]reference{{"b.go", "a.go"}, {"b.go", "c.go"}}, upward(order, want), cmp.AllowUnexported(reference{})); d != "" {
		t.Errorf("up, with c.go where the fewest go up (-want +got):\n%s", d)
	}
}

// TestNoneGoesUp: no file of target/iscsi refers to one above it, in the order that docs/design.md has.
func TestNoneGoesUp(t *testing.T) {
	all, within, up, _, err := count("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(within) < 100 || len(all) <= len(within) {
		t.Fatalf("only %d references were found, %d of them within target/iscsi", len(all), len(within))
	}
	for _, r := range up {
		t.Errorf("%s uses %s, which is above it: move what it uses, or give it an interface of its own", r.from, r.to)
	}
}
