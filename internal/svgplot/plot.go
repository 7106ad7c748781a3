// SPDX-License-Identifier: Apache-2.0

// Package svgplot draws diagrams as SVG: lines, points and groups of bars over
// linear or logarithmic axes, with vertical marks. The pictures stand on their
// own: no script, no style sheet, no font but the viewer's.
package svgplot

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// Kind is how a series is drawn.
type Kind int

// The kinds of series.
const (
	Line    Kind = iota // points joined in their order
	Scatter             // points alone
	Bars                // a bar from the axis up to each point, beside those of the other series
)

// Point is one value. Where High is above Low, a whisker is drawn from one to
// the other.
type Point struct {
	X, Y      float64
	Low, High float64
}

// Series is values that belong together.
type Series struct {
	Name   string // in the legend; empty: not there
	Kind   Kind
	Points []Point
	Color  string // of CSS; empty: the next of the palette
}

// Mark is a vertical line at X. Marks of one name share one entry in the legend.
type Mark struct {
	Name  string
	X     float64
	Color string // of CSS; empty: gray
}

// Axis is one direction of the diagram.
type Axis struct {
	Label string
	// Log spaces values by their logarithm; what is not above zero is left out.
	Log bool
	// Min and Max bound the axis. Both zero: what the data needs.
	Min, Max float64
	// Names are the names of the values 0, 1, 2, as bars have them; nil: numbers.
	Names []string
	// Format prints a value at the axis; nil: the shortest way, with k, M, m or µ.
	Format func(float64) string
}

// Plot is a diagram.
type Plot struct {
	Title  string
	X, Y   Axis
	Series []Series
	Marks  []Mark
	// Width and Height are in pixels; zero means 860 and 420. A legend of more than
	// one line adds to the height.
	Width, Height int
}

// palette is told apart by people who do not see all colours.
var palette = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"}

func (p *Plot) color(i int) string {
	if c := p.Series[i].Color; c != "" {
		return c
	}
	return palette[i%len(palette)]
}

// ErrEmpty is the error of a plot in which there is nothing to be seen.
var ErrEmpty = errors.New("the plot has no value that can be drawn")

// WriteSVG writes the diagram. It is an error if there is nothing to draw, if a
// value is no finite number, or if w fails.
func (p *Plot) WriteSVG(w io.Writer) error {
	c, err := newCanvas(p)
	if err != nil {
		return fmt.Errorf("can't draw %q: %w", p.Title, err)
	}
	c.frame()
	c.marks()
	bars := 0
	for i, s := range p.Series {
		switch s.Kind {
		case Bars:
			c.bars(s, c.plot.color(i), bars)
			bars++
		case Line:
			c.line(s, c.plot.color(i))
		default:
			c.dots(s, c.plot.color(i))
		}
	}
	c.explain()
	c.text.WriteString("</svg>\n")
	if _, err := io.WriteString(w, c.text.String()); err != nil {
		return fmt.Errorf("can't write %q: %w", p.Title, err)
	}
	return nil
}

// bounds finds what both axes have to show.
func (p *Plot) bounds() (x, y span, err error) {
	x, y = emptySpan(p.X.Log), emptySpan(p.Y.Log)
	for _, s := range p.Series {
		for _, pt := range s.Points {
			for _, v := range []float64{pt.X, pt.Y, pt.Low, pt.High} {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					return x, y, fmt.Errorf("series %q has the value %v", s.Name, v)
				}
			}
			if s.Kind == Bars {
				x.include(pt.X - 0.5)
				x.include(pt.X + 0.5)
				y.include(0)
			}
			x.include(pt.X)
			y.include(pt.Y)
			if pt.High > pt.Low {
				y.include(pt.Low)
				y.include(pt.High)
			}
		}
	}
	if x.empty() || y.empty() {
		return x, y, ErrEmpty
	}
	for _, m := range p.Marks {
		if math.IsNaN(m.X) || math.IsInf(m.X, 0) {
			return x, y, fmt.Errorf("mark %q is at %v", m.Name, m.X)
		}
		x.include(m.X)
	}
	x.settle(p.X, len(p.X.Names) > 0)
	y.settle(p.Y, false)
	return x, y, nil
}
