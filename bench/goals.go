// SPDX-License-Identifier: Apache-2.0

package main

import "slices"

// metric is a figure that targets are compared by.
type metric struct {
	name   string
	fewer  bool // less is better
	figure func(*figures) (float64, bool)
}

var (
	throughput = metric{"commands per second", false, func(f *figures) (float64, bool) { return f.IOPS, f.IOPS > 0 }}
	cpuPerIO   = metric{"target CPU per command", true, func(f *figures) (float64, bool) {
		if f.CPU == nil {
			return 0, false
		}
		return *f.CPU, *f.CPU > 0
	}}
	tail = metric{"p99.9 latency", true, func(f *figures) (float64, bool) {
		if f.P999 == nil {
			return 0, false
		}
		return f.P999.Seconds(), *f.P999 > 0
	}}
)

// ceiling is the name by which -peer introduces the program that does the least
// that any target must do.
const ceiling = "ceiling"

// spdkMemory is the name by which -peer introduces SPDK with a disk in memory,
// which polls: gotgtd's throughput is to be within a fifth of its.
const spdkMemory = "spdk-malloc"

// A goal bounds the ratio of gotgtd's figure to another target's.
type goal struct {
	workload, client string
	metric           metric
	bounds           map[string]float64 // by target; at least, or at most if fewer is better; 1 for targets not named
}

// goals are what gotgtd is to reach.
var goals = []goal{
	{readName(1), clientPerf, throughput, map[string]float64{"tgt": 1.5, ceiling: 0.85}},
	{readName(32), clientPerf, throughput, map[string]float64{"tgt": 3.5, ceiling: 0.80}},
	{writeName(32), clientQEMU, throughput, map[string]float64{"tgt": 2.5, ceiling: 0.80}},
	{sequentialRead, clientPerf, throughput, map[string]float64{"tgt": 2.0, ceiling: 0.85}},
	{sequentialWrite, clientQEMU, throughput, map[string]float64{"tgt": 3.3, ceiling: 0.80}},
	{readName(32), clientPerf, cpuPerIO, map[string]float64{"tgt": 0.30, ceiling: 2.5}},
	{readName(1), clientLoad, tail, map[string]float64{"tgt": 1, ceiling: 2}},
}

// verdict is what became of a goal against one target.
type verdict struct {
	Workload string  `json:"workload"`
	Client   string  `json:"client"`
	Metric   string  `json:"metric"`
	Against  string  `json:"against"`
	Bound    float64 `json:"bound"` // of the ratio
	AtMost   bool    `json:"at_most"`
	Ratio    float64 `json:"ratio,omitempty"`
	Measured bool    `json:"measured"`
	Reached  bool    `json:"reached"`
}

// outcome says what became of it in words.
func (v *verdict) outcome() string {
	switch {
	case !v.Measured:
		return "not measured"
	case v.Reached:
		return "reached"
	default:
		return "NOT REACHED"
	}
}

// judge holds the results against the goals, for every other target in the run;
// and for those of the goals that are not in it.
func judge(results []*result, targets []string) (all []verdict) {
	against := []string{"tgt", ceiling}
	for _, t := range targets {
		if t != "gotgtd" && !slices.Contains(against, t) {
			against = append(against, t)
		}
	}
	for _, g := range goals {
		for _, t := range against {
			all = append(all, g.judge(results, t))
		}
	}
	return all
}

func (g *goal) judge(results []*result, against string) verdict {
	v := verdict{Workload: g.workload, Client: g.client, Metric: g.metric.name, Against: against, Bound: 1, AtMost: g.metric.fewer}
	if bound, ok := g.bounds[against]; ok {
		v.Bound = bound
	} else if against == spdkMemory && !g.metric.fewer {
		v.Bound = 0.80
	}
	for _, r := range results {
		if r.Workload == g.workload && r.Client == g.client {
			v.Ratio, v.Measured = r.ratio(g.metric, against)
		}
	}
	v.Reached = v.Measured && (v.AtMost && v.Ratio <= v.Bound || !v.AtMost && v.Ratio >= v.Bound)
	return v
}

// ratio returns gotgtd's figure over another target's.
func (r *result) ratio(m metric, against string) (float64, bool) {
	own, other := r.Figures["gotgtd"], r.Figures[against]
	if own == nil || other == nil {
		return 0, false
	}
	a, ok := m.figure(own)
	b, ok2 := m.figure(other)
	if !ok || !ok2 {
		return 0, false
	}
	return a / b, true
}
