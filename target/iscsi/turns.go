// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"container/heap"
	"time"
)

// turns are the sessions that wait for a worker. The next turn is that of the session
// that has used the workers for the shortest time, and among equals of who has waited
// longest: start-time fair queuing, with the time that tasks take in place of lengths of
// packets.
type turns struct {
	list    []*session    // a heap
	now     time.Duration // what the session whose turn was last had used by then
	arrived uint64
}

// maxDebt is how far a session can be behind the others because of what it has used. What
// hangs in a device counts too, and it must not cost its session more than that
// once the device works again.
const maxDebt = 100 * time.Millisecond

// usage is what a session has used of the workers. It belongs to the scheduler.
type usage struct {
	used   time.Duration // on the scale of turns.now
	turn   time.Duration // used when it was listed
	order  uint64        // of the listed
	listed bool
}

// add lists a session. One that has used nothing for a while saves nothing up.
func (t *turns) add(s *session) {
	a := &s.queue.usage
	a.used = min(max(a.used, t.now), t.now+maxDebt)
	a.turn, a.order, a.listed = a.used, t.arrived, true
	t.arrived++
	heap.Push(t, s)
}

// next returns the session whose turn it is, which is not listed any more.
func (t *turns) next() *session {
	s := heap.Pop(t).(*session)
	s.queue.usage.listed = false
	t.now = max(t.now, s.queue.usage.turn)
	return s
}

// The methods of [heap.Interface].

func (t *turns) Len() int { return len(t.list) }

func (t *turns) Less(i, j int) bool {
	a, b := &t.list[i].queue.usage, &t.list[j].queue.usage
	return a.turn < b.turn || a.turn == b.turn && a.order < b.order
}

func (t *turns) Swap(i, j int) { t.list[i], t.list[j] = t.list[j], t.list[i] }

func (t *turns) Push(x any) { t.list = append(t.list, x.(*session)) }

func (t *turns) Pop() any {
	last := len(t.list) - 1
	s := t.list[last]
	t.list[last] = nil
	t.list = t.list[:last]
	return s
}
