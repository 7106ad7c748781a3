// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// mayEnterLocked reports whether the task set has a place for a command, or else
// why it is rejected.
func (s *session) mayEnterLocked(req *pdu.SCSICommand) (pdu.RejectReason, bool) {
	switch {
	case s.tasks[req.InitiatorTaskTag] != nil, req.InitiatorTaskTag == pdu.ReservedTag:
		return pdu.TaskInProgress, false
	case req.Immediate && s.immediate >= maxImmediate:
		return pdu.ImmediateCmdReject, false
	}
	return 0, true
}

// mustWaitLocked applies the task attributes (SAM-5 8.9) within the task set
// of this nexus and logical unit: an ORDERED task waits for all older tasks,
// and younger ones wait for it; HEAD OF QUEUE waits for nobody.
func (s *session) mustWaitLocked(t *task) bool {
	if s.ordered == 0 || t.req.Attribute == pdu.HeadOfQueue {
		return false
	}
	for _, o := range s.tasks {
		if o.order < t.order && o.phase != taskEarly && o.req.LUN == t.req.LUN &&
			(t.req.Attribute == pdu.Ordered || o.req.Attribute == pdu.Ordered) {
			return true
		}
	}
	return false
}

// leaveLocked takes a task out of the task set, answered or ended.
func (s *session) leaveLocked(t *task, to taskPhase) {
	delete(s.tasks, t.req.InitiatorTaskTag)
	if t.req.Immediate {
		s.immediate--
	}
	if t.req.Attribute == pdu.Ordered && t.phase != taskEarly {
		s.ordered--
	}
	t.moveLocked(to)
	t.cmd.ReleaseRange()
	s.openWindowLocked()
	s.idle.Broadcast()
	if len(s.blocked) > 0 {
		s.unblockLocked()
	}
}

// unblockLocked gives the blocked tasks that need not wait any more to the
// workers.
func (s *session) unblockLocked() {
	s.blocked = slices.DeleteFunc(s.blocked, func(t *task) bool {
		if s.mustWaitLocked(t) {
			return false
		}
		t.moveLocked(taskReady)
		s.engine.work.Add(&s.queue, t)
		return true
	})
}

func (s *session) runningOnLocked(c *transport) bool {
	for _, t := range s.tasks {
		if t.conn == c && t.phase == taskRunning {
			return true
		}
	}
	return false
}

// awaitMemoryLocked lets a task wait. The caller holds the session's mutex.
func (s *session) awaitMemoryLocked(t *task) {
	q := &s.engine.wait
	t.memoryWait = true
	q.waiting.Add(1)
	s.starved = append(s.starved, t)
	s.memory.Await(true)
	if len(s.starved) == 1 {
		q.add(s)
	}
	s.engine.memory.Retry() // something may have been given back in between
}

// forgetWaitLocked ends the wait of a task.
func (s *session) forgetWaitLocked(t *task) {
	if i := slices.Index(s.starved, t); i >= 0 {
		s.starved = slices.Delete(s.starved, i, i+1)
	}
	t.memoryWait = false
	s.memory.Await(len(s.starved) > 0)
	s.engine.wait.waiting.Add(-1)
}
