// SPDX-License-Identifier: Apache-2.0

package latency

import (
	"math"
	"testing"
	"time"
)

// TestBuckets: each bound belongs to its bucket, and what is longer by the least to the next.
func TestBuckets(t *testing.T) {
	for i, bound := range Bounds() {
		if got := bucket(bound); got != i {
			t.Errorf("%v is in bucket %d, want %d", bound, got, i)
		}
		if got := bucket(bound + 1); got != i+1 {
			t.Errorf("%v and a nanosecond is in bucket %d, want %d", bound, got, i+1)
		}
	}
	for d, want := range map[time.Duration]int{math.MinInt64: 0, -1: 0, 0: 0, 1: 0, math.MaxInt64: Buckets - 1} {
		if got := bucket(d); got != want {
			t.Errorf("%d is in bucket %d, want %d", d, got, want)
		}
	}
	for d := time.Duration(1); d < time.Minute; d += d/7 + 1 {
		want := 0
		for want < len(bounds) && bounds[want] < d {
			want++
		}
		if got := bucket(d); got != want {
			t.Errorf("%v is in bucket %d, want %d", d, got, want)
		}
	}
}

func TestSummary(t *testing.T) {
	var h Histogram
	for range 90 {
		h.Record(15 * time.Microsecond)
	}
	for range 9 {
		h.Record(3 * time.Millisecond)
	}
	before := h.Load()
	h.Record(-5)
	h.Record(time.Minute)
	c := h.Load()
	if c.Count() != 101 || c.Sum != 90*15*time.Microsecond+27*time.Millisecond+time.Minute {
		t.Errorf("%d durations, %v in all", c.Count(), c.Sum)
	}
	d := c.Since(&before)
	if d.Count() != 2 || d.Buckets[0] != 1 || d.Buckets[Buckets-1] != 1 || d.Mean() != 30*time.Second {
		t.Errorf("since then: %+v", d)
	}
	if d := before.Since(&c); d != before {
		t.Errorf("after a restart: %+v, want %+v", d, before)
	}
	for q, want := range map[float64]time.Duration{0: 0, 0.5: 15 * time.Microsecond, 0.95: 3500 * time.Microsecond} {
		if got := before.Quantile(q); got < want*8/10 || got > want*12/10 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	if got := c.Quantile(1); got != 5*time.Second {
		t.Errorf("the highest quantile is %v: it is in the bucket without a bound", got)
	}
	var none Counts
	if none.Mean() != 0 || none.Quantile(0.5) != 0 {
		t.Error("there is a duration though none was counted")
	}
}

func TestEncoding(t *testing.T) {
	var h Histogram
	for i := range Buckets {
		for range i * i {
			h.Record(Bounds()[min(i, len(bounds)-1)] + time.Duration(i/len(bounds)))
		}
	}
	c := h.Load()
	b := c.AppendTo([]byte{7})
	var got Counts
	if rest, err := got.Decode(append(b[1:], 1, 2)); err != nil || got != c || len(rest) != 2 {
		t.Errorf("%+v came back as %+v with %d bytes behind: %v", c, got, len(rest), err)
	}
	for n := range len(b) - 1 {
		if _, err := got.Decode(b[1 : 1+n]); err == nil {
			t.Errorf("%d of %d bytes can be read", n, len(b)-1)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Record(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for b.Loop() {
		h.Record(80 * time.Microsecond)
	}
}

// TestRecordMean: durations of which the sum is known count as their mean, and none as nothing.
func TestRecordMean(t *testing.T) {
	var h Histogram
	h.RecordMean(time.Second, 0)
	h.RecordMean(90*time.Microsecond, 4)
	h.RecordMean(-time.Second, 1)
	want := Counts{Sum: 90 * time.Microsecond}
	want.Buckets[bucket(22500*time.Nanosecond)] = 4
	want.Buckets[0] = 1
	if got := h.Load(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
