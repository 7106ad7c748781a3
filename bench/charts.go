// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/internal/histogram"
	"github.com/gotgtd/gotgtd/internal/svgplot"
)

// draw writes the charts into files whose names begin with base. A chart
// without a value is left out.
func (r *report) draw(base string) error {
	if err := r.drawBars(base); err != nil {
		return err
	}
	for _, res := range r.Results {
		if !slices.Contains(latencyCharts, res.Workload) {
			continue
		}
		if err := draw(fmt.Sprintf("%s-latency-%s.svg", base, fileName(res.Workload)), latencyChart(res, r.Targets)); err != nil {
			return err
		}
	}
	if r.Scale == nil {
		return nil
	}
	return draw(base+"-sessions.svg", curveChart(r.Scale.Curve, r.Targets))
}

// latencyCharts are the workloads whose latencies are drawn.
var latencyCharts = []string{readName(1), readName(32), writeName(32), mixed, openLoop}

// drawBars writes the charts of throughput and CPU time.
func (r *report) drawBars(base string) error {
	results, targets := r.Results, r.Targets
	for _, who := range []struct {
		name, title string
		has         func(*result) bool
	}{
		{"clients", "iscsi-perf (reads), qemu-img bench (writes)", func(r *result) bool { return r.Client != clientLoad }},
		{"load", "load generator", func(r *result) bool { return r.Client == clientLoad }},
	} {
		pick := func(bytes int) (picked []*result) {
			for _, r := range results {
				if who.has(r) && (r.Bytes == large) == (bytes == large) {
					picked = append(picked, r)
				}
			}
			return picked
		}
		for _, c := range []struct {
			name, title, unit string
			results           []*result
			value             func(*figures) (float64, bool)
		}{
			{"throughput-small", "Commands of 4 KiB and less", "I/O per second", pick(small), throughput.figure},
			{"throughput-large", "Commands of 256 KiB", "10⁶ bytes per second", pick(large), func(f *figures) (float64, bool) { return f.MBps, f.MBps > 0 }},
			{"cpu", "CPU time of the target, commands of 4 KiB and less", "µs per command", pick(small), cpuPerIO.figure},
		} {
			p := barChart(c.results, targets, c.value)
			p.Title, p.Y.Label = c.title+", "+who.title, c.unit
			if err := draw(base+"-"+c.name+"-"+who.name+".svg", p); err != nil {
				return err
			}
		}
	}
	return nil
}

// draw writes a chart, or nothing if there is no value in it.
func draw(path string, p *svgplot.Plot) error {
	var b bytes.Buffer
	err := p.WriteSVG(&b)
	if errors.Is(err, svgplot.ErrEmpty) {
		return nil
	}
	if err != nil {
		return err
	}
	return writeFile(path, b.Bytes())
}

// Pixels of a bar chart.
const (
	groupWidth = 112
	barsMargin = 100
	leastWidth = 640
)

// barChart has a group of bars for each workload and a bar for each target.
func barChart(results []*result, targets []string, value func(*figures) (float64, bool)) *svgplot.Plot {
	p := &svgplot.Plot{Width: max(leastWidth, barsMargin+groupWidth*len(results))}
	for _, r := range results {
		p.X.Names = append(p.X.Names, shortName(r.Workload))
	}
	for _, t := range targets {
		s := svgplot.Series{Name: t, Kind: svgplot.Bars}
		for i, r := range results {
			if f := r.Figures[t]; f != nil {
				if v, ok := value(f); ok {
					s.Points = append(s.Points, svgplot.Point{X: float64(i), Y: v})
				}
			}
		}
		p.Series = append(p.Series, s)
	}
	return p
}

// shortName makes a workload's name fit under a group of bars.
var shortName = strings.NewReplacer("random ", "", "sequential ", "", " 4 KiB", "", " 256 KiB", "", "depth ", "", "sessions at", "sessions,",
	" % reads", " %", " (open loop)", "", " a second", "/s").Replace

// latencyChart has a line for each target: latency over the part of commands
// that took no longer.
func latencyChart(r *result, targets []string) *svgplot.Plot {
	p := &svgplot.Plot{
		Title: "Latency, " + r.Workload + ", " + r.Client,
		X:     svgplot.Axis{Label: "per cent of commands", Min: 0.01, Max: 4, Format: percentLabel},
		Y:     svgplot.Axis{Label: "seconds", Log: true},
	}
	for _, t := range targets {
		if f := r.Figures[t]; f != nil && f.latency != nil {
			p.Series = append(p.Series, svgplot.Series{Name: t, Points: quantiles(f.latency)})
		}
	}
	return p
}

// percentLabel names a place on the axis of nines: 1 is 90 %, 2 is 99 %.
func percentLabel(nines float64) string {
	if nines != math.Trunc(nines) {
		return ""
	}
	return fmt.Sprintf("%.4g", 100*(1-math.Pow(10, -nines)))
}

// quantiles returns the line of a histogram over the axis of nines, as far as
// there are enough commands to tell.
func quantiles(h *histogram.Histogram) (points []svgplot.Point) {
	const step, end, enough = 0.05, 4.0, 10
	for nines := step; nines <= end && float64(h.Count())*math.Pow(10, -nines) >= enough; nines += step {
		points = append(points, svgplot.Point{X: nines, Y: h.Quantile(1 - math.Pow(10, -nines)).Seconds()})
	}
	return points
}

// fileName makes a name without spaces and signs.
func fileName(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}), "-")
}
