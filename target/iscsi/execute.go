// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// proceed runs a task that is to be run: here if that does not block, on a
// worker otherwise. counts is the caller's own, nil for none. The caller holds no lock.
func (s *session) proceed(t *task, run bool, counts *scsi.Batch) {
	if !run {
		return
	}
	if !t.settled() {
		t.setOut()
		if !s.engine.opt.FastPaths.inPlace() || !t.lend() || !s.nexus.TryExecuteIn(counts, &t.cmd) {
			if t.keepData() {
				s.schedule(t)
				return
			}
			t.refuse()
		}
	}
	s.complete(t)
}

// Run executes one task on a worker, or a slice of it, unless it was aborted on its way here. It
// makes a session a [schedule.Runner].
func (s *session) Run(t *task, began time.Time) {
	c := t.conn
	s.mu.Lock()
	if t.aborted {
		waiting := s.finishAbortLocked(t)
		s.mu.Unlock()
		releaseAll(waiting)
	} else if !t.lend() {
		s.awaitMemoryLocked(t)
		s.mu.Unlock()
	} else {
		t.beginLocked(began)
		s.mu.Unlock()
		s.execute(t)
	}
	c.out.Flush()
}

// execute runs a task on a worker: all of it or a slice, after which it waits for a worker
// again.
func (s *session) execute(t *task) {
	if !t.settled() {
		t.setOut()
		if !s.nexus.ExecuteSlice(t.ctx, &t.cmd) {
			s.schedule(t)
			return
		}
	}
	s.complete(t)
}

// schedule hands a task that would block to the workers.
func (s *session) schedule(t *task) {
	t.cmd.Arrive()
	s.mu.Lock()
	if t.aborted {
		waiting := s.finishAbortLocked(t)
		s.mu.Unlock()
		releaseAll(waiting)
		return
	}
	t.moveLocked(taskReady)
	if t.cmd.Ended() {
		t.cmd.KeepRangeForRepeat()
	}
	s.engine.work.Add(&s.queue, t)
	s.mu.Unlock()
}

// complete ends a task that has run.
func (s *session) complete(t *task) {
	t.buf.Release()
	t.buf, t.cmd.Out = nil, nil
	if len(t.cmd.Preempted) > 0 {
		s.abortPreempted(t)
		return
	}
	s.answer(t)
}

// answer takes a task that has run out of the task set and queues its response.
func (s *session) answer(t *task) {
	s.mu.Lock()
	if t.aborted {
		waiting := s.finishAbortLocked(t)
		s.mu.Unlock()
		releaseAll(waiting)
		return
	}
	s.leaveLocked(t, taskAnswered)
	// Queued under the lock: an abort that finds the task gone is answered
	// behind its response.
	t.conn.out.SendSource(t)
	s.mu.Unlock()
}

// preemption is a PREEMPT AND ABORT, whose status is deferred.
type preemption struct {
	deferred
	sess *session
	task *task
}

// respond implements [responder].
func (p *preemption) respond() {
	c := p.task.conn
	p.sess.answer(p.task)
	c.out.Flush()
}

// abortPreempted aborts the tasks of the I_T nexuses that a PREEMPT AND ABORT has
// preempted, on its logical unit. Its own status is told when those running
// have stopped (SPC-4 5.13.11.2.6): nothing that they still write comes after it.
func (s *session) abortPreempted(t *task) {
	p := &preemption{sess: s, task: t}
	p.begin(p)
	unit, _ := t.cmd.LUN.Number()
	for _, o := range s.table.sessionList() {
		if o.target == nil || o.target.Device != s.target.Device || !slices.Contains(t.cmd.Preempted, o.nexusID()) {
			continue
		}
		o.abortForOthers(func(t *task) bool { return sameUnit(t, unit) && !isPersistentReserveOut(t) }, &p.deferred)
	}
	p.release()
}

// isPersistentReserveOut tells the commands that PREEMPT AND ABORT must not
// wait for: itself, and one that preempts the other way round.
func isPersistentReserveOut(t *task) bool { return t.req.CDB[0] == 0x5f }
