// SPDX-License-Identifier: Apache-2.0

package svgplot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
)

// element is what the tests look at of an SVG element.
type element struct {
	name string
	attr map[string]string
	text string
}

func (e *element) number(t *testing.T, name string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(e.attr[name], 64)
	if err != nil {
		t.Fatalf("%s of %v: %v", name, e, err)
	}
	return v
}

// draw draws a plot and reads it as a viewer does.
func draw(t *testing.T, p *Plot) []element {
	t.Helper()
	var b strings.Builder
	if err := p.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	var all []element
	d := xml.NewDecoder(strings.NewReader(b.String()))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{name: token.Name.Local, attr: make(map[string]string)}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			all = append(all, e)
		case xml.CharData:
			if len(all) > 0 {
				all[len(all)-1].text += strings.TrimSpace(string(token))
			}
		}
	}
}

func named(all []element, name string) []element {
	var found []element
	for _, e := range all {
		if e.name == name {
			found = append(found, e)
		}
	}
	return found
}

func hasText(all []element, text string) bool {
	for _, e := range all {
		if e.name == "text" && e.text == text {
			return true
		}
	}
	return false
}

func TestLogarithmicScatter(t *testing.T) {
	all := draw(t, &Plot{
		Title: `I/O & "pauses" <ms>`,
		X:     Axis{Label: "seconds"},
		Y:     Axis{Label: "latency", Log: true},
		Series: []Series{
			{Name: "read", Kind: Scatter, Points: []Point{{X: 0, Y: 0.001}, {X: 50, Y: 0.01}, {X: 100, Y: 0.1}, {X: 60, Y: 0}}},
		},
		Marks: []Mark{{Name: "upgrade", X: 20}, {Name: "upgrade", X: 40}, {Name: "migration", X: 70, Color: "hsl(0,50%,50%)"}},
	})
	var dots []element
	for _, e := range named(all, "circle") {
		if e.attr["r"] == "1.6" {
			dots = append(dots, e)
		}
	}
	if len(dots) != 3 {
		t.Fatalf("%d dots, want 3: zero has no logarithm", len(dots))
	}
	// Equal factors are equal distances, and more is higher.
	d1 := dots[0].number(t, "cy") - dots[1].number(t, "cy")
	d2 := dots[1].number(t, "cy") - dots[2].number(t, "cy")
	if d1 <= 0 || math.Abs(d1-d2) > 0.2 {
		t.Errorf("distances of tenfold values are %.1f and %.1f", d1, d2)
	}
	for _, text := range []string{`I/O & "pauses" <ms>`, "seconds", "latency", "1m", "10m", "100m", "read", "upgrade", "migration"} {
		if !hasText(all, text) {
			t.Errorf("%q is not in the picture", text)
		}
	}
	marks, colored := 0, 0
	for _, e := range named(all, "line") {
		if e.attr["stroke-dasharray"] != "" {
			marks++
		}
		if e.attr["stroke"] == "hsl(0,50%,50%)" {
			colored++
		}
	}
	if marks != 3 || colored != 1 {
		t.Errorf("%d marks and %d of the given color, want 3 and 1", marks, colored)
	}
}

func TestBarsStandSideBySideFromZero(t *testing.T) {
	all := draw(t, &Plot{
		X: Axis{Names: []string{"read", "write"}},
		Series: []Series{
			{Name: "a", Kind: Bars, Points: []Point{{X: 0, Y: 100}, {X: 1, Y: 50, Low: 40, High: 60}}},
			{Name: "b", Kind: Bars, Points: []Point{{X: 0, Y: 200}, {X: 1, Y: 25}}},
		},
	})
	var bars []element
	for _, e := range named(all, "rect") {
		if fill := e.attr["fill"]; strings.HasPrefix(fill, "#") {
			bars = append(bars, e)
		}
	}
	if len(bars) != 4 {
		t.Fatalf("%d bars, want 4", len(bars))
	}
	if a, b := bars[0].number(t, "height"), bars[2].number(t, "height"); math.Abs(2*a-b) > 0.2 {
		t.Errorf("heights %.1f and %.1f for 100 and 200", a, b)
	}
	if end, next := bars[0].number(t, "x")+bars[0].number(t, "width"), bars[2].number(t, "x"); math.Abs(end-next) > 0.2 {
		t.Errorf("a bar ends at %.1f, its neighbour begins at %.1f", end, next)
	}
	if len(named(all, "path")) != 1 {
		t.Errorf("%d whiskers, want 1", len(named(all, "path")))
	}
	for _, text := range []string{"read", "write", "a", "b", "200"} {
		if !hasText(all, text) {
			t.Errorf("%q is not in the picture", text)
		}
	}
}

