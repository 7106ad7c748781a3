// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSideBySide has two suites that need each other at the same time, and a third one.
func TestSideBySide(t *testing.T) {
	o := options{sideBySide: 2, suites: []Suite{{Name: "first"}, {Name: "second"}, {Name: "third"}}}
	running := make(chan string)
	var out strings.Builder
	outcomes := runSuites(&out, o, func(s Suite, w io.Writer) outcome {
		fmt.Fprintf(w, "%s begins\n", s.Name)
		switch s.Name {
		case "first":
			running <- s.Name // for ever, if the second one has to wait
		case "second":
			<-running
		}
		fmt.Fprintf(w, "%s ends\n", s.Name)
		return outcome{Summary: s.Name}
	})
	if d := cmp.Diff([]outcome{{Summary: "first"}, {Summary: "second"}, {Summary: "third"}}, outcomes); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
	for _, s := range o.suites {
		if want := fmt.Sprintf("%[1]s begins\n%[1]s ends\n", s.Name); !strings.Contains(out.String(), want) {
			t.Errorf("what %s prints is not in one piece:\n%s", s.Name, &out)
		}
	}
}

// TestAlone has a suite that runs alone come before the others have begun, and keep its place
// among the outcomes.
func TestAlone(t *testing.T) {
	o := options{sideBySide: 2, suites: []Suite{{Name: "first"}, {Name: "alone", Alone: true}, {Name: "third"}}}
	var mu sync.Mutex
	var begun []string
	outcomes := runSuites(io.Discard, o, func(s Suite, _ io.Writer) outcome {
		mu.Lock()
		defer mu.Unlock()
		begun = append(begun, s.Name)
		return outcome{Summary: s.Name}
	})
	if len(begun) != 3 || begun[0] != "alone" {
		t.Errorf("run were %q", begun)
	}
	if d := cmp.Diff([]outcome{{Summary: "first"}, {Summary: "alone"}, {Summary: "third"}}, outcomes); d != "" {
		t.Errorf("outcomes (-want +got):\n%s", d)
	}
}

// TestOneAtATime has what the only suite prints come out at once.
func TestOneAtATime(t *testing.T) {
	o := options{sideBySide: 1, suites: []Suite{{Name: "first"}, {Name: "second"}}}
	var out strings.Builder
	runSuites(&out, o, func(s Suite, w io.Writer) outcome {
		fmt.Fprintln(w, s.Name)
		if !strings.HasSuffix(out.String(), s.Name+"\n") {
			t.Errorf("%s prints, and there is only:\n%s", s.Name, &out)
		}
		return outcome{}
	})
	if want := "first\nsecond\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

// TestProcessOfASuiteFails counts suites whose process ended badly or left nothing.
func TestProcessOfASuiteFails(t *testing.T) {
	s := Suite{Name: "try", Title: "A try"}
	for name, tc := range map[string]struct {
		left *outcome
		err  error
		want count
	}{
		"well":                     {&outcome{Passed: 2}, nil, count{2, 0}},
		"a step has failed":        {&outcome{Passed: 2, Failed: 1}, nil, count{2, 1}},
		"badly, with its steps":    {&outcome{Passed: 2}, errors.New("exit status 1"), count{2, 1}},
		"badly, and left nothing":  {nil, errors.New("signal: killed"), count{0, 1}},
		"as if well, left nothing": {nil, nil, count{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			work := t.TempDir()
			if tc.left != nil {
				if err := tc.left.write(work, s); err != nil {
					t.Fatal(err)
				}
			}
			got := readOutcome(work, s, tc.err)
			if (count{got.Passed, got.Failed}) != tc.want {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
			if tc.err != nil && !strings.Contains(got.Summary, tc.err.Error()) {
				t.Errorf("the summary does not say why: %q", got.Summary)
			}
		})
	}
}

type count struct{ passed, failed int }
