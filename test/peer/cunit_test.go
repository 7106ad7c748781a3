// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const cunitOutput = `found matching LU device identifier for all (2) paths

     CUnit - A unit testing framework for C - Version 2.1-3

Suite: CompareAndWrite
  Test: Simple ...    [SKIPPED] COMPAREANDWRITE is not implemented.
    [SKIPPED] COMPAREANDWRITE is not implemented.
passed
  Test: DpoFua ...passed    [FAILED] a message of the clean-up

Suite: GetLBAStatus
  Test: BeyondEol ...    [FAILED] successful but should have failed
FAILED
    1. test_get_lba_status_beyond_eol.c:38  - CU_ASSERT_EQUAL(_r,0)
  Test: Ownership ...    Take it out
FAILED
    1. test_x.c:84  - CU_ASSERT_EQUAL(0,ret)    [FAILED] PRIN command

Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      2      2    n/a      0        0
               tests      4      4      2      2        0
             asserts      9      9      7      2      n/a
`

func TestParseCUnit(t *testing.T) {
	got, err := ParseCUnit(strings.NewReader(cunitOutput))
	if err != nil {
		t.Fatal(err)
	}
	skipped := "COMPAREANDWRITE is not implemented."
	want := &CUnitRun{
		Tests: []CUnitTest{
			{Suite: "CompareAndWrite", Name: "Simple", Passed: true, Skipped: []string{skipped, skipped}},
			{Suite: "CompareAndWrite", Name: "DpoFua", Passed: true},
			{Suite: "GetLBAStatus", Name: "BeyondEol", Output: []string{"[FAILED] successful but should have failed"}},
			{Suite: "GetLBAStatus", Name: "Ownership", Output: []string{"Take it out"}},
		},
		Ran: 4, Passed: 2, Failed: 2,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("run (-want +got):\n%s", d)
	}
}

func TestParseCUnitRefusesARunThatIsNotWhole(t *testing.T) {
	for _, tc := range []struct{ name, output, want string }{
		{"broken off", cunitOutput[:strings.Index(cunitOutput, "Suite: GetLBA")], "broke off at CompareAndWrite.DpoFua"},
		{"empty", "", "broke off at any test"},
		{"tests left out", strings.Replace(cunitOutput, "tests      4      4", "tests      4      3", 1), "3 run"},
		{"verdicts lost", strings.Replace(cunitOutput, "\npassed\n", "\n", 1), "1 passed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseCUnit(strings.NewReader(tc.output))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}
