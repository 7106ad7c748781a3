// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
)

// Counters is what was moved since the start, over handoffs.
type Counters struct {
	Reads        uint64 `cbor:"1,keyasint" json:"reads"`  // commands that read blocks
	Writes       uint64 `cbor:"2,keyasint" json:"writes"` // commands that wrote blocks
	ReadBytes    uint64 `cbor:"3,keyasint" json:"read_bytes"`
	WrittenBytes uint64 `cbor:"4,keyasint" json:"written_bytes"`
	Errors       uint64 `cbor:"5,keyasint" json:"errors"` // commands that failed in the backing store
}

// moves is what was moved, in the making.
type moves struct{ reads, writes, readBytes, writtenBytes atomic.Uint64 }

// add counts what was moved, without the errors.
func (v *moves) add(m *Counters) {
	if m.Reads > 0 {
		v.reads.Add(m.Reads)
		v.readBytes.Add(m.ReadBytes)
	}
	if m.Writes > 0 {
		v.writes.Add(m.Writes)
		v.writtenBytes.Add(m.WrittenBytes)
	}
}

// counters is Counters in the making.
type counters struct {
	moves
	errors atomic.Uint64

	clock func() time.Time // nil: time.Now; set before the first use

	sampling sync.Mutex     // protects the fields below
	seen     uint64         // commands at the last sample
	moved    boottime.Stamp // the last sample that had more commands than the one before
}

// lastIO returns when blocks were last moved, 0 for never, as exactly as it is
// called often: the hot path takes no time.
func (c *counters) lastIO() boottime.Stamp {
	c.sampling.Lock()
	defer c.sampling.Unlock()
	if now := c.reads.Load() + c.writes.Load(); now != c.seen {
		c.seen, c.moved = now, boottime.Of(c.now())
	}
	return c.moved
}

func (c *counters) now() time.Time {
	if c.clock != nil {
		return c.clock()
	}
	return time.Now()
}

// lastIOSeconds is a time of lastIO in seconds since 1970, 0 for never, for a process that knows
// no stamps.
func lastIOSeconds(at boottime.Stamp) int64 {
	if at == 0 {
		return 0
	}
	return at.Time().Unix()
}

// lastIOOf is what a snapshot tells of lastIO.
func lastIOOf(seconds int64, at boottime.Stamp) boottime.Stamp {
	if at == 0 && seconds > 0 {
		return boottime.Of(time.Unix(seconds, 0))
	}
	return at
}

func (c *counters) load() Counters {
	return Counters{c.reads.Load(), c.writes.Load(), c.readBytes.Load(), c.writtenBytes.Load(), c.errors.Load()}
}

// store takes over the counters of another process and its lastIO.
func (c *counters) store(v Counters, lastIO boottime.Stamp) {
	c.sampling.Lock()
	defer c.sampling.Unlock()
	c.seen, c.moved = v.Reads+v.Writes, lastIO
	c.reads.Store(v.Reads)
	c.writes.Store(v.Writes)
	c.readBytes.Store(v.ReadBytes)
	c.writtenBytes.Store(v.WrittenBytes)
	c.errors.Store(v.Errors)
}
