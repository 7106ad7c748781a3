// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// peerTests are the packages that drive real initiators. They run last and alone:
// they are the longest, and nothing else should take the processor from them.
var peerTests = []string{"/test/peers", "/test/gotgt"}

// tests are the steps that run the code.
func tests(fuzzTime time.Duration) []step {
	return []step{
		{"unit tests", unitTests},
		{"order of locks", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./internal/ranked", "./target/iscsi"}, "-tags=ranked", "-skip=Allocat") // the checks allocate
		}},
		{"fuzzing", func(ctx context.Context, w io.Writer) count { return fuzz(ctx, w, fuzzTime) }},
		{"Ceph plug-in", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"./target/storage/plugin"}, "-tags=ceph", "-run=^TestCeph$")
		}},
		program("systemd units", false, "systemd/verify.sh"),
		{"real peers", func(ctx context.Context, w io.Writer) count {
			return goTest(ctx, w, []string{"." + peerTests[0], "." + peerTests[1]}, "-count=1", "-timeout=20m")
		}},
		{"lab", func(ctx context.Context, w io.Writer) count {
			return lab(ctx, w, "systemd", "initiator", "xen", "migrate")
		}},
	}
}

func unitTests(ctx context.Context, w io.Writer) count {
	all, err := listPackages(ctx, "./...")
	if err != nil {
		fmt.Fprintln(w, err)
		return one(false)
	}
	var packages []string
	for _, p := range all {
		if !slices.ContainsFunc(peerTests, func(suffix string) bool { return strings.HasSuffix(p, suffix) }) {
			packages = append(packages, p)
		}
	}
	return goTest(ctx, w, packages, "-race", "-timeout=15m")
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
	return total
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
