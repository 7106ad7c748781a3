// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		events string
		want   count
		shown  string // must be among the failures
	}{
		{"tests and subtests count", `
			{"Action":"run","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p","Test":"A/one"}
			{"Action":"pass","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p"}`, count{2, 0}, ""},
		{"a failed test is shown with its output, its package not again", `
			{"Action":"output","Package":"p","Test":"A","Output":"got 1, want 2\n"}
			{"Action":"fail","Package":"p","Test":"A"}
			{"Action":"fail","Package":"p"}`, count{0, 1}, "got 1, want 2"},
		{"a leak found by TestMain", `
			{"Action":"pass","Package":"p","Test":"A"}
			{"Action":"output","Package":"p","Output":"goleak: a goroutine\n"}
			{"Action":"fail","Package":"p"}`, count{1, 1}, "goleak: a goroutine"},
		{"a package that does not compile", `
			{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/a.go:1:1: syntax error\n"}
			{"ImportPath":"p [p.test]","Action":"build-fail"}
			{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`, count{0, 1}, "p/a.go:1:1: syntax error"},
		{"a skipped test shows nothing", `
			{"Action":"output","Package":"p","Test":"A","Output":"needs a moon\n"}
			{"Action":"skip","Package":"p","Test":"A"}
			{"Action":"pass","Package":"p"}`, count{0, 1}, "needs a moon"},
		{"what was measured is shown of a test that passes", `
			{"Action":"output","Package":"p","Test":"A","Output":"a_test.go:1: figure: 5 MiB\n"}
			{"Action":"pass","Package":"p","Test":"A"}`, count{1, 0}, "A: 5 MiB"},
		{"a package without tests", `
			{"Action":"skip","Package":"p"}`, count{0, 0}, ""},
		{"what is no event is shown", "go: broken\n", count{0, 0}, "go: broken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newResults()
			if err := r.read(strings.NewReader(tc.events)); err != nil {
				t.Fatal(err)
			}
			if r.count != tc.want {
				t.Errorf("counted %+v, want %+v", r.count, tc.want)
			}
			if all := strings.Join(append(r.failures, r.figures...), ""); !strings.Contains(all, tc.shown) {
				t.Errorf("the failures do not show %q:\n%s", tc.shown, all)
			}
		})
	}
}

