// SPDX-License-Identifier: Apache-2.0

// Package histogram counts durations in log-linear buckets: the width of a
// bucket is less than 1 % of what it counts, over the whole range from 1 ns to
// 18 minutes, in a fixed 34 KiB.
package histogram

import (
	"iter"
	"math"
	"math/bits"
	"time"
)

const (
	linearBits = 7  // each power of two is cut into 1<<linearBits buckets
	maxBits    = 40 // larger values count as the largest
	buckets    = (maxBits - linearBits + 1) << linearBits
)

// Max is the longest duration that is told from longer ones.
const Max = time.Duration(1<<maxBits - 1)

// A Histogram counts durations. The zero Histogram is empty and ready to use.
// It is not safe for concurrent use: give each goroutine its own and Merge.
type Histogram struct {
	counts   [buckets]uint64
	count    uint64
	sum      float64 // nanoseconds
	min, max time.Duration
}

// index returns the bucket of d, 0 <= d <= Max.
func index(d time.Duration) int {
	shift := max(0, bits.Len64(uint64(d))-linearBits-1)
	return shift<<linearBits + int(d>>shift)
}

// highest returns the longest duration that bucket i counts.
func highest(i int) time.Duration {
	shift := max(0, i>>linearBits-1)
	return time.Duration(i-shift<<linearBits+1)<<shift - 1
}

// Record counts d. Durations below zero count as zero, those above Max as
// Max.
func (h *Histogram) Record(d time.Duration) { h.add(d, 1) }

func (h *Histogram) add(d time.Duration, n uint64) {
	d = min(max(d, 0), Max)
	if h.count == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.counts[index(d)] += n
	h.count += n
	h.sum += float64(d) * float64(n)
}

// RecordCorrected counts d, and when d is longer than the interval at which
// measurements were meant to start, also those that it kept from starting,
// each shorter by one interval: what coordinated omission would leave out.
func (h *Histogram) RecordCorrected(d, interval time.Duration) {
	h.addCorrected(d, 1, interval)
}

func (h *Histogram) addCorrected(d time.Duration, n uint64, interval time.Duration) {
	h.add(d, n)
	if interval <= 0 {
		return
	}
	for d = min(d, Max) - interval; d >= interval; d -= interval {
		h.add(d, n)
	}
}

// Corrected returns what h would hold had RecordCorrected been used, to a
// bucket's width, when the interval is known only afterwards.
func (h *Histogram) Corrected(interval time.Duration) *Histogram {
	c := new(Histogram)
	for d, n := range h.Buckets() {
		c.addCorrected(min(d, h.max), n, interval)
	}
	return c
}

// Merge adds all that other has counted; nil adds nothing.
func (h *Histogram) Merge(other *Histogram) {
	if other == nil || other.count == 0 {
		return
	}
	if h.count == 0 || other.min < h.min {
		h.min = other.min
	}
	h.max = max(h.max, other.max)
	h.count += other.count
	h.sum += other.sum
	for i, n := range other.counts {
		h.counts[i] += n
	}
}

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 { return h.count }

// Min returns the shortest duration, 0 when there is none.
func (h *Histogram) Min() time.Duration { return h.min }

// Max returns the longest duration, 0 when there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the mean, 0 when there is none.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return time.Duration(h.sum / float64(h.count))
}

// Quantile returns a duration that the part q of all durations, 0 to 1, does
// not exceed: the upper end of its bucket, at most Max(). It is 0 when there
// is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := max(1, uint64(math.Ceil(min(max(q, 0), 1)*float64(h.count))))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen >= rank {
			return min(highest(i), h.max)
		}
	}
	return h.max
}

// Buckets yields the upper end and the count of every bucket that is not empty,
// shortest first.
func (h *Histogram) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for i, n := range h.counts {
			if n > 0 && !yield(highest(i), n) {
				return
			}
		}
	}
}
