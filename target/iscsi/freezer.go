// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"sync"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/internal/ranked"
)

// freezer has the phase of a Node, and brings its goroutines to a stop and back.
type freezer struct {
	phase atomic.Uint32 // a nodePhase; changes with mu held
	still sync.RWMutex  // held for writing while frozen; see outside

	mu      *ranked.Mutex // the Node's; protects the fields below
	change  sync.Cond     // signalled when parked or the Node's connections change
	parked  int           // readers that this freeze has stopped
	begun   chan struct{} // closed while frozen
	release chan struct{} // closed at the end of the freeze
}

func (f *freezer) init(mu *ranked.Mutex) {
	f.mu, f.change.L = mu, mu
	f.begun = make(chan struct{})
	f.release = make(chan struct{})
}

// is reports whether the Node is in one of the phases.
func (f *freezer) is(s phases) bool { return has(s, nodePhase(f.phase.Load())) }

// moveLocked takes the Node to another phase, false if it can't go there.
func (f *freezer) moveLocked(to nodePhase) bool {
	ok := has(nodeMoves[f.phase.Load()], to)
	if ok {
		f.phase.Store(uint32(to))
	}
	return ok
}

// Stopped reports whether readers and workers are to stand still. It makes a freezer
// a [schedule.Gate].
func (f *freezer) Stopped() bool { return f.is(nodeStill) }

// freezing returns a channel that is closed while the Node is frozen.
func (f *freezer) freezing() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun
}

// park holds a reading goroutine until the freeze ends. It reports whether
// the connection is still this process's.
func (f *freezer) park() bool {
	f.mu.Lock()
	if f.is(set(nodeFrozen)) {
		f.parked++
		f.change.Broadcast()
		release := f.release
		f.mu.Unlock()
		<-release
	} else {
		f.mu.Unlock()
	}
	return !f.is(nodeForeign)
}

// endLocked releases the readers, in the phase that the Node is in by now.
func (f *freezer) endLocked() {
	f.begun = make(chan struct{})
	f.parked = 0 // from here on they run, as soon as they may
	close(f.release)
	f.release = make(chan struct{})
	f.still.Unlock()
}

// outside runs what does something to sessions from a goroutine that a
// freeze does not stop, such as a timer's. It waits for the end of a freeze; if
// that has left the sessions to a successor, it runs nothing.
func (f *freezer) outside(do func()) {
	f.still.RLock()
	defer f.still.RUnlock()
	if !f.is(nodeForeign) {
		do()
	}
}

// outsideNow is outside, but for what can be left out during a freeze: it waits for nothing.
func (f *freezer) outsideNow(do func()) {
	if !f.still.TryRLock() {
		return
	}
	defer f.still.RUnlock()
	if !f.is(nodeForeign) {
		do()
	}
}
