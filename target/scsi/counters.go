// SPDX-License-Identifier: Apache-2.0

package scsi

import "sync/atomic"

// Counters is what was moved since the start, over handoffs.
type Counters struct {
	Reads        uint64 `cbor:"1,keyasint"` // commands that read blocks
	Writes       uint64 `cbor:"2,keyasint"` // commands that wrote blocks
	ReadBytes    uint64 `cbor:"3,keyasint"`
	WrittenBytes uint64 `cbor:"4,keyasint"`
	Errors       uint64 `cbor:"5,keyasint"` // commands that failed in the backing store
}

// counters is Counters in the making.
type counters struct {
	reads, writes, readBytes, writtenBytes, errors atomic.Uint64
}

func (c *counters) read(n int)    { c.reads.Add(1); c.readBytes.Add(uint64(n)) }
func (c *counters) written(n int) { c.writes.Add(1); c.writtenBytes.Add(uint64(n)) }

func (c *counters) load() Counters {
	return Counters{c.reads.Load(), c.writes.Load(), c.readBytes.Load(), c.writtenBytes.Load(), c.errors.Load()}
}

func (c *counters) store(v Counters) {
	c.reads.Store(v.Reads)
	c.writes.Store(v.Writes)
	c.readBytes.Store(v.ReadBytes)
	c.writtenBytes.Store(v.WrittenBytes)
	c.errors.Store(v.Errors)
}
