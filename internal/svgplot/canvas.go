// SPDX-License-Identifier: Apache-2.0

package svgplot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

const (
	defaultWidth, defaultHeight = 860, 420

	marginTop, marginRight, marginBottom, marginLeft = 40, 16, 76, 74

	barRoom = 0.8 // part of the distance between two groups that bars fill
)

// canvas turns values into places, and shapes into text.
type canvas struct {
	plot       *Plot
	text       strings.Builder
	x, y       span
	bar        int // series of bars
	left, top  float64
	wide, high float64 // size of the area within the axes
	lines      [][]entry
}

func newCanvas(p *Plot) (*canvas, error) {
	c := &canvas{plot: p, left: marginLeft, top: marginTop}
	var err error
	if c.x, c.y, err = p.bounds(); err != nil {
		return nil, err
	}
	width, height := p.Width, p.Height
	if width == 0 {
		width = defaultWidth
	}
	if height == 0 {
		height = defaultHeight
	}
	c.wide, c.high = float64(width-marginLeft-marginRight), float64(height-marginTop-marginBottom)
	if c.wide <= 0 || c.high <= 0 {
		return nil, fmt.Errorf("%d by %d pixels have no room for a diagram", width, height)
	}
	for _, s := range p.Series {
		if s.Kind == Bars {
			c.bar++
		}
	}
	c.lines = p.legend(c.wide)
	height += (len(c.lines) - 1) * lineHeight
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`,
		width, height, width, height)
	c.add(`<rect width="100%%" height="100%%" fill="white"/>`)
	return c, nil
}

func (c *canvas) add(format string, args ...any) {
	fmt.Fprintf(&c.text, format+"\n", args...)
}

// words adds text; anchor is start, middle or end.
func (c *canvas) words(x, y float64, anchor, text, more string) {
	c.add(`<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`, x, y, anchor, more, html.EscapeString(text))
}

func (c *canvas) atX(v float64) float64 { return c.left + c.wide*c.x.place(v) }
func (c *canvas) atY(v float64) float64 { return c.top + c.high*(1-c.y.place(v)) }

// frame draws the axes, what is written at them, and the title.
func (c *canvas) frame() {
	bottom := c.top + c.high
	for _, v := range c.y.ticks() {
		y := c.atY(v)
		c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/>`, c.left, y, c.left+c.wide, y)
		c.words(c.left-6, y+4, "end", c.plot.Y.label(v), "")
	}
	for _, v := range c.xTicks() {
		x := c.atX(v)
		c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="black"/>`, x, bottom, x, bottom+4)
		c.words(x, bottom+18, "middle", c.plot.X.label(v), "")
	}
	c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="none" stroke="black"/>`, c.left, c.top, c.wide, c.high)
	c.words(c.left, c.top-16, "start", c.plot.Title, ` font-size="15" font-weight="bold"`)
	c.words(c.left+c.wide/2, bottom+38, "middle", c.plot.X.Label, "")
	x, y := 18.0, c.top+c.high/2
	c.words(x, y, "middle", c.plot.Y.Label, fmt.Sprintf(` transform="rotate(-90 %.1f %.1f)"`, x, y))
}

// xTicks are the named values of the x axis: each name, or round numbers.
func (c *canvas) xTicks() []float64 {
	if c.plot.X.Names == nil {
		return c.x.ticks()
	}
	var ticks []float64
	for i := range c.plot.X.Names {
		if v := float64(i); c.x.shows(v) {
			ticks = append(ticks, v)
		}
	}
	return ticks
}

