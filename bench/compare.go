// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/internal/histogram"
)

// figures are what is known of one target under one workload; medians of the
// rounds, but for the quantiles, which are of the latencies of all rounds.
type figures struct {
	Rounds  []float64 `json:"rounds"` // commands per second
	IOPS    float64   `json:"iops"`
	Lowest  float64   `json:"iops_lowest"` // of the rounds
	Highest float64   `json:"iops_highest"`
	MBps    float64   `json:"mb_per_s"` // 10⁶ bytes
	CPU     *float64  `json:"cpu_us_per_io,omitempty"`
	// Client is how many cores the client's process kept busy. One that uses
	// a whole core for each of its threads is what limits the figures.
	Client float64        `json:"client_cores"`
	P50    *time.Duration `json:"p50_ns,omitempty"`
	P99    *time.Duration `json:"p99_ns,omitempty"`
	P999   *time.Duration `json:"p999_ns,omitempty"`
	// Corrected is P999 with what a stall held up counted too, had each depth
	// sent its commands at the mean latency's interval. In an open loop it is
	// P999, which counts from when commands were due.
	Corrected *time.Duration `json:"p999_corrected_ns,omitempty"`
	Longest   *time.Duration `json:"longest_ns,omitempty"`
	// Cold is what of the target's file had left the page cache since the turn
	// before, in bytes of all rounds. It was read in again ahead of the measurement.
	Cold int64 `json:"cold_bytes,omitempty"`

	latency *histogram.Histogram
}

// result is a workload's outcome, by target.
type result struct {
	Workload string              `json:"workload"`
	Client   string              `json:"client"`
	Bytes    int                 `json:"bytes"` // of one command
	Rounds   rounds              `json:"rounds"`
	Figures  map[string]*figures `json:"figures"`
	Failed   map[string]string   `json:"failed,omitempty"`
}

// rounds say how a workload is run.
type rounds struct {
	Count  int           `json:"count"`
	Length time.Duration `json:"length_ns"` // of one measurement
	limit  time.Duration // no further round begins after it; zero: none
}

// patience is how long a measurement may take beyond its length.
const patience = 30 * time.Second

// compare runs a workload on the targets in turn, back and forth, so that what
// changes on the machine meanwhile meets all of them alike. A target that
// fails once is left out of the rest.
func (r *rounds) compare(ctx context.Context, w *workload, targets []running) (*result, error) {
	begin := time.Now()
	res := &result{Workload: w.name, Client: w.client, Bytes: w.bytes, Rounds: *r, Figures: make(map[string]*figures), Failed: make(map[string]string)}
	samples := make(map[string][]*sample)
	order := slices.Clone(targets)
	for i := range r.Count {
		if i > 0 && r.limit > 0 && time.Since(begin) > r.limit {
			break
		}
		for j := range order {
			t := &order[j]
			if res.Failed[t.name] != "" {
				continue
			}
			s, err := r.once(ctx, w, t)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				res.Failed[t.name] = err.Error()
				continue
			}
			samples[t.name] = append(samples[t.name], s)
		}
		slices.Reverse(order)
	}
	for name, all := range samples {
		if res.Failed[name] == "" {
			res.Figures[name] = summarize(all, w)
		}
	}
	return res, nil
}

// once measures one target. Its file is in the page cache before, and what a
// workload has written is on the disk before the next one's turn.
func (r *rounds) once(ctx context.Context, w *workload, t *running) (*sample, error) {
	var cold int64
	if t.disk != "" {
		var err error
		if cold, err = warm(t.disk); err != nil {
			return nil, err
		}
	}
	limited, cancel := context.WithTimeoutCause(ctx, r.Length+patience, errors.New("it takes too long"))
	defer cancel()
	s, err := w.run(limited, t, r.Length)
	if err != nil {
		return nil, err
	}
	s.cold = cold
	if w.writes && t.disk != "" {
		err = writeBack(t.disk)
	}
	return s, err
}

// summarize makes one target's figures of its rounds.
func summarize(all []*sample, w *workload) *figures {
	f := new(figures)
	var cpu, client []float64
	for _, s := range all {
		f.Rounds = append(f.Rounds, s.rate)
		f.Cold += s.cold
		if s.cpu > 0 && s.commands > 0 {
			cpu = append(cpu, float64(s.cpu.Microseconds())/s.commands)
		}
		client = append(client, s.client.Seconds()*s.rate/s.commands)
		if s.latency != nil {
			if f.latency == nil {
				f.latency = new(histogram.Histogram)
			}
			f.latency.Merge(s.latency)
		}
	}
	f.IOPS, f.Client = median(f.Rounds), median(client)
	f.Lowest, f.Highest = slices.Min(f.Rounds), slices.Max(f.Rounds)
	f.MBps = f.IOPS * float64(w.bytes) / 1e6
	if len(cpu) > 0 {
		f.CPU = new(median(cpu))
	}
	if h := f.latency; h != nil {
		f.P50, f.P99, f.P999 = new(h.Quantile(0.5)), new(h.Quantile(0.99)), new(h.Quantile(0.999))
		f.Corrected, f.Longest = f.P999, new(h.Max())
		if !w.open {
			f.Corrected = new(h.Corrected(h.Mean()).Quantile(0.999))
		}
	}
	return f
}

// missing returns a line about everything that was not measured, or not as
// often as it should have been.
func (r *result) missing(targets []string) (lines []string) {
	for _, t := range targets {
		if why := r.Failed[t]; why != "" {
			lines = append(lines, fmt.Sprintf("%s (%s) on %s: %.300s", r.Workload, r.Client, t, why))
		} else if n := len(r.Figures[t].Rounds); n < r.Rounds.Count {
			lines = append(lines, fmt.Sprintf("%s (%s) on %s: the time was enough for %d of %d rounds", r.Workload, r.Client, t, n, r.Rounds.Count))
		}
	}
	return lines
}
