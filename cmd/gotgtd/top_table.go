// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// topColumn is a column of top.
type topColumn struct {
	head string
	name bool // text, which is cut to what room there is; otherwise a number
	of   func(r *topRow, raw sizes) string
}

func topCell(n int) func(*topRow, sizes) string {
	return func(r *topRow, _ sizes) string { return r.cells[n] }
}

// topColumns are the columns of a view.
func topColumns(v topView) []topColumn {
	rates := []topColumn{
		{"R/s", false, func(r *topRow, _ sizes) string { return perSecond(r.rates.reads) }},
		{"W/s", false, func(r *topRow, _ sizes) string { return perSecond(r.rates.writes) }},
		{"READ/s", false, func(r *topRow, raw sizes) string { return raw.cell(int64(r.rates.readBytes)) }},
		{"WRITTEN/s", false, func(r *topRow, raw sizes) string { return raw.cell(int64(r.rates.writtenBytes)) }},
	}
	queue := topColumn{"QUEUE", false, func(r *topRow, _ sizes) string { return fmt.Sprint(r.queue) }}
	failed := topColumn{"ERR/s", false, func(r *topRow, _ sizes) string { return perSecond(r.rates.errors) }}
	switch v {
	case topSessions:
		return slices.Concat([]topColumn{{"TSIH", false, topCell(0)}, {"INITIATOR", true, topCell(1)}}, rates, []topColumn{
			queue, failed, {"AGE", false, topCell(4)}, {"TARGET", true, topCell(2)}, {"ADDRESS", true, topCell(3)},
		})
	case topInitiators:
		return slices.Concat([]topColumn{{"SESSIONS", false, topCell(1)}, {"INITIATOR", true, topCell(0)}}, rates, []topColumn{queue, failed})
	}
	return slices.Concat([]topColumn{{"LUN", false, topCell(1)}, {"TARGET", true, topCell(0)}}, rates, []topColumn{
		{"WAIT", false, func(r *topRow, _ sizes) string { return took(r.wait, r) }},
		{"DISK", false, func(r *topRow, _ sizes) string { return took(r.device, r) }},
		{"99%", false, func(r *topRow, _ sizes) string { return took(r.slowest, r) }},
		queue, failed, {"STATE", true, topCell(2)}, {"PATH", true, topCell(3)},
	})
}

// perSecond is a rate: with a decimal where it is low, so that one command in a while is to be seen.
func perSecond(n float64) string {
	if n > 0 && n < 9.95 {
		return fmt.Sprintf("%.1f", n)
	}
	return fmt.Sprintf("%.0f", n)
}

// took is a latency of a row.
func took(d time.Duration, of *topRow) string {
	switch {
	case of.device == 0: // no command has ended
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%.0fus", float64(d)/float64(time.Microsecond))
	case d < time.Second:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

// table lays out rows: numbers at the right of their columns. With a width, lines are no longer, and
// names are cut for that at their beginning, since their ends tell iSCSI names and paths apart.
func table(columns []topColumn, rows []topRow, raw sizes, width int) []string {
	cells := make([][]string, len(rows)+1)
	widths := make([]int, len(columns))
	for i := range cells {
		for j, c := range columns {
			text := c.head
			if i > 0 {
				text = c.of(&rows[i-1], raw)
			}
			cells[i] = append(cells[i], text)
			widths[j] = max(widths[j], ansi.StringWidth(text))
		}
	}
	if width > 0 {
		narrow(columns, widths, width)
	}
	lines := make([]string, len(cells))
	for i := range cells {
		var b strings.Builder
		for j, c := range columns {
			text := cells[i][j]
			if over := ansi.StringWidth(text) - widths[j]; over > 0 {
				text = ansi.TruncateLeft(text, over+1, "…")
			}
			space := strings.Repeat(" ", max(widths[j]-ansi.StringWidth(text), 0))
			switch {
			case !c.name:
				b.WriteString(space + text)
			case j < len(columns)-1:
				b.WriteString(text + space)
			default:
				b.WriteString(text)
			}
			if j < len(columns)-1 {
				b.WriteString("  ")
			}
		}
		lines[i] = strings.TrimRight(b.String(), " ")
		if width > 0 {
			lines[i] = ansi.Truncate(lines[i], width, "")
		}
	}
	return lines
}

// leastName is what a column of names keeps.
const leastName = 9

// narrow takes from the widest columns of names until all fit.
func narrow(columns []topColumn, widths []int, width int) {
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := -1
		for j, c := range columns {
			if c.name && widths[j] > leastName && (widest < 0 || widths[j] > widths[widest]) {
				widest = j
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}
