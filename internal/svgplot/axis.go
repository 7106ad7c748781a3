// SPDX-License-Identifier: Apache-2.0

package svgplot

import (
	"math"
	"strconv"
	"strings"
)

// span is the part of an axis that is shown.
type span struct {
	low, high float64
	log       bool
}

func emptySpan(log bool) span { return span{math.Inf(1), math.Inf(-1), log} }

func (s *span) empty() bool { return s.low > s.high }

// include widens the span. A logarithmic one has no place for what is not above
// zero.
func (s *span) include(v float64) {
	if s.log && v <= 0 {
		return
	}
	s.low, s.high = min(s.low, v), max(s.high, v)
}

// settle takes what the axis asks for, and rounds to what ticks can name
// unless the bounds are to be exact.
func (s *span) settle(a Axis, exact bool) {
	if a.Min != 0 || a.Max != 0 {
		s.low, s.high = a.Min, a.Max
		exact = true
	}
	switch {
	case exact && s.low < s.high && (!s.log || s.low > 0):
	case s.log:
		if s.low <= 0 {
			s.low = s.high / 1000
		}
		s.low, s.high = math.Pow(10, math.Floor(math.Log10(s.low))), math.Pow(10, math.Ceil(math.Log10(s.high)))
		if s.low == s.high {
			s.high *= 10
		}
	default:
		if s.low == s.high {
			s.low, s.high = s.low-0.5, s.high+0.5
		}
		step := s.step()
		s.low, s.high = math.Floor(s.low/step)*step, math.Ceil(s.high/step)*step
	}
}

// place returns where in the span a value is, 0 being its low end and 1 its high
// end.
func (s *span) place(v float64) float64 {
	if s.log {
		return math.Log(v/s.low) / math.Log(s.high/s.low)
	}
	return (v - s.low) / (s.high - s.low)
}

// shows reports whether a value is within the span.
func (s *span) shows(v float64) bool { return v >= s.low && v <= s.high }

// step is the distance of ticks: 1, 2 or 5 times a power of ten, so that there
// are 4 to 10.
func (s *span) step() float64 {
	raw := (s.high - s.low) / 8
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if raw <= m*power {
			return m * power
		}
	}
	return 10 * power
}

// ticks returns the values that are named at the axis.
func (s *span) ticks() []float64 {
	var ticks []float64
	if s.log {
		for e := math.Floor(math.Log10(s.low)); e <= math.Ceil(math.Log10(s.high)); e++ {
			if v := math.Pow(10, e); s.shows(v) {
				ticks = append(ticks, v)
			}
		}
		if len(ticks) > 1 {
			return ticks
		}
		ticks = nil
	}
	step := s.step()
	for i := math.Ceil(s.low/step - 1e-9); i*step <= s.high+step*1e-9; i++ {
		ticks = append(ticks, i*step)
	}
	return ticks
}

// label prints a value at the axis.
func (a *Axis) label(v float64) string {
	switch {
	case a.Names != nil:
		i := int(math.Round(v))
		if i < 0 || i >= len(a.Names) || math.Abs(v-float64(i)) > 1e-9 {
			return ""
		}
		return a.Names[i]
	case a.Format != nil:
		return a.Format(v)
	}
	return short(v)
}

// short prints a number with a prefix of the SI.
func short(v float64) string {
	if v == 0 {
		return "0"
	}
	for _, u := range []struct {
		factor float64
		prefix string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}} {
		if math.Abs(v) >= u.factor*0.9999999 {
			return trim(v/u.factor) + u.prefix
		}
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// trim prints a number of at most three decimals, without those that say nothing.
func trim(v float64) string {
	s := strconv.FormatFloat(v, 'f', 3, 64)
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	if s == "-0" {
		return "0"
	}
	return s
}
