// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// fairnessGoal is how many times its p99 alone the p99 of a light session may
// be beside a heavy one.
const fairnessGoal = 5

type heavySession struct {
	name    string
	program string
	args    []string // and the unit
}

// heavies are the heavy sessions, each a process of its own so that only the
// target is shared with the light one; and the machine's cores.
var heavies = []heavySession{
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
	// Elsewhere is the p99 while the heavy session is at another process of
	// gotgtd: what the machine, not the target, makes the light one wait.
	Elsewhere time.Duration `json:"p99_elsewhere_ns"`
	Ratio     float64       `json:"ratio"` // of Beside to Alone
	Failed    string        `json:"failed,omitempty"`
}

// measureFairness measures the p99 of a session at depth 1 alone and beside a
// heavy one, on each target.
func measureFairness(ctx context.Context, o *options, targets []running, dir string) (all []fairness, err error) {
	other, err := startGotgtd(ctx, filepath.Join(dir, programName), filepath.Join(dir, "other"), o.plan.diskSize)
	if err != nil {
		return nil, err
	}
	defer other.stop()
	light := load(loadOptions{bytes: small, reads: 100, depth: 1})
	if o.plan.goalsOnly {
		targets = targets[:1] // the goal is gotgtd's
	}
	fmt.Printf("random read 4 KiB, depth 1: p99 alone, beside a heavy session, and with that at another process; goal at most %d times\n", fairnessGoal)
	for _, heavy := range heavies[:o.plan.heavies] {
		for i := range targets {
			t := &targets[i]
			f := fairness{Target: t.name, Heavy: heavy.name}
			if err := f.measure(ctx, &o.plan, light, t, heavy, other.unit); err != nil {
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

// measure runs the light session alone, beside the heavy one, and with that at
// another target, in turn.
func (f *fairness) measure(ctx context.Context, p *plan, light client, t *running, heavy heavySession, elsewhere unit) error {
	var alone, beside, apart []float64
	for range p.moreRounds {
		s, err := light(ctx, t, p.moreLength)
		if err != nil {
			return err
		}
		alone = append(alone, float64(s.latency.Quantile(0.99)))
		for _, m := range []struct {
			unit unit
			p99s *[]float64
		}{{t.unit, &beside}, {elsewhere, &apart}} {
			p99, err := heavy.beside(m.unit, func() (*sample, error) { return light(ctx, t, p.moreLength) })
			if err != nil {
				return err
			}
			*m.p99s = append(*m.p99s, p99)
		}
	}
	f.Alone, f.Beside, f.Elsewhere = time.Duration(median(alone)), time.Duration(median(beside)), time.Duration(median(apart))
	f.Ratio = float64(f.Beside) / float64(f.Alone)
	return nil
}

// beside returns the p99 of light while the heavy session is at a unit.
func (h *heavySession) beside(u unit, light func() (*sample, error)) (float64, error) {
	p, err := peer.Spawn(h.program, append(slices.Clone(h.args), u.String())...)
	if err != nil {
		return 0, err
	}
	defer p.Kill()
	s, err := light()
	if err != nil {
		return 0, err
	}
	select {
	case <-p.Done():
		return 0, fmt.Errorf("the heavy session ended:\n%s", p.Log())
	default:
		return float64(s.latency.Quantile(0.99)), nil
	}
}

// String is a line of the table.
func (f *fairness) String() string {
	if f.Failed != "" {
		return fmt.Sprintf("%-38s %-10s could not be run: %.200s", f.Heavy, f.Target, f.Failed)
	}
	return fmt.Sprintf("%-38s %-10s %10v %10v %10v %6.2f  %s", f.Heavy, f.Target, f.Alone.Round(time.Microsecond), f.Beside.Round(time.Microsecond),
		f.Elsewhere.Round(time.Microsecond), f.Ratio, f.outcome())
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