func TestLinesKeepTheirOrder(t *testing.T) {
	all := draw(t, &Plot{Series: []Series{{Kind: Line, Points: []Point{{X: 1, Y: 1}, {X: 2, Y: 4}, {X: 3, Y: 9}}}}})
	lines := named(all, "polyline")
	if len(lines) != 1 || len(strings.Fields(lines[0].attr["points"])) != 3 {
		t.Fatalf("lines %v, want one of 3 points", lines)
	}
}

func TestAxisBounds(t *testing.T) {
	all := draw(t, &Plot{
		Y:      Axis{Min: 0, Max: 10},
		Series: []Series{{Kind: Scatter, Points: []Point{{X: 0, Y: 5}, {X: 1, Y: 20}}}},
	})
	if n := len(named(all, "circle")); n != 1 {
		t.Errorf("%d points are drawn, want the one within the axis", n)
	}
}

func TestNothingToDraw(t *testing.T) {
	for _, tc := range []struct {
		name string
		plot Plot
		want string
	}{
		{"no series", Plot{}, ErrEmpty.Error()},
		{"no point", Plot{Series: []Series{{}}}, ErrEmpty.Error()},
		{"nothing above zero", Plot{Y: Axis{Log: true}, Series: []Series{{Points: []Point{{X: 1}}}}}, ErrEmpty.Error()},
		{"not a number", Plot{Series: []Series{{Name: "s", Points: []Point{{X: math.NaN()}}}}}, `series "s" has the value NaN`},
		{"endless mark", Plot{Series: []Series{{Points: []Point{{X: 1, Y: 1}}}}, Marks: []Mark{{Name: "m", X: math.Inf(1)}}}, `mark "m" is at +Inf`},
		{"no room", Plot{Width: 50, Series: []Series{{Points: []Point{{X: 1, Y: 1}}}}}, "no room"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.plot.WriteSVG(io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestTicks(t *testing.T) {
	for _, tc := range []struct {
		low, high float64
		log       bool
		want      string
	}{
		{0, 100, false, "0 20 40 60 80 100"},
		{0, 1, false, "0 200m 400m 600m 800m 1"},
		{-30000, 10000, false, "-30k -25k -20k -15k -10k -5k 0 5k 10k"},
		{1e-6, 1e-2, true, "1µ 10µ 100µ 1m 10m"},
		{1, 1e9, true, "1 10 100 1k 10k 100k 1M 10M 100M 1G"},
	} {
		s := span{tc.low, tc.high, tc.log}
		var got []string
		for _, v := range s.ticks() {
			got = append(got, short(v))
		}
		if g := strings.Join(got, " "); g != tc.want {
			t.Errorf("ticks of %v: %s, want %s", s, g, tc.want)
		}
	}
}

func TestAnErrorOfTheWriterIsReported(t *testing.T) {
	p := Plot{Title: "t", Series: []Series{{Points: []Point{{X: 1, Y: 1}}}}}
	r, w := io.Pipe()
	r.Close()
	if err := p.WriteSVG(w); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

func TestLegendStaysInThePicture(t *testing.T) {
	p := &Plot{Title: "t"}
	for i := range 5 {
		p.Series = append(p.Series, Series{Name: strings.Repeat("n", 40) + strconv.Itoa(i), Points: []Point{{X: 1, Y: 1}, {X: 2, Y: 2}}})
	}
	all := draw(t, p)
	svg := all[0]
	width, height := svg.number(t, "width"), svg.number(t, "height")
	names := 0
	for _, e := range all {
		if e.name != "text" || !strings.HasPrefix(e.text, "nnn") {
			continue
		}
		names++
		if right := e.number(t, "x") + 7*float64(len(e.text)); right > width {
			t.Errorf("%q ends at %v of %v", e.text, right, width)
		}
		if y := e.number(t, "y"); y > height {
			t.Errorf("%q is at %v of %v", e.text, y, height)
		}
	}
	if names != 5 {
		t.Errorf("%d names, not 5", names)
	}
}
