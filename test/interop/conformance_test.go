// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// fastPaths are the settings, for tests, of GOTGTD_FAST_PATHS.
var fastPaths = []string{"always", "never"}

// plain are directives for a disk on which the whole suite can be run. Where a physical
// block has several logical ones, its GetLBAStatus.UnmapSingle asks for the status from one
// block on and wants the answer of another.
const plain = thin + "\nlbppbe 0"

// conformanceTests is how many tests the whole suite has, libiscsi 1.19.
const conformanceTests = 615

// accepted are the reasons for which a conformance test may be skipped, as the
// suite words them, and why each is right for this target.
var accepted = map[string]string{
	"WRITEATOMIC16 is not implemented.":                   "WRITE ATOMIC is optional (SBC-4), and a file can't keep its promise",
	"EXTENDEDCOPY is not implemented.":                    "third-party copy is optional; copying through the initiator is as fast here",
	"RECEIVE_COPY_RESULTS is not implemented.":            "third-party copy is optional",
	"RECEIVECOPYRESULT is not implemented.":               "third-party copy is optional",
	"READDEFECTDATA10 is not implemented.":                "a file or a flash device has no defect list to tell",
	"READDEFECTDATA12 is not implemented.":                "a file or a flash device has no defect list to tell",
	"--allow-sanitize flag is not set. Skipping test.":    "SANITIZE is optional",
	"Logical unit is not removable. Skipping test.":       "tried on a removable logical unit, in a run of its own",
	"Media is not removable.":                             "tried on a removable logical unit, in a run of its own",
	"WRITESAME10 does not support 0-blocks.":              "WSNZ=1 (SBC-3 6.6.3): one command must not cover an unbounded rest of the disk; that zero is refused is tested by UnmapUntilEnd",
	"WRITESAME16 does not support 0-blocks.":              "WSNZ=1 (SBC-3 6.6.3): one command must not cover an unbounded rest of the disk; that zero is refused is tested by UnmapUntilEnd",
	"LBPPB < 2. Skipping test":                            "tried on a logical unit with 8 blocks to a physical one, in a run of its own",
	"Logical unit is not write-protected. Skipping test.": "tried on a read-only logical unit, in a run of its own",
}

// TestLoginAndIO is the least of a real initiator, in seconds, for `make quick`: libiscsi logs in,
// writes, has what it wrote verified, reads and compares.
func TestLoginAndIO(t *testing.T) {
	_, urls, _ := startDisk(t, 64<<20, 1, "")
	for _, test := range []string{"TestUnitReady", "Write16", "WriteVerify16", "Read16", "CompareAndWrite"} {
		noneSkipped(t, conform(t, "-d", "-t", "ALL."+test+".Simple", urls[0]))
	}
}

// TestConformance runs the whole of libiscsi's suite, over two portals of one
// logical unit so that the multipath tests run. No test may fail, and one that is
// skipped stands in docs/conformance.md with an accepted reason.
func TestConformance(t *testing.T) {
	t.Parallel()
	_, urls, _ := startDisk(t, 1<<30, 2, plain)
	run := conform(t, append([]string{"-d"}, urls...)...)
	if run.Ran != conformanceTests {
		t.Errorf("%d tests were run, not %d", run.Ran, conformanceTests)
	}
	table := skippedTable(t, run)
	doc := filepath.Join("..", "..", "docs", "conformance.md")
	if *update {
		replaceTable(t, doc, table)
	}
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), table) {
		t.Errorf("%s does not have what this run skipped:\n%s", doc, table)
	}
}

// TestConformanceFastPaths runs the whole suite with the data path's shortcuts
// taken wherever they are possible, and nowhere.
func TestConformanceFastPaths(t *testing.T) {
	for _, when := range fastPaths {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			_, urls, _ := startDiskWith(t, 1<<30, plain, peer.Options{Portals: 2, Env: []string{"GOTGTD_FAST_PATHS=" + when}})
			run := conform(t, append([]string{"-d"}, urls...)...)
			if run.Ran != conformanceTests {
				t.Errorf("%d tests were run, not %d", run.Ran, conformanceTests)
			}
		})
	}
}

