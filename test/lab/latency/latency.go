// SPDX-License-Identifier: Apache-2.0

// Package latency measures the latency of I/O where an initiator sees it: one
// 4 KiB read or write at a time, past every cache, with contents that are checked.
// The program test/lab/cmd/latency runs it in a machine and prints a line for
// each operation, which the other side reads.
package latency

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Operation is a read or a write that has ended.
type Operation struct {
	Write bool
	Start time.Time // by the clock of the machine in which it was done
	Took  time.Duration
	// Error is what went wrong; empty: nothing.
	Error string
}

// String is the operation's line: R or W, the start in microseconds since 1970, the
// time taken in microseconds, and the error if there is one.
func (o Operation) String() string {
	kind := "R"
	if o.Write {
		kind = "W"
	}
	line := fmt.Sprintf("%s %d %d", kind, o.Start.UnixMicro(), o.Took.Microseconds())
	if o.Error != "" {
		line += " " + strings.ReplaceAll(o.Error, "\n", "; ")
	}
	return line
}

// Parse reads a line.
func Parse(line string) (Operation, error) {
	fields := strings.SplitN(line, " ", 4)
	if len(fields) < 3 || (fields[0] != "R" && fields[0] != "W") {
		return Operation{}, fmt.Errorf("%q is no line of the latency program", line)
	}
	start, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return Operation{}, fmt.Errorf("%q: %w", line, err)
	}
	took, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return Operation{}, fmt.Errorf("%q: %w", line, err)
	}
	o := Operation{Write: fields[0] == "W", Start: time.UnixMicro(start), Took: time.Duration(took) * time.Microsecond}
	if len(fields) == 4 {
		o.Error = fields[3]
	}
	return o, nil
}

// Summary is what a number of operations took.
type Summary struct {
	Count            int
	Median, P99, Max time.Duration
}

// MedianSeconds and MaxSeconds are for diagrams.
func (s Summary) MedianSeconds() float64 { return s.Median.Seconds() }

// MaxSeconds is the slowest operation.
func (s Summary) MaxSeconds() float64 { return s.Max.Seconds() }

// Summarize sums operations up.
func Summarize(ops []Operation) Summary {
	if len(ops) == 0 {
		return Summary{}
	}
	took := make([]time.Duration, len(ops))
	for i, o := range ops {
		took[i] = o.Took
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))] }
	return Summary{Count: len(ops), Median: at(0.5), P99: at(0.99), Max: at(1)}
}
