// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

// maxText is the most, in bytes, that is shown of one text that comes from elsewhere.
const maxText = 1024

// printable is text of an initiator, of a configuration or of the system, fit to be shown:
// controls of the direction of writing and the like, which could make it pass for another, do not remain.
func printable(s string) string { return iscsiname.Printable(s, maxText) }

// figures writes a number with three figures that count.
func figures(v float64) string {
	switch {
	case v == math.Trunc(v) && v < 10 || v >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// size writes a number of bytes: 1.50 KiB.
func size(v float64) string {
	const units = "KMGTPE"
	unit := -1
	for v >= 1023.5 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	if unit < 0 {
		return figures(math.Round(v)) + " B"
	}
	return figures(v) + " " + units[unit:unit+1] + "iB"
}

// count writes a number of things, with commas between thousands.
func count[N int | uint64 | float64](n N) string {
	s := strconv.FormatFloat(math.Round(float64(n)), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// perSecond writes a rate of commands.
func perSecond(v float64) string {
	if v > 0 && v < 9.95 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return count(v)
}

// age writes how long something has been so, in its two largest units. The page's script has the
// same.
func age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
}

// took writes a duration that is short as a rule.
func took(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Millisecond:
		return figures(float64(d)/1e3) + " µs"
	case d < time.Second:
		return figures(float64(d)/1e6) + " ms"
	}
	return figures(d.Seconds()) + " s"
}

// moment writes a time that lies far back.
func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// list writes a few of many.
func list(all []string) string {
	const most = 4
	var b strings.Builder
	for i, s := range all {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(all)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(printable(s))
	}
	return b.String()
}
