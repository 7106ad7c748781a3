// SPDX-License-Identifier: Apache-2.0

// Package storagetest helps to test what uses a backing store, with a store
// that fails and stalls on demand, and what is one, with a conformance suite.
package storagetest

import (
	"context"
	"sync"

	"github.com/gotgtd/gotgtd/target/storage"
)

// Op is a method of a store, as calls are recorded and faults injected.
type Op string

// The operations of a store.
const (
	Read         Op = "read"
	TryRead      Op = "try to read"
	TryWrite     Op = "try to write" // of faults alone: a call is recorded as a Write
	Write        Op = "write"
	WriteDurable Op = "write durably"
	Flush        Op = "flush"
	Discard      Op = "discard"
	WriteZeroes  Op = "zero"
	Extent       Op = "map"
	Refresh      Op = "measure"
	Close        Op = "close"
)

// MaxCalls is how many calls a FaultStore records; later ones it forgets.
const MaxCalls = 1 << 16

// A Call is one call of a store's method that has returned.
type Call struct {
	Op       Op
	Off, Len int64 // the range, in bytes; 0, 0 where the method has none
	Err      error // what it returned
}

// A Fault is what goes wrong with certain calls. The zero Fault catches every
// call and does nothing to it.
type Fault struct {
	// Op is which calls are caught; empty means all. Write catches durable
	// writes too. A TryRead that a fault for Read would catch, is answered
	// with ErrWouldBlock, so that the Read that follows is caught.
	Op Op

	// Off and Len are the range, in bytes, that a call must touch to be
	// caught; Len 0 means that any call is.
	Off, Len int64

	// Count is how many calls are caught before the fault is over; 0 means
	// no end.
	Count int

	// Err is returned, wrapped in a storage.Error, and the call changes
	// nothing; nil lets the call go on to the store.
	Err error

	// Reached is sent the call, without Err, when it is caught; nil means
	// that it is sent nowhere.
	Reached chan<- Call

	// Release holds the caught call until something is received or the
	// channel is closed; nil means no delay, and with Ends no end of it.
	Release <-chan struct{}

	// Ends has a call that is held end with its context too, as that of a store
	// that waits for a server does: it fails with the context's error.
	Ends bool
}

func (f *Fault) catches(op Op, off, n int64) bool {
	if f.Op != "" && f.Op != op && (f.Op != Write || op != WriteDurable) {
		return false
	}
	return f.Len == 0 || off < f.Off+f.Len && f.Off < off+n
}

// hold holds a call as long as the fault says.
func (f *Fault) hold(ctx context.Context) error {
	if f.Release == nil && !f.Ends {
		return nil
	}
	var ended <-chan struct{} // never, unless it is heeded
	if f.Ends {
		ended = ctx.Done()
	}
	select {
	case <-f.Release:
		return nil
	case <-ended:
		return ctx.Err()
	}
}

// A FaultStore passes calls on to another store, records them, and makes them
// fail or wait as told. It has all optional methods but those of
// storage.Locked; what the store beneath lacks it does with the basic ones.
// It is safe for concurrent use.
type FaultStore struct {
	under storage.Store

	mu     sync.Mutex // protects what follows
	faults []*Fault
	calls  []Call
	end    int64 // the size that there is
	size   int64 // the size that Info tells
}

var _ interface {
	storage.Store
	storage.TryReader
	storage.TryWriter
	storage.DurableWriter
	storage.Discarder
	storage.Zeroer
	storage.Mapper
	storage.Refresher
} = (*FaultStore)(nil)

// NewFaultStore returns a FaultStore above under, without any faults yet.
func NewFaultStore(under storage.Store) *FaultStore {
	size := under.Info().Size
	return &FaultStore{under: under, end: size, size: size}
}

// Inject adds a fault. Of several that catch a call the first injected counts.
func (s *FaultStore) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// Heal removes all faults. Calls that are held stay so.
func (s *FaultStore) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// SetSize makes the store end at size bytes, at most what the store beneath
// has, as if the file had been cut. Info tells so after the next Refresh.
func (s *FaultStore) SetSize(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = min(size, s.under.Info().Size)
}

// Calls returns the calls so far, in the order in which they returned; with
// ops, only the calls of these.
func (s *FaultStore) Calls(ops ...Op) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var calls []Call
	for _, c := range s.calls {
		wanted := len(ops) == 0
		for _, op := range ops {
			wanted = wanted || c.Op == op
		}
		if wanted {
			calls = append(calls, c)
		}
	}
	return calls
}

// Forget empties the record of calls.
func (s *FaultStore) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// call does op by do, unless a fault says otherwise, and records it.
func (s *FaultStore) call(ctx context.Context, op Op, off, n int64, do func() error) error {
	err := s.meet(ctx, op, off, n)
	if err == nil {
		err = do()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) < MaxCalls {
		s.calls = append(s.calls, Call{Op: op, Off: off, Len: n, Err: err})
	}
	return err
}

// meet lets the call meet its fault, if there is one, and the store's end.
func (s *FaultStore) meet(ctx context.Context, op Op, off, n int64) error {
	f, end := s.pick(op, off, n)
	if f != nil {
		if f.Op == Read && op == TryRead {
			return storage.ErrWouldBlock
		}
		if f.Reached != nil {
			f.Reached <- Call{Op: op, Off: off, Len: n}
		}
		if err := f.hold(ctx); err != nil {
			return s.fail(op, off, n, err)
		}
		if f.Err == storage.ErrWouldBlock {
			return f.Err
		}
		if f.Err != nil {
			return s.fail(op, off, n, f.Err)
		}
	}
	if err := storage.CheckRange(off, n, end); err != nil {
		if op == TryRead {
			return storage.ErrWouldBlock
		}
		return s.fail(op, off, n, err)
	}
	return nil
}

// pick returns the fault that catches a call, nil for none, and the end of
// the store.
func (s *FaultStore) pick(op Op, off, n int64) (*Fault, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if op == TryRead && f.Op == Read && f.catches(Read, off, n) {
			return f, s.end
		}
		if op == TryWrite && f.Op != op || !f.catches(op, off, n) {
			continue
		}
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return f, s.end
	}
	return nil, s.end
}

func (s *FaultStore) fail(op Op, off, n int64, err error) error {
	return &storage.Error{Op: string(op), Path: s.under.Info().Path, Off: off, Len: n, Err: err}
}
