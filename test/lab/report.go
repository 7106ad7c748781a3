// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/gotgtd/gotgtd/test/lab/latency"
)

// report is what a suite has found.
type report struct {
	suite Suite

	mu      sync.Mutex // protects what follows
	start   time.Time
	took    time.Duration
	steps   []step
	marks   []mark
	figures [][2]string // name and value
	loads   []loadReport
}

type step struct {
	name  string
	start time.Time
	took  time.Duration
	err   error
}

type mark struct {
	event string
	at    time.Time
}

// loadReport is I/O in a machine: its name, and its operations by this side's clock.
type loadReport struct {
	name       string
	operations []latency.Operation
}

func newReport(s Suite) *report { return &report{suite: s, start: time.Now()} }

func (r *report) step(name string, start time.Time, took time.Duration, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, step{name, start, took, err})
}

func (r *report) mark(event string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks = append(r.marks, mark{event, at})
}

func (r *report) figure(name, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures = append(r.figures, [2]string{name, value})
}

func (r *report) load(l loadReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loads = append(r.loads, l)
}

// end concludes the report. An error that is not that of a step counts as one.
func (r *report) end(err error) {
	r.took = time.Since(r.start)
	failed := slices.ContainsFunc(r.steps, func(s step) bool { return s.err != nil })
	if err != nil && !failed {
		r.step("end", time.Now(), 0, err)
	}
	for _, f := range r.measured() {
		r.figure(f[0], f[1])
	}
}

// measured is what the marks and loads amount to.
func (r *report) measured() [][2]string {
	var figures [][2]string
	counts := make(map[string]int)
	var events []string
	for _, m := range r.marks {
		if counts[m.event]++; counts[m.event] == 1 {
			events = append(events, m.event)
		}
	}
	for _, e := range events {
		figures = append(figures, [2]string{"number of: " + e, fmt.Sprint(counts[e])})
	}
	for _, l := range r.loads {
		s := latency.Summarize(l.operations)
		figures = append(figures, [2]string{l.name, fmt.Sprintf("%d operations, median %s, 99th percentile %s, worst pause %s",
			s.Count, ms(s.Median), ms(s.P99), ms(s.Max))})
	}
	return figures
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

// count returns how many steps passed and failed.
func (r *report) count() (passed, failed int) {
	for _, s := range r.steps {
		if s.err != nil {
			failed++
		}
	}
	return len(r.steps) - failed, failed
}

func (s step) outcome() string {
	if s.err != nil {
		return "FAILED"
	}
	return "ok"
}

// print writes the summary for the terminal.
func (r *report) print(w io.Writer) {
	passed, failed := r.count()
	fmt.Fprintf(w, "\nlab-%s: %d steps passed, %d failed, %.0f s\n", r.suite.Name, passed, failed, r.took.Seconds())
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range r.steps {
		if s.err != nil {
			fmt.Fprintf(table, "  FAILED\t%s\n", s.name)
		}
	}
	for _, f := range r.figures {
		fmt.Fprintf(table, "  %s\t%s\n", f[0], f[1])
	}
	table.Flush() // w is the terminal
}

// markdown writes the suite's part of lab-report.md.
func (r *report) markdown(w io.Writer, picture string) {
	passed, failed := r.count()
	fmt.Fprintf(w, "\n## lab-%s: %s\n\n%d steps passed, %d failed, in %.0f s.\n\n", r.suite.Name, r.suite.Title, passed, failed, r.took.Seconds())
	if picture != "" {
		fmt.Fprintf(w, "![latency of I/O in the machine over time](%s)\n\n", picture)
	}
	if len(r.figures) > 0 {
		fmt.Fprint(w, "| measured | |\n|---|---|\n")
		for _, f := range r.figures {
			fmt.Fprintf(w, "| %s | %s |\n", cell(f[0]), cell(f[1]))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "| step | at | took | |\n|---|---:|---:|---|\n")
	for _, s := range r.steps {
		fmt.Fprintf(w, "| %s | %.1f s | %.1f s | %s |\n", cell(s.name), s.start.Sub(r.start).Seconds(), s.took.Seconds(), s.outcome())
	}
	for _, s := range r.steps {
		if s.err != nil {
			fmt.Fprintf(w, "\n%s:\n\n    %s\n", s.name, strings.ReplaceAll(s.err.Error(), "\n", "\n    "))
		}
	}
}

// cell makes text fit into a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}
