// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"sync/atomic"
)

// flushes have the store flushed by one command at a time. The system reports a failure once: of
// two flushes side by side one would be told of it, and the other one, which has waited for
// the same writes, that all is well. A command that finds others waiting need not flush for itself.
type flushes struct {
	begun atomic.Uint64 // number of the last flush
	turn  chan struct{} // has room for who flushes
	ended uint64        // number of the last flush that was GOOD; turn protects it
}

func newFlushes() flushes { return flushes{turn: make(chan struct{}, 1)} }

// flushLocked returns when all that was written before the call is on stable storage, and
// remembers a failure. A lock that keeps the store open is held.
func (lu *LogicalUnit) flushLocked(ctx context.Context) error {
	if lu.has(stateFlushFailed) {
		return errFlushFailed
	}
	f := &lu.flushes
	want := f.begun.Load() + 1 // one that has begun already may not know of the last writes
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if lu.has(stateFlushFailed) {
		return errFlushFailed
	}
	if f.ended >= want {
		return nil
	}
	n := f.begun.Add(1)
	if err := lu.store.Flush(ctx); err != nil {
		if !endedBy(ctx, err) {
			lu.set(stateFlushFailed, true)
		}
		return err
	}
	f.ended = n
	if lu.has(stateFlushFailed) {
		return errFlushFailed // a durable write failed meanwhile and took the report
	}
	return nil
}
