// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// withPrograms are the packages that build programs and run them among real initiators
// and targets. The first is also run with more rounds, as torture; the others
// are run last and alone: nothing else should take the processor from them.
const (
	upgradeTests = "test/upgrade"
	interopTests = "test/interop"
	gotgtTests   = "test/gotgt"
	hostileTests = "test/hostile"
	imageTests   = "test/container"
	browserTests = "test/browser"
)

// quick are the steps for after each edit: what differs from the commit since.
func quick(since string) []step {
	return []step{
		program("gofmt", true, slices.Concat([]string{"gofmt", "-l"}, sources)...),
		program("go build", false, "go", "build", "./..."),
		program("go vet", false, "go", "vet", "./..."),
		{"tests of what has changed", func(ctx context.Context, w io.Writer) count { return changedTests(ctx, w, since) }},
		{"a login and I/O", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./" + interopTests}, "-short", "-count=1", "-run=^TestLoginAndIO$")
		}},
	}
}

// tests are the steps that run the code, without the long ones.
func tests() []step {
	return []step{
		{"unit tests", unitTests},
		{"Ceph plug-in", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./target/storage/plugin"}, "-tags=ceph", "-run=^TestCeph$")
		}},
		program("systemd units", false, "systemd/verify.sh"),
		{"real peers", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./" + interopTests, "./" + gotgtTests}, "-count=1", "-timeout=20m", "-parallel="+atOnce, "-skip="+longInteropTests)
		}},
	}
}

// longInteropTests are the tests with real peers that take minutes.
const longInteropTests = "^TestConformanceFastPaths$"

// fuzzing is for longer than long does it.
func fuzzing(fuzzTime time.Duration) []step {
	return []step{{"fuzzing", func(ctx context.Context, w io.Writer) count { return fuzz(ctx, w, fuzzTime) }}}
}

// long are the steps that take minutes each, and are left out of tests.
func long(fuzzTime time.Duration) []step {
	return append(fuzzing(fuzzTime), []step{
		{"order of locks", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./internal/ranked", "./target/iscsi"}, "-tags=ranked", "-skip=Allocat") // the checks allocate
		}},
		{"long tests with real peers", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./" + interopTests}, "-count=1", "-timeout=20m", "-run="+longInteropTests)
		}},
		{"hostile initiators", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./" + hostileTests}, "-count=1", "-timeout=20m")
		}},
		{"torture", torture},
		program("packages", false, "packaging/verify.sh"),
		{"the page in a browser", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./" + browserTests}, "-count=1", "-timeout=10m")
		}},
		{"container image", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./" + imageTests}, "-count=1", "-timeout=10m")
		}},
		{"lab", func(ctx context.Context, w io.Writer) count {
			return lab(ctx, w, "systemd", "initiator", "xen", "migrate", "start", "power")
		}},
	}...)
}

// torture runs more rounds of the tests of upgrades, and of the supervisor's, that go on as long as
// they are told; `make torture` has still more.
func torture(ctx context.Context, w io.Writer) count {
	c := goTest(ctx, w, []string{"./" + upgradeTests}, "-count=1", "-timeout=20m", "-upgrades=200",
		"-run=^Test(Clients|SameSession|Verify|ReservationsMove|RAMDisk|Plugin)$")
	c.add(goTest(ctx, w, []string{"./cmd/upgraded"}, "-count=1", "-timeout=10m", "-run=^TestNobodyIsRefused$", "-rounds=25"))
	return c
}

// unitTests runs the packages without those that need real peers.
func unitTests(ctx context.Context, w io.Writer) count {
	all, err := goPackages(ctx)
	if err != nil {
		fmt.Fprintln(w, err)
		return one(false)
	}
	packages := without(importPaths(all), interopTests, gotgtTests, hostileTests, imageTests, browserTests)
	return goTest(ctx, w, longestFirst(packages), "-race", "-timeout=15m", "-p="+atOnce)
}

// atOnce is how many packages, or tests of real peers, go on at a time. Much of what they do is to wait for each
// other's programs: twice as many as there are processors keep these busy.
var atOnce = strconv.Itoa(2 * runtime.NumCPU())

// longest are the packages whose tests take longest, the longest first.
var longest = []string{upgradeTests, "target/iscsi", "bench", "cmd/gotgtd", "target/storage/plugin", "cmd/upgraded", "test/scripts"}

// longestFirst has the packages that take longest begin before the others, and not go on alone at
// the end. Go begins packages in the order in which they are named.
func longestFirst(packages []string) []string {
	others := without(packages, longest...)
	var first []string
	for _, l := range longest {
		for _, p := range packages {
			if strings.HasSuffix(p, l) {
				first = append(first, p)
			}
		}
	}
	return append(first, others...)
}

