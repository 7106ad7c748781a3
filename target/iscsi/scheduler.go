// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/ranked"
)

// scheduler runs the tasks that may block on a bounded number of goroutines.
// Sessions take turns, and the next is that of who has used the workers for the shortest
// time, so that a busy one does not starve the others. None may hold more than half of the
// workers. Nor may the tasks of one logical unit: a store that hangs does not take the workers
// of the others. Long commands ([scsi.Command.Long]) run one at a time on a logical unit, and
// in slices, after each of which they wait for their turn again.
type scheduler struct {
	node *Node
	max  int // workers

	mu     ranked.Mutex // protects the fields below and every session's queue
	idle   sync.Cond    // signalled when a worker ends
	active int
	turns  turns // of the sessions that have a task to run
	units  map[unitKey]*unitShare
	spare  *unitShare // the one forgotten last, to be used again
}

// unitKey is a logical unit for the scheduler.
type unitKey struct {
	target *Target
	lun    uint64 // as on the wire: a unit that is addressed in two forms counts as two
}

func (t *task) unit() unitKey { return unitKey{t.sess.target, t.req.LUN} }

// unitShare is what one logical unit has of the workers. It is forgotten with its
// last running task.
type unitShare struct {
	running int
	long    bool       // one of them is long
	waiting []*session // that have a task for it which may not run yet, each once
}

// queue holds one session's tasks that wait for a worker.
type queue struct {
	waiting atomic.Int32 // len(tasks), to look at without the lock
	tasks   []*task
	running int
	usage   usage
}

func (w *scheduler) init(n *Node, workers int) {
	w.node, w.max, w.units = n, workers, make(map[unitKey]*unitShare)
	w.mu.SetRank(rankQueue)
	w.idle.L = &w.mu
}

// add queues a ready task; one that has begun goes on before the others. The caller holds
// the session's mutex.
func (w *scheduler) add(t *task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := &t.sess.queue
	if t.cmd.Progress() > 0 {
		q.tasks = slices.Insert(q.tasks, 0, t)
	} else {
		q.tasks = append(q.tasks, t)
	}
	q.waiting.Store(int32(len(q.tasks)))
	w.listLocked(t.sess)
}

// remove takes a task out of its queue; false when a worker has it already.
// The caller holds the session's mutex.
func (w *scheduler) remove(t *task) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := &t.sess.queue
	i := slices.Index(q.tasks, t)
	if i < 0 {
		return false
	}
	q.tasks = slices.Delete(q.tasks, i, i+1)
	q.waiting.Store(int32(len(q.tasks)))
	return true
}

// kick looks at a session again whose output has moved on.
func (w *scheduler) kick(s *session) {
	if s == nil || s.queue.waiting.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.listLocked(s)
}

// share is how many workers one session, or one logical unit, may have at once.
func (w *scheduler) share() int { return (w.max + 1) / 2 }

// listLocked gives a session a turn if it has something to run and may run
// it, and sees that there is a worker.
func (w *scheduler) listLocked(s *session) {
	q := &s.queue
	if q.usage.listed || len(q.tasks) == 0 || q.running >= w.share() || q.tasks[0].conn.out.Full() || w.eligibleLocked(s) < 0 {
		return
	}
	w.turns.add(s)
	w.startLocked()
}

// eligibleLocked returns the index of a session's first task whose logical unit may
// have another worker, -1 if there is none. The units that may not will give
// the session a turn later.
func (w *scheduler) eligibleLocked(s *session) int {
	for i, t := range s.queue.tasks {
		u := w.units[t.unit()]
		if u == nil || u.running < w.share() && !(u.long && t.cmd.Long()) {
			return i
		}
		if !slices.Contains(u.waiting, s) {
			u.waiting = append(u.waiting, s)
		}
	}
	return -1
}

// beganLocked counts a task that a worker has taken.
func (w *scheduler) beganLocked(t *task) {
	t.sess.queue.running++
	u := w.units[t.unit()]
	if u == nil {
		if u, w.spare = w.spare, nil; u == nil {
			u = new(unitShare)
		}
		w.units[t.unit()] = u
	}
	u.running++
	u.long = u.long || t.cmd.Long()
}

// endedLocked counts a task that a worker is done with, of a session and unit, and what
// time it has taken.
func (w *scheduler) endedLocked(s *session, key unitKey, long bool, took time.Duration) {
	s.queue.running--
	s.queue.usage.used += took
	u := w.units[key]
	u.long = u.long && !long
	waiting := u.waiting
	u.waiting = nil
	if u.running--; u.running == 0 {
		delete(w.units, key)
		w.spare = u
	}
	w.listLocked(s)
	for _, o := range waiting {
		w.listLocked(o)
	}
}

func (w *scheduler) startLocked() {
	if w.active < w.max && len(w.turns.list) > 0 && !w.node.stopped() {
		w.active++
		w.node.wg.Add(1)
		go w.worker()
	}
}

// next takes the first task of the session whose turn it is.
func (w *scheduler) nextLocked() *task {
	for len(w.turns.list) > 0 && !w.node.stopped() {
		s := w.turns.next()
		q := &s.queue
		i := w.eligibleLocked(s)
		if i < 0 {
			continue
		}
		t := q.tasks[i]
		q.tasks = slices.Delete(q.tasks, i, i+1)
		q.waiting.Store(int32(len(q.tasks)))
		w.beganLocked(t)
		w.listLocked(s)
		return t
	}
	return nil
}

func (w *scheduler) worker() {
	defer w.node.wg.Done()
	w.mu.Lock()
	for {
		t := w.nextLocked()
		if t == nil {
			break
		}
		w.mu.Unlock()
		s, unit, long, began := t.sess, t.unit(), t.cmd.Long(), time.Now()
		w.run(t, began)
		w.mu.Lock()
		w.endedLocked(s, unit, long, time.Since(began))
	}
	w.active--
	w.idle.Broadcast()
	w.mu.Unlock()
}

// run executes one task, or a slice of it, unless it was aborted on its way here.
func (w *scheduler) run(t *task, now time.Time) {
	s, c := t.sess, t.conn
	s.mu.Lock()
	if t.aborted {
		waiting := s.finishAbortLocked(t)
		s.mu.Unlock()
		releaseAll(waiting)
	} else if !t.lend() {
		s.awaitMemoryLocked(t)
		s.mu.Unlock()
	} else {
		t.moveLocked(taskRunning)
		t.started = now
		s.mu.Unlock()
		s.execute(t)
	}
	c.out.Flush()
}

// quiesce waits until no worker runs or give closes; the Node is frozen.
func (w *scheduler) quiesce(give <-chan struct{}) bool {
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

// resume starts workers again after a freeze.
func (w *scheduler) resume() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range min(len(w.turns.list), w.max) {
		w.startLocked()
	}
}
