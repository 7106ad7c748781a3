// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// outcome is what a suite's process, which has namespaces of its own, tells the one that
// started it.
type outcome struct {
	Passed, Failed int
	Summary        string // for the terminal
	Markdown       string // for lab-report.md
}

// outcome draws the report's picture into dir and returns the rest of it.
func (r *report) outcome(dir string) (outcome, error) {
	var picture string
	var err error
	if len(r.loads) > 0 {
		picture = "lab-" + r.suite.Name + ".svg"
		if err = r.draw(filepath.Join(dir, picture)); err != nil {
			picture = ""
		}
	}
	var o outcome
	var summary, markdown strings.Builder
	o.Passed, o.Failed = r.count()
	r.print(&summary)
	r.markdown(&markdown, picture)
	o.Summary, o.Markdown = summary.String(), markdown.String()
	return o, err
}

// outcomeFile is where a suite's outcome is in the work folder.
func outcomeFile(work string, s Suite) string { return filepath.Join(work, s.Name+".json") }

func (o outcome) write(work string, s Suite) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(outcomeFile(work, s), text, 0o600)
}

// readOutcome reads what the suite's process has left. err is how that process ended; it
// counts as a failure, and so does it if nothing is left.
func readOutcome(work string, s Suite, err error) outcome {
	var o outcome
	text, readErr := os.ReadFile(outcomeFile(work, s))
	if readErr == nil {
		readErr = json.Unmarshal(text, &o)
	}
	if err := errors.Join(err, readErr); err != nil {
		o.Failed++
		o.Summary += fmt.Sprintf("\nlab-%s: FAILED: %v\n", s.Name, err)
		o.Markdown += fmt.Sprintf("\n## lab-%s: %s\n\nFailed: %s\n", s.Name, s.Title, strings.ReplaceAll(err.Error(), "\n", "\n    "))
	}
	return o
}

// conclude prints the summaries, writes lab-report.md into dir and returns the exit status.
func conclude(w io.Writer, dir string, outcomes []outcome, err error) (int, error) {
	passed, failed := 0, 0
	var text strings.Builder
	text.WriteString("# Report of the lab\n")
	for _, o := range outcomes {
		fmt.Fprint(w, o.Summary)
		text.WriteString(o.Markdown)
		passed, failed = passed+o.Passed, failed+o.Failed
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "lab-report.md"), []byte(text.String()), 0o644))
	fmt.Fprintf(w, "\n%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1, err
	}
	return 0, err
}
