// SPDX-License-Identifier: Apache-2.0

package histogram

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// near reports whether got is want, to within 1 % and 1 ns.
func near(got, want time.Duration) bool {
	return math.Abs(float64(got-want)) <= 0.01*float64(want)+1
}

// Every quantile is that of the sorted list, and the mean and the longest are theirs.
func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(Max)), 1, 200).Draw(t, "values")
		var a, b Histogram
		sum := 0.0
		for i, v := range values {
			[]*Histogram{&a, &b}[i%2].Record(time.Duration(v))
			sum += float64(v)
		}
		a.Merge(&b)
		slices.Sort(values)
		n := rapid.IntRange(0, len(values)-1).Draw(t, "n")
		q := float64(n+1) / float64(len(values))
		if want, got := time.Duration(values[n]), a.Quantile(q); !near(got, want) {
			t.Fatalf("quantile %v of %v is %v, want %v", q, values, got, want)
		}
		if mean := time.Duration(sum / float64(len(values))); !near(a.Mean(), mean) {
			t.Fatalf("mean of %v is %v, want %v", values, a.Mean(), mean)
		}
		if a.Max() != time.Duration(values[len(values)-1]) || a.Count() != uint64(len(values)) {
			t.Fatalf("max %v, count %v of %v", a.Max(), a.Count(), values)
		}
	})
}

func TestEmptyAndLimits(t *testing.T) {
	var h, other Histogram
	h.Merge(&other)
	h.Merge(nil)
	if h.Count() != 0 || h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Max() != 0 || h.Corrected(1).Count() != 0 {
		t.Fatalf("an empty histogram has %d, median %v, mean %v, max %v", h.Count(), h.Quantile(0.5), h.Mean(), h.Max())
	}
	h.Record(-time.Second)
	h.Record(24 * time.Hour)
	if h.Quantile(0) != 0 || h.Max() != Max || h.Quantile(1) != Max || h.Count() != 2 {
		t.Fatalf("from %v to %v, max %v, want 0 and %v", h.Quantile(0), h.Quantile(1), h.Max(), Max)
	}
}

// One stall of 100 intervals stands for the 99 operations that it held up.
func TestCorrected(t *testing.T) {
	var h Histogram
	h.Record(100 * time.Millisecond)
	c := h.Corrected(time.Millisecond)
	if c.Count() != 100 {
		t.Fatalf("%d counted, want 100", c.Count())
	}
	if m := c.Quantile(0.5); !near(m, 50*time.Millisecond) {
		t.Fatalf("median %v, want 50 ms", m)
	}
	if same := h.Corrected(0); same.Count() != 1 || same.Max() != h.Max() {
		t.Errorf("without an interval %d counted up to %v, want 1 up to %v", same.Count(), same.Max(), h.Max())
	}
}
