// SPDX-License-Identifier: Apache-2.0

// Package schedule runs tasks that may block on a bounded number of goroutines, the workers. It
// knows of a task what [Task] says, and of who has queued it a [Queue].
package schedule

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/ranked"
)

// A Task is a command that waits for a worker.
type Task interface {
	comparable
	// Unit is the logical unit that the task is for.
	Unit() Unit
	// Begun reports whether a slice of the task is done already.
	Begun() bool
	// First reports whether the task is to have a worker before all others: they may wait for it
	// with theirs.
	First() bool
	// Long reports whether the task makes its logical unit work for long.
	Long() bool
	// Held reports whether the task should not run yet, because its initiator does not read.
	Held() bool
}

// A Runner runs the tasks of a queue.
type Runner[T Task] interface {
	// Run runs a task or a slice of it, on a worker that has begun at a time.
	Run(t T, began time.Time)
}

// A Gate says when no worker may take a task.
type Gate interface{ Stopped() bool }

// Scheduler has the workers. The owners of queues take turns, and the next is that of who has used
// the workers for the shortest time, so that a busy one does not starve the others. None may
// hold more than half of the workers. Nor may the tasks of one logical unit: a store that hangs does
// not take the workers of the others. Long tasks run one at a time on a logical unit, and in slices,
// after each of which they wait for their turn again.
type Scheduler[T Task] struct {
	gate Gate
	max  int // workers

	mu     ranked.Mutex // protects the fields below and every Queue
	idle   sync.Cond    // signalled when a worker ends
	active int
	first  []queued[T] // that have a worker before all others, and are in no queue
	turns  turns[T]    // of the queues that have a task to run
	units  map[Unit]*share[T]
	spare  *share[T] // the one forgotten last, to be used again

	workers sync.WaitGroup
}

// queued is a task with the queue of its owner.
type queued[T Task] struct {
	queue *Queue[T]
	task  T
}

// Unit is a logical unit for the scheduler.
type Unit struct {
	Device any    // that it belongs to: a pointer
	LUN    uint64 // as on the wire: a unit that is addressed in two forms counts as two
}

// share is what one logical unit has of the workers. It is forgotten with its
// last running task.
type share[T Task] struct {
	running int
	long    bool        // one of them is long
	waiting []*Queue[T] // that have a task for it which may not run yet, each once
}

// A Queue holds the tasks of one owner that wait for a worker.
type Queue[T Task] struct {
	runner  Runner[T]
	waiting atomic.Int32 // len(tasks), to look at without the lock
	tasks   []T
	running int
	usage   usage
}

// Init says who runs the tasks of the queue.
func (q *Queue[T]) Init(r Runner[T]) { q.runner = r }

// Init makes the scheduler ready for use, with so many workers at most. rank is that of its mutex.
func (w *Scheduler[T]) Init(workers int, rank ranked.Rank, gate Gate) {
	w.gate, w.max, w.units = gate, workers, make(map[Unit]*share[T])
	w.mu.SetRank(rank)
	w.idle.L = &w.mu
}

// Add queues a task; one that has begun goes on before the others.
func (w *Scheduler[T]) Add(q *Queue[T], t T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.First() {
		w.first = append(w.first, queued[T]{q, t})
		w.startLocked()
		return
	}
	if t.Begun() {
		q.tasks = slices.Insert(q.tasks, 0, t)
	} else {
		q.tasks = append(q.tasks, t)
	}
	q.waiting.Store(int32(len(q.tasks)))
	w.listLocked(q)
}

// Remove takes a task out of its queue; false when a worker has it already.
func (w *Scheduler[T]) Remove(q *Queue[T], t T) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(w.first, queued[T]{q, t}); i >= 0 {
		w.first = slices.Delete(w.first, i, i+1)
		return true
	}
	i := slices.Index(q.tasks, t)
	if i < 0 {
		return false
	}
	q.tasks = slices.Delete(q.tasks, i, i+1)
	q.waiting.Store(int32(len(q.tasks)))
	return true
}

// Kick looks at a queue again whose tasks may not be held any more.
func (w *Scheduler[T]) Kick(q *Queue[T]) {
	if q.waiting.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listLocked(q)
}

// share is how many workers one queue, or one logical unit, may have at once.
func (w *Scheduler[T]) share() int { return (w.max + 1) / 2 }

