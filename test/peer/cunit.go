// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// CUnitTest is one test of a CUnit run.
type CUnitTest struct {
	Suite, Name string
	Passed      bool
	Skipped     []string // the reasons it gave for not testing something
	Output      []string // what else it printed, without leading blanks
}

// String is the test's name as the suite's -t option takes it.
func (t CUnitTest) String() string { return t.Suite + "." + t.Name }

// CUnitRun is what a CUnit program printed of a whole run.
type CUnitRun struct {
	Tests []CUnitTest
	// As the program's own summary has it. CUnit counts a skipped test as passed.
	Ran, Passed, Failed int
}

var (
	cunitSuite   = regexp.MustCompile(`^Suite: (\S+)`)
	cunitTest    = regexp.MustCompile(`^  Test: (\S+) \.\.\.(.*)$`)
	cunitSummary = regexp.MustCompile(`^\s+tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\d+`)
)

const cunitSkipped = "[SKIPPED] "

// ParseCUnit reads what a program prints in CUnit's basic verbose mode. It is an
// error if the run was not completed: without a summary, with tests left out, or
// with a summary that disagrees with what was printed of the tests.
func ParseCUnit(r io.Reader) (*CUnitRun, error) {
	run := new(CUnitRun)
	suite, total := "", -1
	ended := true // whether the last test's verdict was read
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := cunitSuite.FindStringSubmatch(line); m != nil {
			suite = m[1]
			continue
		}
		if m := cunitSummary.FindStringSubmatch(line); m != nil {
			if _, err := fmt.Sscan(strings.Join(m[1:], " "), &total, &run.Ran, &run.Passed, &run.Failed); err != nil {
				return nil, fmt.Errorf("can't read the summary %q: %w", line, err)
			}
			continue
		}
		if m := cunitTest.FindStringSubmatch(line); m != nil {
			run.Tests = append(run.Tests, CUnitTest{Suite: suite, Name: m[1]})
			ended = false
			line = m[2]
		}
		if len(run.Tests) > 0 && !ended {
			ended = run.Tests[len(run.Tests)-1].take(line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("can't read CUnit's output: %w", err)
	}
	return run, run.check(total)
}

// take reads one line of the test's output and reports whether it is the last,
// the one with the verdict. What the test prints of its own accord may stand
// before the verdict or after it on the line.
func (t *CUnitTest) take(line string) (last bool) {
	text := strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(text, "passed"):
		t.Passed = true
		return true
	case text == "FAILED":
		return true
	case strings.Contains(text, cunitSkipped):
		_, reason, _ := strings.Cut(text, cunitSkipped)
		t.Skipped = append(t.Skipped, strings.TrimSpace(reason))
	case text != "":
		t.Output = append(t.Output, text)
	}
	return false
}

// check compares the summary with the tests that were read.
func (run *CUnitRun) check(total int) error {
	if total < 0 {
		last := "any test"
		if n := len(run.Tests); n > 0 {
			last = run.Tests[n-1].String()
		}
		return fmt.Errorf("the run has no summary: it broke off at %s", last)
	}
	passed := 0
	for _, t := range run.Tests {
		if t.Passed {
			passed++
		}
	}
	if run.Ran != total || len(run.Tests) != total || passed != run.Passed {
		return fmt.Errorf("the summary has %d tests, %d run, %d passed; its output has %d and %d passed",
			total, run.Ran, run.Passed, len(run.Tests), passed)
	}
	return nil
}