func (c *canvas) marks() {
	for _, m := range c.plot.Marks {
		if !c.x.shows(m.X) || c.x.log && m.X <= 0 {
			continue
		}
		x := c.atX(m.X)
		c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="4 3"/>`, x, c.top, x, c.top+c.high, m.color())
	}
}

func (m Mark) color() string {
	if m.Color != "" {
		return html.EscapeString(m.Color)
	}
	return "gray"
}

// visible reports whether a point has a place in the diagram.
func (c *canvas) visible(p Point) bool { return c.x.shows(p.X) && c.y.shows(p.Y) }

func (c *canvas) dots(s Series, color string) {
	c.add(`<g fill="%s">`, html.EscapeString(color))
	for _, p := range s.Points {
		if c.visible(p) {
			c.add(`<circle cx="%.1f" cy="%.1f" r="1.6"/>`, c.atX(p.X), c.atY(p.Y))
		}
	}
	c.add(`</g>`)
	c.whiskers(s, color, 0)
}

func (c *canvas) line(s Series, color string) {
	var places []string
	for _, p := range s.Points {
		if c.visible(p) {
			places = append(places, fmt.Sprintf("%.1f,%.1f", c.atX(p.X), c.atY(p.Y)))
		}
	}
	c.add(`<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"/>`, strings.Join(places, " "), html.EscapeString(color))
	c.whiskers(s, color, 0)
}

// bars draws the nth series of bars.
func (c *canvas) bars(s Series, color string, n int) {
	width := barRoom / float64(c.bar)
	shift := -barRoom/2 + width*(float64(n)+0.5)
	for _, p := range s.Points {
		if c.y.log && p.Y <= 0 || !c.x.shows(p.X) {
			continue
		}
		zero := c.y.low
		if !c.y.log {
			zero = min(max(0, c.y.low), c.y.high)
		}
		from, to := c.atY(zero), c.atY(min(max(p.Y, c.y.low), c.y.high))
		x := c.atX(p.X + shift - width/2)
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`,
			x, min(from, to), c.atX(p.X+shift+width/2)-x, math.Abs(from-to), html.EscapeString(color), html.EscapeString(c.plot.Y.label(p.Y)))
	}
	c.whiskers(s, "black", shift)
}

func (c *canvas) whiskers(s Series, color string, shift float64) {
	for _, p := range s.Points {
		if p.High <= p.Low || !c.y.shows(p.Low) || !c.y.shows(p.High) || !c.x.shows(p.X) {
			continue
		}
		x, low, high := c.atX(p.X+shift), c.atY(p.Low), c.atY(p.High)
		c.add(`<path d="M%.1f %.1fV%.1fM%.1f %.1fh6M%.1f %.1fh6" stroke="%s" fill="none"/>`, x, low, high, x-3, low, x-3, high, html.EscapeString(color))
	}
}

// entry is a line of the legend: a name and the shape that stands for it, with room for its
// place and colour.
type entry struct {
	name, color, shape string
}

// width is about how much room the entry takes, in pixels.
func (e entry) width() float64 { return 34 + 7*float64(len([]rune(e.name))) }

// lineHeight is the distance of two lines of the legend, in pixels.
const lineHeight = 20

// legend returns what names the series and the marks, in lines that are not wider than the
// diagram, unless a single name is.
func (p *Plot) legend(wide float64) [][]entry {
	var entries []entry
	for i, s := range p.Series {
		if s.Name != "" {
			entries = append(entries, entry{s.Name, html.EscapeString(p.color(i)), `<circle cx="%.1f" cy="%.1f" r="5" transform="translate(7 0)" fill="%s"/>`})
		}
	}
	named := make(map[string]bool)
	for _, m := range p.Marks {
		if m.Name != "" && !named[m.Name] {
			named[m.Name] = true
			entries = append(entries, entry{m.Name, m.color(), `<path d="M0 -6v12" transform="translate(7 0) translate(%.1f %.1f)" stroke-dasharray="4 3" stroke="%s"/>`})
		}
	}
	lines, left := [][]entry{nil}, wide
	for _, e := range entries {
		last := len(lines) - 1
		if e.width() > left && len(lines[last]) > 0 {
			lines, left = append(lines, nil), wide
			last++
		}
		lines[last] = append(lines[last], e)
		left -= e.width()
	}
	return lines
}

// explain writes the legend below the diagram.
func (c *canvas) explain() {
	for n, line := range c.lines {
		x, y := c.left, c.top+c.high+60+float64(n*lineHeight)
		for _, e := range line {
			c.add(e.shape, x, y, e.color)
			c.words(x+18, y+4, "start", e.name, "")
			x += e.width()
		}
	}
}
