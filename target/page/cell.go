// SPDX-License-Identifier: Apache-2.0

package page

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/handoff"
)

// kind is how a column is shown.
type kind string

// Kinds of columns. The script knows them by these names.
const (
	kindText   kind = "text"
	kindName   kind = "name"   // long, and may be broken anywhere
	kindNumber kind = "number" // sorted by its value
	kindState  kind = "state"
	kindMoment kind = "moment" // date and time
	kindAge    kind = "age"    // the value is a time, in seconds since 1970
	kindLoads  kind = "loads"  // empty; the script draws the graph
	kindWaits  kind = "waits"  // likewise
	kindPhases kind = "phases" // of an upgrade; the script draws a bar
)

// mark is what a cell is shown with besides its text, which says the same.
type mark string

// Marks, which are classes of the style sheet.
const (
	plain mark = ""
	good  mark = "good"
	warn  mark = "warn"
	bad   mark = "bad"
	dim   mark = "dim"
)

// cell is what stands in one place.
type cell struct {
	Text  string
	Value float64 // what a number is sorted by, and what an age is counted from
	Mark  mark
	Parts []float64 // how long each of the phases in the text took, in ms; below zero: outside of the pause
}

// same tells whether there is nothing to tell the script, which counts ages itself.
func (c *cell) same(as *cell, k kind) bool {
	return c.Value == as.Value && c.Mark == as.Mark && (c.Text == as.Text || k == kindAge) && slices.Equal(c.Parts, as.Parts)
}

// event is the cell as the script gets it: number of the column, text, value, mark, parts.
func (c *cell) event(column int) []any {
	e := []any{column, c.Text, c.Value}
	if c.Mark != plain || c.Parts != nil {
		e = append(e, c.Mark)
	}
	if c.Parts != nil {
		e = append(e, c.Parts)
	}
	return e
}

func text(s string) cell { return cell{Text: printable(s)} }

// number is a text with what it is sorted by; zero is shown so that it does not catch the eye.
func number(s string, v float64) cell {
	c := cell{Text: s, Value: math.Round(v*100) / 100}
	if v == 0 {
		c.Mark = dim
	}
	return c
}

func countCell[N int | uint64](n N) cell { return number(count(n), float64(n)) }

func sizeCell[N int64 | uint64](n N) cell { return number(size(float64(n)), float64(n)) }

// unknown is the cell of a rate that is not known yet.
func unknown() cell { return cell{Text: "–", Value: -1, Mark: dim} }

// since is the cell of something that began then.
func since(t, now time.Time) cell {
	return cell{Text: age(now.Sub(t)), Value: float64(t.Unix())}
}

// rateCells are bytes read, bytes written and commands in a second.
func rateCells(r rate, known bool) [3]cell {
	if !known {
		return [3]cell{unknown(), unknown(), unknown()}
	}
	return [3]cell{number(size(r.read)+"/s", r.read), number(size(r.written)+"/s", r.written), number(perSecond(r.commands), r.commands)}
}

// tookCell is a duration, none if nothing has taken any time.
func tookCell(d time.Duration) cell {
	if d <= 0 {
		return unknown()
	}
	return cell{Text: took(d), Value: float64(d.Microseconds())}
}

// phasesCell has the phases of an upgrade, in their order.
func phasesCell(phases []handoff.Phase) cell {
	c := cell{}
	for i, p := range phases {
		if i > 0 {
			c.Text += ", "
		}
		c.Text += strings.ReplaceAll(printable(p.Name), ",", " ") + " " + took(p.Duration) // the script tells the texts apart by commas
		ms := float64(p.Duration.Microseconds()) / 1000
		if p.Name == "start" || p.Name == "rest" { // the predecessor serves, or the successor does
			ms = -1
		}
		c.Parts = append(c.Parts, ms)
	}
	return c
}
