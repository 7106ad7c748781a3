// SPDX-License-Identifier: Apache-2.0

package histogram

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every quantile is that of the sorted list, to within a bucket's width.
func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(Max)), 1, 200).Draw(t, "values")
		var h Histogram
		for _, v := range values {
			h.Record(time.Duration(v))
		}
		slices.Sort(values)
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		rank := max(1, int(math.Ceil(q*float64(len(values)))))
		want, got := float64(values[rank-1]), float64(h.Quantile(q))
		if got < want || got > want*1.01+1 {
			t.Fatalf("quantile %v of %v is %v, want %v", q, values, got, want)
		}
		if h.Min() != time.Duration(values[0]) || h.Max() != time.Duration(values[len(values)-1]) || h.Count() != uint64(len(values)) {
			t.Fatalf("min %v, max %v, count %v of %v", h.Min(), h.Max(), h.Count(), values)
		}
	})
}

func TestBucketsJoin(t *testing.T) {
	for i := range buckets - 1 {
		end := highest(i)
		if index(end) != i || index(end+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which is in bucket %d, and the next in %d", i, end, index(end), index(end+1))
		}
	}
	if highest(buckets-1) != Max {
		t.Fatalf("the last bucket ends at %v, want %v", highest(buckets-1), Max)
	}
}

func TestEmptyAndLimits(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 || h.Max() != 0 {
		t.Fatalf("an empty histogram has median %v, mean %v, max %v", h.Quantile(0.5), h.Mean(), h.Max())
	}
	h.Record(-time.Second)
	h.Record(24 * time.Hour)
	if h.Min() != 0 || h.Max() != Max {
		t.Fatalf("min %v, max %v, want 0 and %v", h.Min(), h.Max(), Max)
	}
}

func TestMergeIsRecordingTogether(t *testing.T) {
	var a, b, all Histogram
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		all.Record(d)
		if i%3 == 0 {
			a.Record(d)
		} else {
			b.Record(d)
		}
	}
	a.Merge(&b)
	a.Merge(nil)
	if a != all {
		t.Fatalf("merged: %d counts, mean %v; together: %d, %v", a.Count(), a.Mean(), all.Count(), all.Mean())
	}
	var sum uint64
	for _, n := range a.Buckets() {
		sum += n
	}
	if sum != 1000 {
		t.Fatalf("buckets hold %d, want 1000", sum)
	}
}

// One stall of 100 intervals stands for the 99 operations that it held up.
func TestRecordCorrected(t *testing.T) {
	var h Histogram
	h.RecordCorrected(100*time.Millisecond, time.Millisecond)
	if h.Count() != 100 {
		t.Fatalf("%d counted, want 100", h.Count())
	}
	if m := h.Quantile(0.5); m < 49*time.Millisecond || m > 51*time.Millisecond {
		t.Fatalf("median %v, want 50 ms", m)
	}
	h.RecordCorrected(time.Second, 0)
	if h.Count() != 101 {
		t.Fatalf("%d counted, want 101", h.Count())
	}
}

func TestCorrectedAfterwards(t *testing.T) {
	var raw, want Histogram
	for i := range 200 {
		d := time.Duration(i*i) * time.Microsecond
		raw.Record(d)
		want.RecordCorrected(d, time.Millisecond)
	}
	got := raw.Corrected(time.Millisecond)
	if n := float64(got.Count()) / float64(want.Count()); n < 0.99 || n > 1.01 {
		t.Errorf("%d counted, want %d", got.Count(), want.Count())
	}
	for _, q := range []float64{0.1, 0.5, 0.9, 1} {
		if r := float64(got.Quantile(q)) / float64(want.Quantile(q)); r < 0.97 || r > 1.03 {
			t.Errorf("quantile %v is %v, want %v", q, got.Quantile(q), want.Quantile(q))
		}
	}
	if same := raw.Corrected(0); same.Count() != raw.Count() || same.Max() != raw.Max() {
		t.Errorf("without an interval %d counted up to %v, want %d up to %v", same.Count(), same.Max(), raw.Count(), raw.Max())
	}
}
