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
// Sessions take turns, one task each, so that a busy one does not starve the
// others, and none may hold more than half of the workers.
type scheduler struct {
	node *Node
	max  int // workers

	mu     ranked.Mutex // protects the fields below and every session's queue
	idle   sync.Cond    // signalled when a worker ends
	active int
	ring   []*session // sessions that have a task to run, in the order of their turns
}

// queue holds one session's tasks that wait for a worker.
type queue struct {
	waiting atomic.Int32 // len(tasks), to look at without the lock
	tasks   []*task
	running int
	listed  bool // in the scheduler's ring
}

func (w *scheduler) init(n *Node, workers int) {
	w.node, w.max = n, workers
	w.mu.SetRank(rankQueue)
	w.idle.L = &w.mu
}

// add queues a ready task. The caller holds the session's mutex.
func (w *scheduler) add(t *task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := &t.sess.queue
	q.tasks = append(q.tasks, t)
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

// listLocked gives a session a turn if it has something to run and may run
// it, and sees that there is a worker.
func (w *scheduler) listLocked(s *session) {
	q := &s.queue
	if q.listed || len(q.tasks) == 0 || q.running >= (w.max+1)/2 || q.tasks[0].conn.out.Full() {
		return
	}
	q.listed = true
	w.ring = append(w.ring, s)
	w.startLocked()
}

func (w *scheduler) startLocked() {
	if w.active < w.max && len(w.ring) > 0 && !w.node.stopped() {
		w.active++
		w.node.wg.Add(1)
		go w.worker()
	}
}

// next takes the first task of the session whose turn it is.
func (w *scheduler) nextLocked() *task {
	for len(w.ring) > 0 && !w.node.stopped() {
		s := w.ring[0]
		w.ring = slices.Delete(w.ring, 0, 1)
		q := &s.queue
		q.listed = false
		if len(q.tasks) == 0 {
			continue
		}
		t := q.tasks[0]
		q.tasks = slices.Delete(q.tasks, 0, 1)
		q.waiting.Store(int32(len(q.tasks)))
		q.running++
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
		s := t.sess
		w.run(t)
		w.mu.Lock()
		s.queue.running--
		w.listLocked(s)
	}
	w.active--
	w.idle.Broadcast()
	w.mu.Unlock()
}

// run executes one task, unless it was aborted on its way here.
func (w *scheduler) run(t *task) {
	s, c := t.sess, t.conn
	s.mu.Lock()
	if t.aborted {
		waiting := s.finishAbortLocked(t)
		s.mu.Unlock()
		releaseAll(waiting)
	} else {
		t.moveLocked(taskRunning)
		t.started = time.Now()
		s.mu.Unlock()
		s.execute(t)
	}
	c.out.Flush()
	w.node.memory.serve(w.node)
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
	for range min(len(w.ring), w.max) {
		w.startLocked()
	}
}
