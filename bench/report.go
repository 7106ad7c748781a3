// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// report is the document that a run writes.
type report struct {
	Date     time.Time     `json:"date"`
	Took     time.Duration `json:"took_ns"`
	Machine  machine       `json:"machine"`
	Targets  []string      `json:"targets"` // in their order
	Results  []*result     `json:"results,omitempty"`
	Goals    []verdict     `json:"goals,omitempty"`
	Fairness []fairness    `json:"fairness,omitempty"`
	Scale    *scaleReport  `json:"scale,omitempty"`
	Pause    *pauses       `json:"pause,omitempty"`
	Missing  []string      `json:"missing,omitempty"` // what could not be run
}

// printResult prints a workload's table: a line for each target, with its
// ratio to tgt and, if that is in the run, to the ceiling.
func printResult(w io.Writer, r *result, targets []string) {
	fmt.Fprintf(w, "\n%s (%s)\n", r.Workload, r.Client)
	fmt.Fprintf(w, "  %-10s %9s %15s %8s %8s %8s %8s %7s %9s %9s %9s\n", "", "I/O per s", "lowest..highest", "MB/s", "of tgt", "of ceil.", "CPU µs", "client", "p50 µs", "p99 µs", "p99.9 µs")
	for _, t := range targets {
		f := r.Figures[t]
		if f == nil {
			fmt.Fprintf(w, "  %-10s could not be run: %.200s\n", t, r.Failed[t])
			continue
		}
		cpu := "-"
		if f.CPU != nil {
			cpu = fmt.Sprintf("%.1f", *f.CPU)
		}
		fmt.Fprintf(w, "  %-10s %9.0f %15s %8.0f %8s %8s %8s %7.2f %9s %9s %9s\n", t, f.IOPS, f.spread(1), f.MBps,
			share(f, r.Figures["tgt"]), share(f, r.Figures[ceiling]), cpu, f.Client, micros(f.P50), micros(f.P99), micros(f.P999))
	}
}

// share prints how much of another's throughput a target has.
func share(f, of *figures) string {
	if of == nil || of.IOPS == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", f.IOPS/of.IOPS)
}

// spread prints the lowest and the highest round, each times unit.
func (f *figures) spread(unit float64) string {
	return fmt.Sprintf("%.0f..%.0f", f.Lowest*unit, f.Highest*unit)
}

func micros(d *time.Duration) string {
	if d == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(*d)/1e3)
}

// writeJSON writes a document into a file, whose folder it makes.
func writeJSON(path string, document any) error {
	b, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return fmt.Errorf("can't encode %s: %w", path, err)
	}
	return writeFile(path, append(b, '\n'))
}

func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