func TestSlowestAreNamed(t *testing.T) {
	r := newResults()
	events := `{"Action":"pass","Package":"m/p","Test":"Quick","Elapsed":9.9}
		{"Action":"pass","Package":"m/p","Test":"Slow/part","Elapsed":19}`
	for i := range slowestTests + 1 {
		events += fmt.Sprintf(`{"Action":"pass","Package":"m/p","Test":"Slow%d","Elapsed":%d}`+"\n", i, slowSeconds+i)
	}
	if err := r.read(strings.NewReader(strings.ReplaceAll(events, "}{", "}\n{"))); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	r.writeSlowest(&out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != slowestTests || !strings.Contains(lines[0], "p Slow8") || !strings.Contains(lines[len(lines)-1], "p Slow1") {
		t.Errorf("named, the slowest first:\n%s", &out)
	}
}

func TestResultsKeepTheEndOfLongOutput(t *testing.T) {
	r := newResults()
	for range 100 {
		r.keep("p A", strings.Repeat("x", maxOutput/10)+"\n")
	}
	r.keep("p A", "the end\n")
	if n := len(r.output["p A"]); n > maxOutput {
		t.Errorf("kept %d bytes, more than %d", n, maxOutput)
	}
	if !bytes.HasSuffix(r.output["p A"], []byte("the end\n")) {
		t.Error("the end of the output is lost")
	}
}

// TestLongestFirst compares with the packages that there are: none is lost or named twice, and what is said to take longest is there.
func TestLongestFirst(t *testing.T) {
	t.Chdir("../../..")
	all, err := goPackages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	packages := importPaths(all)
	got := longestFirst(packages)
	for i, l := range longest {
		if !strings.HasSuffix(got[i], "/"+l) {
			t.Errorf("package %d is %s, not %s", i, got[i], l)
		}
	}
	slices.Sort(got)
	slices.Sort(packages)
	if d := cmp.Diff(packages, got); d != "" {
		t.Errorf("packages (-want +got):\n%s", d)
	}
}

func TestFuzzTargets(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/a_test.go", "package a\nimport \"testing\"\nfunc FuzzOne(f *testing.F) {}\nfunc TestX(t *testing.T) {}\n")
	write("a/b/b_test.go", "package b\nimport \"testing\"\nfunc FuzzTwo(f *testing.F) {}\n")
	write("a/testdata/c_test.go", "package c\nfunc FuzzNot() {}\n")
	write(".hidden/d_test.go", "package d\nfunc FuzzNot() {}\n")
	write("a/plain.go", "package a\nfunc FuzzNot() {}\n")

	got, err := fuzzTargets(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []fuzzTarget{{"a", "FuzzOne"}, {"a/b", "FuzzTwo"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(fuzzTarget{})); d != "" {
		t.Errorf("fuzz targets (-want +got):\n%s", d)
	}
}

func TestProgram(t *testing.T) {
	for _, tc := range []struct {
		name  string
		step  step
		want  count
		shown string
	}{
		{"exit 0", program("p", false, "echo", "noted"), count{1, 0}, ""},
		{"exit 0 with output that should not be", program("p", true, "echo", "bad.go"), count{0, 1}, "bad.go"},
		{"exit 1", program("p", false, "sh", "-c", "echo why; exit 1"), count{0, 1}, "why"},
		{"no such program", program("p", false, "/nonexistent"), count{0, 1}, "/nonexistent"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var w bytes.Buffer
			if got := tc.step.run(t.Context(), &w); got != tc.want {
				t.Errorf("counted %+v, want %+v", got, tc.want)
			}
			if !strings.Contains(w.String(), tc.shown) {
				t.Errorf("output lacks %q: %s", tc.shown, w.String())
			}
		})
	}
}

func TestRunAllGoesOnAfterAFailureAndStopsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var ran []string
	steps := []step{
		{"first", func(context.Context, io.Writer) count { ran = append(ran, "first"); return count{0, 1} }},
		{"second", func(context.Context, io.Writer) count { ran = append(ran, "second"); cancel(); return count{3, 0} }},
		{"third", func(context.Context, io.Writer) count { ran = append(ran, "third"); return count{1, 0} }},
	}
	var w bytes.Buffer
	got := runAll(ctx, &w, steps)
	if lines := strings.Split(w.String(), "\n"); !strings.Contains(lines[0], " of CPU") {
		t.Errorf("the line of a step does not tell its processor time: %q", lines[0])
	}
	if want := (count{3, 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if d := cmp.Diff([]string{"first", "second"}, ran); d != "" {
		t.Errorf("steps run (-want +got):\n%s", d)
	}
}

func TestUnreachable(t *testing.T) {
	if !unreachable([]byte("govulncheck: fetching vulnerabilities: Get \"https://example.org\": dial tcp: timeout")) {
		t.Error("a database that can't be fetched is not recognised")
	}
	if unreachable([]byte("govulncheck: loading packages: target/x.go:3:1: expected declaration")) {
		t.Error("source that can't be read passes for a missing database")
	}
}

// TestProcessorTime has a program use some, by a program that it starts and waits for.
func TestProcessorTime(t *testing.T) {
	before := processorTime()
	out, err := command(t.Context(), "sh", "-c", "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; exit 0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if used := processorTime() - before; used <= 0 {
		t.Errorf("%v of processor time are said to be used", used)
	}
}

// TestRaceDetectorDoesNotWait looks for what programs built with the race detector are told.
func TestRaceDetectorDoesNotWait(t *testing.T) {
	t.Setenv("GORACE", "halt_on_error=1")
	out, err := command(t.Context(), "sh", "-c", "echo $GORACE").Output()
	if want := "atexit_sleep_ms=0 halt_on_error=1\n"; err != nil || string(out) != want {
		t.Errorf("GORACE=%q, %v, want %q", out, err, want)
	}
}
