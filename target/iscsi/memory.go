// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/account"
)

// memoryQueue has the sessions with tasks that wait for memory: writes before their first
// R2T, reads before they run. Whatever frees memory wakes the goroutine that serves it
// (package account), and each session's tasks have their turn by then.
type memoryQueue struct {
	memory  *account.Process
	waiting atomic.Int32 // tasks

	mu   ranked.Mutex // protects ring
	ring []borrower   // each once, in the order of their turns
}

// A borrower has tasks that wait for memory: a session.
type borrower interface {
	// serveMemory gives memory to the tasks in their order, until there is one that may have none:
	// then it waits again, until as much is shared as is returned, see [account.Account.Until].
	serveMemory() (until int64)
}

func (q *memoryQueue) init(memory *account.Process, rank ranked.Rank) {
	q.memory = memory
	q.mu.SetRank(rank)
}

func (q *memoryQueue) add(b borrower) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Contains(q.ring, b) {
		q.ring = append(q.ring, b)
	}
}

// run serves the tasks that wait, until stop closes, and while nothing is frozen.
func (q *memoryQueue) run(stop <-chan struct{}, f *freezer) {
	for {
		select {
		case <-stop:
			return
		case <-q.memory.Freed():
			f.outside(q.serve)
		}
	}
}

// serve gives memory to the tasks that wait, as far as their sessions may have it.
func (q *memoryQueue) serve() {
	if q.waiting.Load() == 0 {
		return
	}
	refused := q.memory.Await()
	q.mu.Lock()
	ring := q.ring
	q.ring = nil
	q.mu.Unlock()
	var most int64
	for _, b := range ring {
		most = max(most, b.serveMemory())
	}
	refused(most)
}
