// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// errTaskAborted is why a call of a store is ended.
var errTaskAborted = errors.New("the command was aborted")

// abortLocked aborts the tasks that match at the wish of their own I_T nexus: they get
// no answer. Those running end later and then release d. With nil the nexus is lost, and
// nobody waits for those running: they keep the blocks that they change until they end.
func (s *session) abortLocked(match func(*task) bool, d *deferred) {
	for _, t := range s.tasks.byTag {
		if !match(t) {
			continue
		}
		if d == nil && t.phase == taskRunning {
			t.cmd.KeepRange()
		}
		if t.aborted && !t.told {
			continue
		}
		t.aborted, t.told = true, false
		t.endLocked(errTaskAborted)
		switch {
		case t.phase == taskEarly:
			// Its CmdSN still has to be used up: deliverLocked drops it.
		case t.memoryWait:
			s.dropLocked(t)
		case t.phase == taskRunning, t.phase == taskReady && !s.engine.work.Remove(&s.queue, t):
			if d != nil {
				d.waiting.Add(1)
				t.deferred = append(t.deferred, d)
			}
		default:
			s.dropLocked(t)
		}
	}
}

// abortForOthers aborts the tasks that match at the wish of another I_T nexus. Where the
// logical unit has TAS=1, each is answered with TASK ABORTED (SAM-5 5.6): an initiator that
// has done nothing must not wait for its timeout. Those running release d when they end.
func (s *session) abortForOthers(match func(*task) bool, d *deferred) {
	if s.apart != nil { // its tasks come with its data, which follows a handoff
		<-s.apart.done
	}
	s.mu.Lock()
	conns := s.connsLocked()
	s.abortLocked(func(t *task) bool { return match(t) && !s.tellsLocked(t) }, d)
	for _, t := range s.tasks.byTag {
		if match(t) && !t.aborted {
			s.abortAndTellLocked(t, d)
		}
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.out.Flush()
	}
}

// tellsLocked reports whether a task that others abort is answered.
func (s *session) tellsLocked(t *task) bool {
	return s.phase == sessionOpen && s.target.Device.TaskAbortedStatus(scsi.LUN(t.req.LUN))
}

// abortAndTellLocked ends a task with TASK ABORTED: now if it waits for nothing else, in its
// turn if that has not come, after the data that the initiator is sending (RFC 7143
// 11.4.7.2), or when it stops running.
func (s *session) abortAndTellLocked(t *task, d *deferred) {
	switch {
	case t.memoryWait:
		s.forgetWaitLocked(t)
	case t.phase == taskRunning, t.phase == taskReady && !s.engine.work.Remove(&s.queue, t):
		t.aborted, t.told = true, true
		t.endLocked(errTaskAborted)
		d.waiting.Add(1)
		t.deferred = append(t.deferred, d)
		return
	}
	t.cmd.AbortForOthers()
	switch t.phase {
	case taskEarly:
		return
	case taskData:
		if !t.dataComplete() {
			return
		}
	case taskBlocked:
		s.tasks.unblock(t)
		t.moveLocked(taskReady)
	}
	t.moveLocked(taskRunning)
	s.tellAbortLocked(t)
}

// tellAbortLocked answers a task that others have aborted and that has stopped.
func (s *session) tellAbortLocked(t *task) {
	t.cmd.AbortForOthers()
	t.buf.Release()
	t.buf, t.cmd.Out = nil, nil
	s.leaveLocked(t, taskAnswered)
	t.conn.out.SendSource(t)
}

// dropLocked ends a task that does not run, without an answer.
func (s *session) dropLocked(t *task) {
	if t.memoryWait {
		s.forgetWaitLocked(t)
	}
	s.tasks.unblock(t)
	s.leaveLocked(t, taskEnded)
	if !t.filling {
		t.release()
	}
}

// finishAbortLocked ends an aborted task that has stopped running. The caller
// releases what it returns once it holds no lock.
func (s *session) finishAbortLocked(t *task) []*deferred {
	list := t.deferred
	t.deferred = nil
	if t.told {
		if t.phase == taskReady {
			t.moveLocked(taskRunning)
		}
		s.tellAbortLocked(t)
		return list
	}
	s.leaveLocked(t, taskEnded)
	t.release()
	return list
}

func sameUnit(t *task, n uint16) bool {
	u, ok := scsi.LUN(t.req.LUN).Number()
	return ok && u == n
}
