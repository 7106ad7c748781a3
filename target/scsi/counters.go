// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"sync"
	"sync/atomic"
	"time"
)

// Counters is what was moved since the start, over handoffs.
type Counters struct {
	Reads        uint64 `cbor:"1,keyasint" json:"reads"`  // commands that read blocks
	Writes       uint64 `cbor:"2,keyasint" json:"writes"` // commands that wrote blocks
	ReadBytes    uint64 `cbor:"3,keyasint" json:"read_bytes"`
	WrittenBytes uint64 `cbor:"4,keyasint" json:"written_bytes"`
	Errors       uint64 `cbor:"5,keyasint" json:"errors"` // commands that failed in the backing store
}

// counters is Counters in the making.
type counters struct {
	reads, writes, readBytes, writtenBytes, errors atomic.Uint64

	clock func() time.Time // nil: time.Now; set before the first use

	sampling sync.Mutex // protects the fields below
	seen     uint64     // commands at the last sample
	moved    time.Time  // the last sample that had more commands than the one before
}

// lastIO returns when blocks were last moved, zero for never, as exactly as it is
// called often: the hot path takes no time.
func (c *counters) lastIO() time.Time {
	now := c.reads.Load() + c.writes.Load()
	c.sampling.Lock()
	defer c.sampling.Unlock()
	if now != c.seen {
		c.seen, c.moved = now, c.now()
	}
	return c.moved
}

func (c *counters) now() time.Time {
	if c.clock != nil {
		return c.clock()
	}
	return time.Now()
}

// lastIOSeconds is lastIO in seconds since 1970, 0 for never.
func (c *counters) lastIOSeconds() int64 {
	if at := c.lastIO(); !at.IsZero() {
		return at.Unix()
	}
	return 0
}

func (c *counters) read(n int)    { c.reads.Add(1); c.readBytes.Add(uint64(n)) }
func (c *counters) written(n int) { c.writes.Add(1); c.writtenBytes.Add(uint64(n)) }

func (c *counters) load() Counters {
	return Counters{c.reads.Load(), c.writes.Load(), c.readBytes.Load(), c.writtenBytes.Load(), c.errors.Load()}
}

// store takes over the counters of another process and its lastIO, in seconds
// since 1970.
func (c *counters) store(v Counters, lastIO int64) {
	c.sampling.Lock()
	defer c.sampling.Unlock()
	c.seen = v.Reads + v.Writes
	if c.moved = (time.Time{}); lastIO > 0 {
		c.moved = time.Unix(lastIO, 0)
	}
	c.reads.Store(v.Reads)
	c.writes.Store(v.Writes)
	c.readBytes.Store(v.ReadBytes)
	c.writtenBytes.Store(v.WrittenBytes)
	c.errors.Store(v.Errors)
}
