// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build-output event
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string  // on the fail event of a package that did not compile
}

// maxOutput bounds what is kept of one test's output: its end is what tells.
const maxOutput = 64 << 10

// figureMark is in each line of a test's output that tells what was measured, which is shown
// although the test passes.
const figureMark = "figure: "

// Of a step, so many tests that took so many seconds or more are named.
const (
	slowestTests = 8
	slowSeconds  = 10
)

// results reads a stream of events and counts. Every test and subtest is one,
// a package that fails without a failing test is one (it did not compile, or its
// TestMain found a leak), and a skipped test has failed: it shows nothing.
type results struct {
	count
	failures []string          // in the order in which they came
	figures  []string          // what was measured; see figureMark
	slow     []event           // ends of the tests that took slowSeconds or more
	output   map[string][]byte // of what has not ended yet, by package and test
	failedIn map[string]bool   // packages with a failed test
}

func newResults() *results {
	return &results{
		output:   make(map[string][]byte),
		failedIn: make(map[string]bool),
	}
}

// read takes all events from r. A line that is no event is what a broken tool
// printed; it is shown among the failures.
func (r *results) read(in io.Reader) error {
	lines := bufio.NewReaderSize(in, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				r.failures = append(r.failures, string(line))
			} else {
				r.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("can't read the test's events: %w", err)
		}
	}
}

func (r *results) take(e event) {
	key := e.Package + " " + e.Test
	if e.Elapsed >= slowSeconds && e.Test != "" && !strings.Contains(e.Test, "/") {
		r.slow = append(r.slow, e)
	}
	switch e.Action {
	case "output":
		r.keep(key, e.Output)
		if _, figure, ok := strings.Cut(e.Output, figureMark); ok {
			r.figures = append(r.figures, fmt.Sprintf("%s: %s", e.Test, figure))
		}
	case "build-output":
		r.keep(e.ImportPath, e.Output)
	case "pass":
		if e.Test != "" {
			r.passed++
		}
		delete(r.output, key)
	case "skip":
		if e.Test != "" { // a package without tests is skipped too
			r.fail(e, "skipped", r.output[key])
		}
		delete(r.output, key)
	case "fail":
		switch {
		case e.Test != "":
			r.fail(e, "failed", r.output[key])
		case e.FailedBuild != "":
			r.fail(e, "does not compile", r.output[e.FailedBuild])
		case !r.failedIn[e.Package]:
			r.fail(e, "failed", r.output[key])
		}
		delete(r.output, key)
	}
}

func (r *results) keep(key, text string) {
	b := append(r.output[key], text...)
	if len(b) > maxOutput {
		b = append(b[:0], b[len(b)-maxOutput/2:]...)
	}
	r.output[key] = b
}

func (r *results) fail(e event, what string, output []byte) {
	r.failed++
	r.failedIn[e.Package] = true
	name := strings.TrimSpace(e.Package + " " + e.Test)
	r.failures = append(r.failures, fmt.Sprintf("--- %s: %s\n%s", what, name, output))
}

// writeSlowest names the tests that took longest, so that what makes a run long is seen in it.
func (r *results) writeSlowest(w io.Writer) {
	slices.SortStableFunc(r.slow, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	for _, e := range r.slow[:min(len(r.slow), slowestTests)] {
		fmt.Fprintf(w, "%6.1fs  %s %s\n", e.Elapsed, path.Base(e.Package), e.Test)
	}
}

// goTest runs `go test -json` with args and counts what it reports.
func goTest(ctx context.Context, w io.Writer, packages []string, args ...string) count {
	// A flag that only the test knows has to come after the packages.
	cmd := command(ctx, "go", slices.Concat([]string{"test", "-json"}, packages, args)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		fmt.Fprintf(w, "can't run go test: %v\n", err)
		return one(false)
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(w, "can't run go test: %v\n", err)
		return one(false)
	}
	r := newResults()
	readErr := r.read(out)
	err = cmd.Wait()
	for _, f := range slices.Concat(r.figures, r.failures) {
		fmt.Fprint(w, f)
	}
	r.writeSlowest(w)
	if readErr != nil {
		fmt.Fprintln(w, readErr)
		r.failed++
	}
	if err != nil && r.failed == 0 {
		fmt.Fprintf(w, "go test: %v\n", err)
		r.failed++
	}
	return r.count
}
