// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAffected(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "c", "c_test.go"), []byte(`os.ReadFile("../docs/manual.md")`), 0o644); err != nil {
		t.Fatal(err)
	}
	all := []goPackage{
		{ImportPath: "m/a", Dir: "a"},
		{ImportPath: "m/a/b", Dir: "a/b", Deps: []string{"fmt", "m/a"}},
		{ImportPath: "m/c", Dir: "c", TestGoFiles: []string{"c_test.go"}},
		{ImportPath: "m/d", Dir: "d", XTestImports: []string{"m/a/b"}},
		{ImportPath: "m/e", Dir: "e", TestImports: []string{"m/d"}},
	}
	everything := []string{"m/a", "m/a/b", "m/c", "m/d", "m/e"}
	for _, tc := range []struct {
		name  string
		files []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"what is imported, in tests and over several steps", []string{"a/a.go"}, []string{"m/a", "m/a/b", "m/d"}},
		{"tests of who imports it in its tests are not seen", []string{"d/d_test.go"}, []string{"m/d", "m/e"}},
		{"a file of a package without Go in its folder", []string{"a/b/testdata/x/y.yaml"}, []string{"m/a/b", "m/d"}},
		{"a file that tests read", []string{"docs/manual.md"}, []string{"m/c"}},
		{"a file that nothing reads", []string{"README.md", "systemd/x.service"}, nil},
		{"the module's requirements", []string{"go.sum"}, everything},
	} {
		got, err := affected(root, all, tc.files)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
	}
}

// TestAffectedHere asks for what is known of this module.
func TestAffectedHere(t *testing.T) {
	t.Chdir("../../..")
	all, err := goPackages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := affected(".", all, []string{"target/mem/mem.go", "docs/openapi.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/gotgtd/gotgtd/"
	for _, p := range []string{"target/mem", "target/iscsi", "cmd/gotgtd", "target/control"} {
		if !slices.Contains(got, module+p) {
			t.Errorf("%s is not among what is affected: %q", p, got)
		}
	}
	// Its tests read a page of docs.
	if got, err = affected(".", all, []string{"target/mem/mem.go"}); err != nil || slices.Contains(got, module+"supervisor/service") {
		t.Error("supervisor/service is said to depend on target/mem", err)
	}
}

func TestChangedFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := changedFiles(t.Context(), "HEAD"); err == nil {
		t.Error("no error where there is no repository")
	}
	for name, text := range map[string]string{"edited": "1", "deleted": "1", "same": "1", "old name": "a file that is moved\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "x")
	git("rm", "-q", "deleted")
	git("mv", "old name", "new name")
	for _, name := range []string{"edited", "added"} {
		if err := os.WriteFile(name, []byte("2"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := changedFiles(t.Context(), "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{"added", "deleted", "edited", "new name", "old name"}, got); d != "" {
		t.Errorf("changed files (-want +got):\n%s", d)
	}
}
