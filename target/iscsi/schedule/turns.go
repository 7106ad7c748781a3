// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"container/heap"
	"time"
)

// turns are the queues that wait for a worker. The next turn is that of the queue
// that has used the workers for the shortest time, and among equals of who has waited
// longest: start-time fair queuing, with the time that tasks take in place of lengths of
// packets.
type turns[T Task] struct {
	list    []*Queue[T]   // a heap
	now     time.Duration // what the queue whose turn was last had used by then
	arrived uint64
}

// maxDebt is how far a queue can be behind the others because of what it has used. What
// hangs in a device counts too, and it must not cost its owner more than that
// once the device works again.
const maxDebt = 100 * time.Millisecond

// usage is what a queue has used of the workers.
type usage struct {
	used   time.Duration // on the scale of turns.now
	turn   time.Duration // used when it was listed
	order  uint64        // of the listed
	listed bool
}

// add lists a queue. One that has used nothing for a while saves nothing up.
func (t *turns[T]) add(q *Queue[T]) {
	a := &q.usage
	a.used = min(max(a.used, t.now), t.now+maxDebt)
	a.turn, a.order, a.listed = a.used, t.arrived, true
	t.arrived++
	heap.Push(t, q)
}

// next returns the queue whose turn it is, which is not listed any more.
func (t *turns[T]) next() *Queue[T] {
	q := heap.Pop(t).(*Queue[T])
	q.usage.listed = false
	t.now = max(t.now, q.usage.turn)
	return q
}

// The methods of [heap.Interface].

func (t *turns[T]) Len() int { return len(t.list) }

func (t *turns[T]) Less(i, j int) bool {
	a, b := &t.list[i].usage, &t.list[j].usage
	return a.turn < b.turn || a.turn == b.turn && a.order < b.order
}

func (t *turns[T]) Swap(i, j int) { t.list[i], t.list[j] = t.list[j], t.list[i] }

func (t *turns[T]) Push(x any) { t.list = append(t.list, x.(*Queue[T])) }

func (t *turns[T]) Pop() any {
	last := len(t.list) - 1
	q := t.list[last]
	t.list[last] = nil
	t.list = t.list[:last]
	return q
}
