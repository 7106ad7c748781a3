// SPDX-License-Identifier: Apache-2.0

// Package histogram counts durations to 1 %, from 1 ns to 18 minutes, in 35 KiB: an
// HdrHistogram of time.Duration whose zero value is ready to use.
package histogram

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Max is the longest duration that is told from longer ones.
const Max = time.Duration(1<<40 - 1)

const significantDigits = 2

// A Histogram counts durations. The zero Histogram is empty and ready to use.
// It is not safe for concurrent use: give each goroutine its own and Merge.
type Histogram struct {
	counts *hdrhistogram.Histogram // nil until something is recorded
	max    time.Duration           // exact
}

// Record counts d. Durations below zero count as zero, those above Max as
// Max.
func (h *Histogram) Record(d time.Duration) { h.add(d, 1) }

func (h *Histogram) add(d time.Duration, n int64) {
	if h.counts == nil {
		h.counts = hdrhistogram.New(1, int64(Max), significantDigits)
	}
	d = min(max(d, 0), Max)
	h.max = max(h.max, d)
	_ = h.counts.RecordValues(int64(d), n) // fails only outside of the range
}

// Corrected returns what h would hold had measurements been meant to start at an interval:
// with each duration that is longer, also those that it kept from starting,
// each shorter by one interval, which coordinated omission leaves out.
func (h *Histogram) Corrected(interval time.Duration) *Histogram {
	c := new(Histogram)
	if h.counts == nil {
		return c
	}
	for _, bar := range h.counts.Distribution() {
		if bar.Count == 0 {
			continue
		}
		longest := min(time.Duration(bar.To), h.max)
		c.add(longest, bar.Count)
		for d := longest - interval; interval > 0 && d >= interval; d -= interval {
			c.add(d, bar.Count)
		}
	}
	return c
}

// Merge adds all that other has counted; nil adds nothing.
func (h *Histogram) Merge(other *Histogram) {
	if other == nil || other.counts == nil {
		return
	}
	h.add(other.max, 0) // makes what is not there yet
	h.counts.Merge(other.counts)
}

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 {
	if h.counts == nil {
		return 0
	}
	return uint64(h.counts.TotalCount())
}

// Max returns the longest duration, 0 when there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the mean, 0 when there is none.
func (h *Histogram) Mean() time.Duration {
	if h.counts == nil {
		return 0
	}
	return time.Duration(h.counts.Mean())
}

// Quantile returns a duration that the part q of all durations, 0 to 1, does
// not exceed, at most Max(). It is 0 when there is none.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.counts == nil {
		return 0
	}
	return min(time.Duration(h.counts.ValueAtQuantile(100*q)), h.max)
}