// listLocked gives a queue a turn if it has something to run and may run
// it, and sees that there is a worker.
func (w *Scheduler[T]) listLocked(q *Queue[T]) {
	if q.usage.listed || len(q.tasks) == 0 || q.running >= w.share() || q.tasks[0].Held() || w.eligibleLocked(q) < 0 {
		return
	}
	w.turns.add(q)
	w.startLocked()
}

// eligibleLocked returns the index of a queue's first task whose logical unit may
// have another worker, -1 if there is none. The units that may not will give
// the queue a turn later.
func (w *Scheduler[T]) eligibleLocked(q *Queue[T]) int {
	for i, t := range q.tasks {
		u := w.units[t.Unit()]
		if u == nil || u.running < w.share() && !(u.long && t.Long()) {
			return i
		}
		if !slices.Contains(u.waiting, q) {
			u.waiting = append(u.waiting, q)
		}
	}
	return -1
}

// beganLocked counts a task that a worker has taken.
func (w *Scheduler[T]) beganLocked(q *Queue[T], t T) {
	q.running++
	u := w.units[t.Unit()]
	if u == nil {
		if u, w.spare = w.spare, nil; u == nil {
			u = new(share[T])
		}
		w.units[t.Unit()] = u
	}
	u.running++
	u.long = u.long || t.Long()
}

// endedLocked counts a task that a worker is done with, of a queue and unit, and what
// time it has taken.
func (w *Scheduler[T]) endedLocked(q *Queue[T], unit Unit, long bool, took time.Duration) {
	q.running--
	q.usage.used += took
	u := w.units[unit]
	u.long = u.long && !long
	waiting := u.waiting
	u.waiting = nil
	if u.running--; u.running == 0 {
		delete(w.units, unit)
		w.spare = u
	}
	w.listLocked(q)
	for _, o := range waiting {
		w.listLocked(o)
	}
}

func (w *Scheduler[T]) startLocked() {
	if w.active < w.max && len(w.first)+len(w.turns.list) > 0 && !w.gate.Stopped() {
		w.active++
		w.workers.Go(w.worker)
	}
}

// nextLocked takes the first task of the queue whose turn it is.
func (w *Scheduler[T]) nextLocked() (q *Queue[T], t T, ok bool) {
	if len(w.first) > 0 && !w.gate.Stopped() {
		f := w.first[0]
		w.first = slices.Delete(w.first, 0, 1)
		w.beganLocked(f.queue, f.task)
		return f.queue, f.task, true
	}
	for len(w.turns.list) > 0 && !w.gate.Stopped() {
		q = w.turns.next()
		i := w.eligibleLocked(q)
		if i < 0 {
			continue
		}
		t = q.tasks[i]
		q.tasks = slices.Delete(q.tasks, i, i+1)
		q.waiting.Store(int32(len(q.tasks)))
		w.beganLocked(q, t)
		w.listLocked(q)
		return q, t, true
	}
	return nil, t, false
}

func (w *Scheduler[T]) worker() {
	w.mu.Lock()
	for {
		q, t, ok := w.nextLocked()
		if !ok {
			break
		}
		w.mu.Unlock()
		unit, long, began := t.Unit(), t.Long(), time.Now() // the task may be somebody else's when it has run
		q.runner.Run(t, began)
		w.mu.Lock()
		w.endedLocked(q, unit, long, time.Since(began))
	}
	w.active--
	w.idle.Broadcast()
	w.mu.Unlock()
}

// Busy returns how many workers there are.
func (w *Scheduler[T]) Busy() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active
}

// Quiesce waits until no worker runs or give closes; the gate is closed.
func (w *Scheduler[T]) Quiesce(give <-chan struct{}) bool {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-give:
			w.mu.Lock()
			w.idle.Broadcast()
			w.mu.Unlock()
		case <-stop:
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.active > 0 {
		select {
		case <-give:
			return false
		default:
		}
		w.idle.Wait()
	}
	return true
}

// Resume starts workers again when the gate has opened.
func (w *Scheduler[T]) Resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range min(len(w.first)+len(w.turns.list), w.max) {
		w.startLocked()
	}
}

// Wait waits until all workers have ended. Nobody may add tasks any more, but tasks that run.
func (w *Scheduler[T]) Wait() { w.workers.Wait() }
