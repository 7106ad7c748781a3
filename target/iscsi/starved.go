// SPDX-License-Identifier: Apache-2.0

package iscsi

import "slices"

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
