// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// fairnessGoal is how many times its p99 alone the p99 of a light session may
// be beside a heavy one.
const fairnessGoal = 5

// heavies are the heavy sessions, each a process of its own so that only the
// target is shared with the light one; and the machine's cores.
var heavies = []struct {
	name    string
	program string
	args    []string
}{
	{"4 KiB random reads at depth 128", "iscsi-perf", []string{"-t", "3600", "-r", "-b", "8", "-m", "128"}},
	{"256 KiB sequential reads at depth 128", "iscsi-perf", []string{"-t", "3600", "-b", "512", "-m", "128"}},
	{"4 KiB random writes at depth 128", "qemu-img", []string{"bench", "-f", "raw", "-t", "none", "-w", "-c", "100000000",
		"-s", "4096", "-S", fmt.Sprint(qemuStride), "-d", "128"}},
}

// fairness is how a light session fares.
type fairness struct {
	Target string        `json:"target"`
	Heavy  string        `json:"heavy"`
	Alone  time.Duration `json:"p99_alone_ns"` // median of the rounds
	Beside time.Duration `json:"p99_beside_ns"`
	Ratio  float64       `json:"ratio"`
	Failed string        `json:"failed,omitempty"`
}

// measureFairness measures the p99 of a session at depth 1 alone and beside a
// heavy one, on each target.
func measureFairness(ctx context.Context, o *options, targets []running) (all []fairness, err error) {
	light := load(loadOptions{bytes: small, reads: 100, depth: 1})
	fmt.Printf("random read 4 KiB, depth 1: p99 alone and beside a heavy session; goal at most %d times\n", fairnessGoal)
	for _, heavy := range heavies[:o.plan.heavies] {
		for i := range targets {
			t := &targets[i]
			f := fairness{Target: t.name, Heavy: heavy.name}
			args := append(slices.Clone(heavy.args), t.unit.String())
			if err := f.measure(ctx, &o.plan, light, t, heavy.program, args); err != nil {
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				f.Failed = err.Error()
			}
			fmt.Println(" ", &f)
			all = append(all, f)
		}
	}
	return all, nil
}

// measure runs the light session alone and beside the heavy one, in turn.
func (f *fairness) measure(ctx context.Context, p *plan, light client, t *running, program string, args []string) error {
	var alone, beside []float64
	for range p.moreRounds {
		s, err := light(ctx, t, p.moreLength)
		if err != nil {
			return err
		}
		alone = append(alone, float64(s.latency.Quantile(0.99)))
		h, err := peer.Spawn(program, args...)
		if err != nil {
			return err
		}
		s, err = light(ctx, t, p.moreLength)
		select {
		case <-h.Done():
			err = fmt.Errorf("the heavy session ended:\n%s", h.Log())
		default:
		}
		h.Kill()
		if err != nil {
			return err
		}
		beside = append(beside, float64(s.latency.Quantile(0.99)))
	}
	f.Alone, f.Beside = time.Duration(median(alone)), time.Duration(median(beside))
	f.Ratio = float64(f.Beside) / float64(f.Alone)
	return nil
}

// String is a line of the table.
func (f *fairness) String() string {
	if f.Failed != "" {
		return fmt.Sprintf("%-38s %-10s could not be run: %.200s", f.Heavy, f.Target, f.Failed)
	}
	return fmt.Sprintf("%-38s %-10s %10v %10v %6.2f  %s", f.Heavy, f.Target, f.Alone.Round(time.Microsecond), f.Beside.Round(time.Microsecond), f.Ratio, f.outcome())
}

// outcome says what became of the goal, which is gotgtd's.
func (f *fairness) outcome() string {
	switch {
	case f.Failed != "":
		return "not measured"
	case f.Target != "gotgtd":
		return ""
	case f.Ratio > fairnessGoal:
		return "NOT REACHED"
	default:
		return "reached"
	}
}
