// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/test/lab/latency"
	"github.com/gotgtd/gotgtd/test/peer"
)

// maxErrors is how many errors of I/O are kept.
const maxErrors = 10

// IO is I/O that goes on in a machine, one 4 KiB read or write at a time, whose
// contents are checked.
type IO struct {
	name    string
	lab     *Lab
	command *Command

	mu         sync.Mutex // protects what follows
	operations []latency.Operation
	skew       time.Duration // the least time between an operation's end there and its line's coming here, both by their clocks
	errors     []string
	checked    int // how many operations Check has seen
}

// StartIO starts I/O on a device of the machine, on the first 4 MiB from offset (bytes)
// on, which it destroys. name is what the report calls it. Who starts it has to stop it.
func (m *Machine) StartIO(ctx context.Context, name, device string, offset int64) (*IO, error) {
	const program = "/run/lab-latency"
	if err := m.Put(ctx, m.lab.Program("latency"), program); err != nil {
		return nil, err
	}
	o := &IO{name: name, lab: m.lab, skew: time.Duration(1<<63 - 1)}
	var err error
	if o.command, err = m.Start(fmt.Sprintf("exec %s -offset %d %s", program, offset, device), o.line); err != nil {
		return nil, err
	}
	if err := o.Progress(ctx); err != nil {
		return nil, errors.Join(err, o.command.Stop())
	}
	return o, nil
}

func (o *IO) line(text string) {
	now := time.Now()
	op, err := latency.Parse(text)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		op.Error = err.Error()
	} else {
		o.operations = append(o.operations, op)
		o.skew = min(o.skew, now.Sub(op.Start.Add(op.Took)))
	}
	if op.Error != "" && len(o.errors) < maxErrors {
		o.errors = append(o.errors, text)
	}
}

// Progress waits until 10 operations have ended that had not when it was called.
func (o *IO) Progress(ctx context.Context) error {
	seen := o.count()
	var ended error
	err := peer.Until(ctx, func() error {
		select {
		case <-o.command.Done():
			ended = errors.Join(errors.New("the I/O has ended"), o.command.Stop())
			return nil // waiting longer is of no use
		default:
		}
		if n := o.count() - seen; n < 10 {
			return fmt.Errorf("%d operations have ended, and 10 should", n)
		}
		return nil
	})
	return errors.Join(err, ended)
}

func (o *IO) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.operations)
}

// Check waits for progress and returns what went wrong so far, and how long the slowest
// operation took since Check was called last.
func (o *IO) Check(ctx context.Context) (worst time.Duration, err error) {
	if err := o.Progress(ctx); err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	worst = latency.Summarize(o.operations[o.checked:]).Max
	o.checked = len(o.operations)
	return worst, o.problemsLocked()
}

func (o *IO) problemsLocked() error {
	if len(o.errors) > 0 {
		return fmt.Errorf("I/O %q: %s", o.name, strings.Join(o.errors, "\n"))
	}
	return nil
}

// Stop ends the I/O and gives what it measured to the report. The error is everything that
// went wrong.
func (o *IO) Stop() error {
	err := o.command.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.operations {
		o.operations[i].Start = o.operations[i].Start.Add(o.skew)
	}
	o.lab.report.load(loadReport{o.name, o.operations})
	return errors.Join(o.problemsLocked(), err)
}