// changedTests runs the tests that see what differs from a commit, and says which it
// leaves to the longer runs.
func changedTests(ctx context.Context, w io.Writer, since string) count {
	all, err := goPackages(ctx)
	var files, packages []string
	if err == nil {
		files, err = changedFiles(ctx, since)
	}
	if err == nil {
		packages, err = affected(".", all, files)
	}
	if err != nil {
		fmt.Fprintln(w, err)
		return one(false)
	}
	chosen := without(packages, upgradeTests, interopTests, gotgtTests, hostileTests, imageTests, browserTests)
	fmt.Fprintf(w, "%d files differ from %s: tests of %d packages\n", len(files), since, len(chosen))
	if left := without(packages, chosen...); len(left) > 0 {
		fmt.Fprintf(w, "left to make test: %s\n", strings.Join(left, " "))
	}
	if len(chosen) == 0 {
		return count{}
	}
	return goTest(ctx, w, longestFirst(chosen), "-timeout=5m", "-p="+atOnce)
}

// without leaves out the packages whose paths end in one of the given ones.
func without(packages []string, left ...string) []string {
	return slices.DeleteFunc(slices.Clone(packages), func(p string) bool {
		return slices.ContainsFunc(left, func(l string) bool { return strings.HasSuffix(p, l) })
	})
}

// fuzzTarget is a fuzz test and the folder of its package.
type fuzzTarget struct{ dir, name string }

// fuzz runs each fuzz target of the module for the given time. Go's fuzzer takes
// one target of one package at a time.
func fuzz(ctx context.Context, w io.Writer, d time.Duration) count {
	targets, err := fuzzTargets(".")
	if err != nil {
		fmt.Fprintln(w, err)
		return one(false)
	}
	var total count
	for _, t := range targets {
		out, err := t.run(ctx, d)
		for range fuzzRetries {
			if err == nil || !ranOut(out) {
				break
			}
			out, err = t.run(ctx, d)
		}
		if err != nil {
			fmt.Fprintf(w, "--- failed: %s %s\n%s", t.dir, t.name, out)
		}
		total.add(one(err == nil))
	}
	if out, err := findPlanted(ctx); err != nil {
		fmt.Fprintf(w, "--- failed: %s does not find the planted fault in %v: %v\n%s", streamFuzzer.name, plantedTime, err, out)
		total.add(one(false))
	} else {
		total.add(one(true))
	}
	return total
}

// streamFuzzer has to find, in plantedTime, the fault of the builds with the tag plantedfault.
var streamFuzzer = fuzzTarget{"target/iscsi", "FuzzStream"}

const plantedTime = time.Minute

// findPlanted tries whether fuzzing finds anything. It runs in a folder of its own, since
// the fuzzer writes down what it finds.
func findPlanted(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "gotgtd-fuzz")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "fuzz.test")
	out, err := command(ctx, "go", "test", "-c", "-tags=plantedfault", "-fuzz="+streamFuzzer.name, "-o", binary, "./"+streamFuzzer.dir).CombinedOutput()
	if err != nil {
		return out, err
	}
	c := command(ctx, binary, "-test.run=^$", "-test.fuzz=^"+streamFuzzer.name+"$", "-test.fuzztime="+plantedTime.String(),
		"-test.fuzzminimizetime=1x", "-test.fuzzcachedir="+filepath.Join(dir, "cache"))
	c.Dir = dir
	out, err = c.CombinedOutput()
	switch {
	case err == nil:
		return out, errors.New("nothing found")
	case !bytes.Contains(out, []byte("Failing input")):
		return out, err
	}
	return nil, nil
}

// fuzzRetries is how often a run that the fuzzer itself spoiled is repeated.
const fuzzRetries = 3

func (t fuzzTarget) run(ctx context.Context, d time.Duration) ([]byte, error) {
	// Minimizing what is interesting would take most of such a short time.
	return command(ctx, "go", "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzzminimizetime=20x",
		"-fuzztime="+d.String(), "./"+t.dir).CombinedOutput()
}

// ranOut tells the fuzzer's own failure to end in time, which it reports as
// the target's, from one that has an input to show for it.
func ranOut(out []byte) bool {
	return bytes.Contains(out, []byte("context deadline exceeded")) && !bytes.Contains(out, []byte("Failing input"))
}

// fuzzTargets finds the fuzz tests below root by reading the test files: asking
// `go test -list` would build every package's tests to learn the same.
func fuzzTargets(root string) ([]fuzzTarget, error) {
	var targets []fuzzTarget
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "testdata" || strings.HasPrefix(entry.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") {
				dir, err := filepath.Rel(root, filepath.Dir(path))
				if err != nil {
					return err
				}
				targets = append(targets, fuzzTarget{dir, f.Name.Name})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("can't look for fuzz tests: %w", err)
	}
	return targets, nil
}
