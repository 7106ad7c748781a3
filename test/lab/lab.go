// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/test/lab/latency"
)

// Suite is one of the lab's runs.
type Suite struct {
	Name  string // as the command line has it
	Title string // as the report has it
	// Run does the steps. Its error ends the suite; if a step has failed, it need
	// not be returned.
	Run func(ctx context.Context, l *Lab) error
	// Faulty are programs that the suite needs beside the ordinary ones: gotgtd built with a tag
	// that plants a fault. The program of tag TAG is named gotgtd-TAG.
	Faulty []string
	// Alone suites share the processors with no other suite.
	Alone bool
}

// stepTime is the most that a step may take.
const stepTime = 15 * time.Minute

// Lab is a suite's run.
type Lab struct {
	// Short asks for what fits into a run of all checks: the same steps, fewer
	// rounds.
	Short bool
	// Cuts is how many power cuts are asked for; 0 leaves it to the suite.
	Cuts int
	// Dir is a folder for the suite's files; it is removed at the end.
	Dir string

	out      io.Writer
	image    string // folder of the image
	programs string // folder of the programs
	report   *report

	mu       sync.Mutex // protects what follows
	machines []*Machine
	targets  []*Target
}

// Program is the path of one of the project's programs, as in cmd/ and test/lab/cmd/,
// statically linked: it runs here and in every machine.
func (l *Lab) Program(name string) string { return filepath.Join(l.programs, name) }

// Image is the path of one of the files that machines boot from.
func (l *Lab) Image(name string) string { return filepath.Join(l.image, name) }

// Printf adds a line to what the run prints.
func (l *Lab) Printf(format string, args ...any) {
	fmt.Fprintf(l.out, "         "+format+"\n", args...)
}

// Step does one thing that can fail, within 15 minutes. The report and the terminal have its
// name, time and outcome; if it fails, also the ends of the consoles and
// journals of all machines. The error is f's: a suite returns it if nothing else
// can be tried without this step.
func (l *Lab) Step(ctx context.Context, name string, f func(context.Context) error) error {
	start := time.Now()
	stepCtx, cancel := context.WithTimeoutCause(ctx, stepTime, fmt.Errorf("not done within %v", stepTime))
	defer cancel()
	err := f(stepCtx)
	took := time.Since(start)
	l.report.step(name, start, took, err)
	if err == nil {
		fmt.Fprintf(l.out, "%7.1fs  ok      %s\n", took.Seconds(), name)
		return nil
	}
	fmt.Fprintf(l.out, "%7.1fs  FAILED  %s: %v\n", took.Seconds(), name, err)
	if ctx.Err() == nil {
		l.explain(ctx)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// explain prints what the machines and targets have to say.
func (l *Lab) explain(ctx context.Context) {
	l.mu.Lock()
	machines, targets := l.machines, l.targets
	l.mu.Unlock()
	for _, m := range machines {
		m.explain(ctx, l.out)
	}
	for _, t := range targets {
		fmt.Fprintf(l.out, "--- %s\n%s\n", t.Name(), lastLines(t.Log(), explainLines))
	}
}

// Mark notes an event that happens now, such as "upgrade", "reload" or
// "migration": the timeline shows where it was, the report how many of them there were.
func (l *Lab) Mark(event string) { l.report.mark(event, time.Now()) }

// Figure adds something measured to the report.
func (l *Lab) Figure(name, format string, args ...any) {
	l.report.figure(name, fmt.Sprintf(format, args...))
}

// Operations adds operations that a program in a machine has done to the report and its
// timeline. Their starts are by this side's clock.
func (l *Lab) Operations(name string, operations []latency.Operation) {
	l.report.load(loadReport{name, operations})
}

// close ends what the suite has left running.
func (l *Lab) close() error {
	l.mu.Lock()
	machines, targets := l.machines, l.targets
	l.mu.Unlock()
	var errs []error
	for _, m := range machines {
		m.Kill()
	}
	for _, t := range targets {
		errs = append(errs, t.Stop())
	}
	return errors.Join(errs...)
}

// run does a suite and returns its report. What the suite leaves running is ended.
func run(ctx context.Context, s Suite, l *Lab) *report {
	l.report = newReport(s)
	fmt.Fprintf(l.out, "lab-%s: %s\n", s.Name, s.Title)
	err := s.Run(ctx, l)
	if err == nil {
		err = ctx.Err()
	}
	l.report.end(errors.Join(err, l.close()))
	return l.report
}
