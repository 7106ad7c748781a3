// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// printTables prints the tables of the results in a file.
func printTables(w io.Writer, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("can't read the results in %s: %w", path, err)
	}
	return r.writeTables(w)
}

// writeTables writes everything as Markdown.
func (r *report) writeTables(w io.Writer) error {
	var b strings.Builder
	r.writeMachine(&b)
	r.writeGoals(&b)
	r.writeThroughput(&b)
	r.writeProcessors(&b)
	r.writeLatencies(&b)
	r.writeFairness(&b)
	if r.Scale != nil {
		r.Scale.write(&b, r.Targets)
	}
	if r.Pause != nil {
		r.Pause.writeTable(&b)
	}
	if len(r.Missing) > 0 {
		heading(&b, "What could not be run")
		for _, m := range r.Missing {
			fmt.Fprintf(&b, "* %s\n", strings.Join(strings.Fields(m), " "))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func heading(b *strings.Builder, name string) { fmt.Fprintf(b, "\n### %s\n\n", name) }

// row writes a line of a table, and with rule also the one that ends its head.
func row(b *strings.Builder, rule bool, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	if rule {
		b.WriteString("|" + strings.Repeat("---|", len(cells)) + "\n")
	}
}

func (r *report) writeMachine(b *strings.Builder) {
	m := &r.Machine
	fmt.Fprintf(b, "%s, in %v. %s, %d cores, %.0f GiB of memory, Linux %s, files on %s; %s.\n", r.Date.Format("2006-01-02 15:04"),
		r.Took.Round(time.Second), m.CPU, m.Cores, float64(m.Memory)/(1<<30), m.Kernel, m.FileSystem, m.Go)
	for _, versions := range []map[string]string{m.Targets, m.Clients} {
		var all []string
		for name, version := range versions {
			all = append(all, name+" "+version)
		}
		slices.Sort(all)
		fmt.Fprintf(b, "%s.\n", strings.Join(all, ", "))
	}
}

// writeGoals has a line for each goal and a column for each target that it is
// held against.
func (r *report) writeGoals(b *strings.Builder) {
	if len(r.Goals) == 0 {
		return
	}
	heading(b, "Goals: ratios of gotgtd")
	head := []string{"workload", "of"}
	for _, v := range r.Goals {
		if v.Workload != r.Goals[0].Workload || v.Metric != r.Goals[0].Metric {
			break
		}
		head = append(head, v.Against)
	}
	row(b, true, head...)
	for line := range slices.Chunk(r.Goals, len(head)-2) {
		cells := []string{line[0].Workload + " (" + line[0].Client + ")", line[0].Metric}
		for _, v := range line {
			cells = append(cells, v.cell())
		}
		row(b, false, cells...)
	}
}

// cell says the ratio, its bound, and what became of it.
func (v *verdict) cell() string {
	sign := "≥"
	if v.AtMost {
		sign = "≤"
	}
	if !v.Measured {
		return fmt.Sprintf("%s %.2f: %s", sign, v.Bound, v.outcome())
	}
	return fmt.Sprintf("%.2f (%s %.2f: %s)", v.Ratio, sign, v.Bound, v.outcome())
}

// busy is the part of a core that is thought to be all of it.
const busy = 0.9

// mark says what limits a figure besides the target: iscsi-perf and qemu-img
// bench have one thread, the load generator shares the machine's cores.
func (r *report) mark(client string, f *figures) string {
	used := f.Client
	if f.CPU != nil {
		used += *f.CPU * f.IOPS / 1e6
	}
	switch {
	case client != clientLoad && f.Client > busy:
		return " \\*"
	case used > busy*float64(r.Machine.Cores):
		return " †"
	}
	return ""
}

// writeThroughput has a table for each client.
func (r *report) writeThroughput(b *strings.Builder) {
	for _, client := range []string{clientPerf, clientQEMU, clientLoad} {
		t := r.table(client, throughput, func(f *figures, bytes int) string {
			figure, unit := fmt.Sprintf("%.0f", f.IOPS), 1.0
			if bytes == large {
				figure, unit = fmt.Sprintf("%.0f MB/s", f.MBps), large/1e6
			}
			return fmt.Sprintf("%s%s (%s)", figure, r.mark(client, f), f.spread(unit))
		})
		if t == "" {
			continue
		}
		heading(b, "Commands per second, median of the rounds (lowest..highest), "+client)
		b.WriteString(t)
		if strings.Contains(t, " \\*") {
			b.WriteString("\n\\* The client had its core busy all the time: the target may be faster than this.\n")
		}
		if strings.Contains(t, " †") {
			b.WriteString("\n† Client and target had all cores busy: with a core more, or a lighter client, the target would be faster.\n")
		}
	}
}

// writeProcessors has the target's CPU time.
func (r *report) writeProcessors(b *strings.Builder) {
	for _, client := range []string{clientPerf, clientQEMU, clientLoad} {
		t := r.table(client, cpuPerIO, func(f *figures, _ int) string {
			if f.CPU == nil {
				return "-"
			}
			return fmt.Sprintf("%.1f", *f.CPU)
		})
		if t != "" {
			heading(b, "CPU time of the target per command, µs, "+client)
			b.WriteString(t)
		}
	}
}

// writeLatencies has the quantiles that the load generator measures.
func (r *report) writeLatencies(b *strings.Builder) {
	t := r.table(clientLoad, tail, func(f *figures, _ int) string {
		return strings.Join([]string{micros(f.P50), micros(f.P99), micros(f.P999), micros(f.Corrected)}, " / ")
	})
	if t != "" {
		heading(b, "Latency, µs: p50 / p99 / p99.9 / p99.9 corrected for coordinated omission; ratios of p99.9, "+clientLoad)
		b.WriteString(t)
	}
}

// table has a line for each of a client's workloads, a column for each target,
// and the ratios of a figure of gotgtd's to that of tgt and of the ceiling; empty
// if there is no such workload.
func (r *report) table(client string, m metric, cell func(f *figures, bytes int) string) string {
	var b strings.Builder
	for _, res := range r.Results {
		if res.Client != client {
			continue
		}
		if b.Len() == 0 {
			row(&b, true, append(append([]string{"workload"}, r.Targets...), "to tgt", "to the ceiling")...)
		}
		cells := []string{res.Workload}
		for _, t := range r.Targets {
			if f := res.Figures[t]; f != nil {
				cells = append(cells, cell(f, res.Bytes))
			} else {
				cells = append(cells, "-")
			}
		}
		for _, against := range []string{"tgt", ceiling} {
			ratio := "-"
			if v, ok := res.ratio(m, against); ok {
				ratio = fmt.Sprintf("%.2f", v)
			}
			cells = append(cells, ratio)
		}
		row(&b, false, cells...)
	}
	return b.String()
}

func (r *report) writeFairness(b *strings.Builder) {
	if len(r.Fairness) == 0 {
		return
	}
	heading(b, fmt.Sprintf("p99 of random 4 KiB reads at depth 1, alone, beside a heavy session, and with that at another process of gotgtd; goal at most %d times", fairnessGoal))
	row(b, true, "heavy session", "target", "alone, µs", "beside, µs", "elsewhere, µs", "beside to alone", "")
	for _, f := range r.Fairness {
		row(b, false, f.Heavy, f.Target, micros(&f.Alone), micros(&f.Beside), micros(&f.Elsewhere), fmt.Sprintf("%.2f", f.Ratio), f.outcome())
	}
}

func (r *scaleReport) write(b *strings.Builder, targets []string) {
	heading(b, "Scale")
	b.WriteString("```\n")
	r.print(b)
	b.WriteString("```\n")
	heading(b, fmt.Sprintf("Random 4 KiB reads over the number of sessions, each at depth %d: commands per second / CPU µs per command / p99 µs / cores that the client used", curveDepth))
	row(b, true, append([]string{"sessions"}, targets...)...)
	for line := range slices.Chunk(r.Curve, max(1, len(targets))) {
		cells := []string{fmt.Sprint(line[0].Sessions)}
		for _, p := range line {
			cells = append(cells, p.cell())
		}
		row(b, false, cells...)
	}
}

func (p *curvePoint) cell() string {
	if p.Failed != "" {
		return "-"
	}
	cpu := "-"
	if p.CPU != nil {
		cpu = fmt.Sprintf("%.1f", *p.CPU)
	}
	return fmt.Sprintf("%.0f / %s / %s / %.2f", p.IOPS, cpu, micros(&p.P99), p.Client)
}
