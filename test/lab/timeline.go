// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"os"
	"time"

	"github.com/gotgtd/gotgtd/internal/svgplot"
	"github.com/gotgtd/gotgtd/test/lab/latency"
)

// window is the time whose operations are drawn as two points, the slowest one
// and the median: a point for each would make a picture of megabytes.
const window = 250 * time.Millisecond

// draw writes the picture of the latencies over time.
func (r *report) draw(file string) error {
	plot := svgplot.Plot{
		Title: "lab-" + r.suite.Name + ": latency of 4 KiB reads and writes in the machine",
		X:     svgplot.Axis{Label: "time, s"},
		Y:     svgplot.Axis{Label: "latency, s", Log: true},
		Width: 1100,
	}
	for _, l := range r.loads {
		plot.Series = append(plot.Series,
			svgplot.Series{Name: l.name + ", median of 250 ms", Kind: svgplot.Scatter, Points: r.points(l, latency.Summary.MedianSeconds)},
			svgplot.Series{Name: l.name + ", slowest of 250 ms", Kind: svgplot.Scatter, Points: r.points(l, latency.Summary.MaxSeconds)})
	}
	colors := map[string]string{}
	for _, m := range r.marks {
		if _, ok := colors[m.event]; !ok {
			colors[m.event] = markColors[len(colors)%len(markColors)]
		}
		plot.Marks = append(plot.Marks, svgplot.Mark{Name: m.event, X: m.at.Sub(r.start).Seconds(), Color: colors[m.event]})
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(plot.WriteSVG(f), f.Close())
}

// markColors differ from those of the points.
var markColors = []string{"#888888", "#cc3311", "#33aa33", "#8855cc", "#aa7700", "#0099aa", "#ee66aa", "#556600", "#000099"}

// points makes a point of each window in which an operation began.
func (r *report) points(l loadReport, value func(latency.Summary) float64) []svgplot.Point {
	var points []svgplot.Point
	for ops := l.operations; len(ops) > 0; {
		end := ops[0].Start.Add(window)
		n := 1
		for n < len(ops) && ops[n].Start.Before(end) {
			n++
		}
		at := ops[0].Start.Sub(r.start).Seconds()
		points = append(points, svgplot.Point{X: at, Y: value(latency.Summarize(ops[:n]))})
		ops = ops[n:]
	}
	return points
}