// TestConformanceRemovable runs what the suite can only try where the medium can
// be locked in and ejected.
func TestConformanceRemovable(t *testing.T) {
	t.Parallel()
	_, urls, _ := startDisk(t, 64<<20, 1, "removable 1\n"+thin)
	for _, suite := range []string{"ALL.PreventAllow.*", "ALL.StartStopUnit.*", "ALL.NoMedia.*"} {
		noneSkipped(t, conform(t, "-d", "-t", suite, urls[0]))
	}
}

// TestConformancePhysicalBlocks runs what the suite can only try where a
// physical block has several logical ones.
func TestConformancePhysicalBlocks(t *testing.T) {
	t.Parallel()
	_, urls, _ := startDisk(t, 64<<20, 1, "lbppbe 3\n"+thin)
	for _, test := range []string{"CompareAndWrite.InvalidDataOutSize", "WriteSame10.InvalidDataOutSize",
		"WriteSame10.UnmapUnaligned", "WriteSame16.InvalidDataOutSize", "WriteSame16.UnmapUnaligned"} {
		noneSkipped(t, conform(t, "-d", "-t", "ALL."+test, urls[0]))
	}
}

// TestConformanceReadOnly runs what the suite can only try where the logical unit
// is write-protected.
func TestConformanceReadOnly(t *testing.T) {
	t.Parallel()
	_, urls, _ := startDisk(t, 64<<20, 1, "readonly 1\n"+thin)
	noneSkipped(t, conform(t, "-d", "-t", "ALL.ReadOnly.*", urls[0]))
}

// conform runs libiscsi's suite and reports every test of it that failed.
func conform(t *testing.T, args ...string) *peer.CUnitRun {
	t.Helper()
	peer.Need(t, "iscsi-test-cu")
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	out, runErr := peer.Run(ctx, "iscsi-test-cu", args...)
	run, err := peer.ParseCUnit(strings.NewReader(out))
	if err != nil {
		t.Fatalf("iscsi-test-cu %q: %v\n%s", args, errors.Join(runErr, err), lastLines(out, 20))
	}
	// Its exit status tells of failed tests too.
	if runErr != nil && run.Failed == 0 {
		t.Error(runErr)
	}
	for _, test := range run.Tests {
		if !test.Passed {
			t.Errorf("%s failed:\n\t%s", test, strings.Join(test.Output, "\n\t"))
		}
	}
	if run.Ran == 0 {
		t.Fatalf("iscsi-test-cu %q ran no test", args)
	}
	return run
}

func noneSkipped(t *testing.T, run *peer.CUnitRun) {
	t.Helper()
	for _, test := range run.Tests {
		if len(test.Skipped) > 0 {
			t.Errorf("%s was skipped: %s", test, test.Skipped[0])
		}
	}
}

const (
	tableBegin = "<!-- skipped tests: begin (generated by go test ./test/interop -run TestConformance$ -update) -->\n"
	tableEnd   = "<!-- skipped tests: end -->"
)

// skippedTable is the Markdown table of the tests that were skipped. A reason that
// is not accepted fails the test.
func skippedTable(t *testing.T, run *peer.CUnitRun) string {
	t.Helper()
	tests := make(map[string][]string) // by reason; the suite runs most tests in several families
	for _, test := range run.Tests {
		for _, reason := range test.Skipped {
			if _, ok := accepted[reason]; !ok {
				t.Errorf("%s was skipped: %s", test, reason)
			}
			if !slices.Contains(tests[reason], test.String()) {
				tests[reason] = append(tests[reason], test.String())
			}
		}
	}
	reasons := make([]string, 0, len(tests))
	for r := range tests {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	var b strings.Builder
	b.WriteString(tableBegin + "| tests | what the suite says | why |\n|---|---|---|\n")
	for _, r := range reasons {
		slices.Sort(tests[r])
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(tests[r], ", "), r, accepted[r])
	}
	b.WriteString(tableEnd)
	return b.String()
}

// replaceTable puts the table in the place of the old one.
func replaceTable(t *testing.T, doc, table string) {
	t.Helper()
	text, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", doc)
	}
	if err := os.WriteFile(doc, []byte(before+table+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
