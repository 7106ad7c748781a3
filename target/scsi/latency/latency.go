// SPDX-License-Identifier: Apache-2.0

// Package latency counts durations in buckets that are the same everywhere and for good, so
// that counts of several logical units, processes and moments can be added and subtracted.
// A count costs two atomic additions, takes no lock and allocates nothing.
package latency

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"sync/atomic"
	"time"
)

// bounds are the longest durations of the buckets; one more bucket has what is longer. They are
// in snapshots, in the status and on the pages of metrics: they never change.
var bounds = [...]time.Duration{
	10 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second,
}

// Buckets is the number of buckets.
const Buckets = len(bounds) + 1

// Bounds returns the longest durations of all buckets but the last, which has no bound.
func Bounds() []time.Duration { return bounds[:] }

// first is the bucket of the shortest duration of each length in bits: from there it is a
// step or two to that of any other.
var first = func() (table [65]uint8) {
	for n := range table {
		shortest := time.Duration(0)
		if n > 0 {
			shortest = 1 << min(n-1, 62)
		}
		for int(table[n]) < len(bounds) && bounds[table[n]] < shortest {
			table[n]++
		}
	}
	return table
}()

// bucket returns the bucket that d belongs to. What is below zero counts as zero.
func bucket(d time.Duration) int {
	d = max(d, 0)
	i := int(first[bits.Len64(uint64(d))])
	for i < len(bounds) && bounds[i] < d {
		i++
	}
	return i
}

// A Histogram counts durations. The zero Histogram is empty and ready to use. It is safe for
// concurrent use.
type Histogram struct {
	buckets [Buckets]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

// Record counts a duration.
func (h *Histogram) Record(d time.Duration) {
	h.buckets[bucket(d)].Add(1)
	h.sum.Add(uint64(max(d, 0)))
}

// RecordMean counts n durations, of which only the sum is known, as their mean each.
func (h *Histogram) RecordMean(sum time.Duration, n uint64) {
	if sum = max(sum, 0); n == 0 {
		return
	}
	h.buckets[bucket(sum/time.Duration(n))].Add(n)
	h.sum.Add(uint64(sum))
}

// Add counts what others have counted.
func (h *Histogram) Add(c *Counts) {
	for i, n := range c.Buckets {
		h.buckets[i].Add(n)
	}
	h.sum.Add(uint64(c.Sum))
}

// Load returns what was counted so far. No number of it is ever lower than it was before.
func (h *Histogram) Load() Counts {
	var c Counts
	for i := range h.buckets {
		c.Buckets[i] = h.buckets[i].Load()
	}
	c.Sum = time.Duration(h.sum.Load())
	return c
}

// Counts is what a Histogram has counted.
type Counts struct {
	Buckets [Buckets]uint64 `cbor:"1,keyasint" json:"buckets"` // durations up to its bound and above that of the one before
	Sum     time.Duration   `cbor:"2,keyasint" json:"sum"`     // nanoseconds
}

// Record counts a duration.
func (c *Counts) Record(d time.Duration) {
	c.Buckets[bucket(d)]++
	c.Sum += max(d, 0)
}

// Count returns how many durations were counted.
func (c *Counts) Count() (n uint64) {
	for _, b := range c.Buckets {
		n += b
	}
	return n
}

// Plus adds what o has.
func (c *Counts) Plus(o *Counts) {
	for i, n := range o.Buckets {
		c.Buckets[i] += n
	}
	c.Sum += o.Sum
}

// Since returns what was counted since before. After a restart, when there is less than
// before, that is all.
func (c *Counts) Since(before *Counts) Counts {
	d := Counts{Sum: c.Sum - before.Sum}
	for i, n := range c.Buckets {
		if n < before.Buckets[i] {
			return *c
		}
		d.Buckets[i] = n - before.Buckets[i]
	}
	if d.Sum < 0 {
		return *c
	}
	return d
}

// Mean returns the mean duration, 0 without any.
func (c *Counts) Mean() time.Duration {
	n := c.Count()
	if n == 0 {
		return 0
	}
	return c.Sum / time.Duration(n)
}

// Quantile estimates the duration that the part q of all, 0 to 1, does not exceed, as
// Prometheus does: within a bucket they count as evenly spread, and what is in the last one as
// its lower bound. It is 0 without any.
func (c *Counts) Quantile(q float64) time.Duration {
	rank := q * float64(c.Count())
	if rank == 0 {
		return 0
	}
	var below float64
	var from time.Duration
	for i, to := range bounds {
		n := float64(c.Buckets[i])
		if n > 0 && below+n >= rank {
			return from + time.Duration(float64(to-from)*(rank-below)/n)
		}
		below += n
		from = to
	}
	return from
}

// AppendTo encodes c for a snapshot: the sum and each bucket, as varints.
func (c *Counts) AppendTo(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(c.Sum))
	for _, n := range c.Buckets {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

// Decode reads what AppendTo has encoded, and returns the rest of b.
func (c *Counts) Decode(b []byte) (rest []byte, err error) {
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			err = errors.New("the counts of durations end early")
			return 0
		}
		b = b[n:]
		return v
	}
	c.Sum = time.Duration(next())
	for i := range c.Buckets {
		c.Buckets[i] = next()
	}
	return b, err
}
