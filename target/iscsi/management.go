// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// preemptWait is how long PREEMPT AND ABORT waits for the commands that it
// aborts to stop running.
const preemptWait = 2 * time.Second

// coldResetDelay is how long after the answer to TARGET COLD RESET the
// connections end. Initiators that find answer and end of the stream together
// take the connection for lost and the function for failed.
const coldResetDelay = 200 * time.Millisecond

// management is a task management function (RFC 7143 11.5) that is answered
// when the tasks that it aborted have stopped running.
type management struct {
	waiting atomic.Int32 // running tasks, and one for the function itself
	done    func()
}

func newManagement(done func()) *management {
	m := &management{done: done}
	m.waiting.Store(1)
	return m
}

// release ends one of the waits, the last one ends the function.
func (m *management) release() {
	if m.waiting.Add(-1) == 0 {
		m.done()
	}
}

// abortLocked aborts the tasks that match: they get no answer. Those running
// end later and then release m, which may be nil.
func (s *session) abortLocked(match func(*task) bool, m *management) {
	for _, t := range s.tasks {
		if !match(t) || t.aborted {
			continue
		}
		t.aborted = true
		switch {
		case t.state == taskEarly:
			// Its CmdSN still has to be used up: deliverLocked drops it.
		case t.state == taskRunning, t.state == taskReady && !s.node.work.remove(t):
			if m != nil {
				m.waiting.Add(1)
				t.managers = append(t.managers, m)
			}
		default:
			s.dropLocked(t)
		}
	}
}

// dropLocked ends a task that does not run, without an answer.
func (s *session) dropLocked(t *task) {
	if t.memoryWait {
		s.node.memory.drop(func(w *memoryWaiter) bool { return w.task == t })
	}
	if i := slices.Index(s.blocked, t); i >= 0 {
		s.blocked = slices.Delete(s.blocked, i, i+1)
	}
	s.leaveLocked(t)
	if !t.filling {
		t.release(s.node)
	}
}

// finishAbortLocked ends an aborted task that has stopped running. The caller
// releases what it returns once it holds no lock.
func (s *session) finishAbortLocked(t *task) []*management {
	managers := t.managers
	t.managers = nil
	s.leaveLocked(t)
	t.release(s.node)
	return managers
}

func releaseAll(managers []*management) {
	for _, m := range managers {
		m.release()
	}
}

// handleTaskManagement carries out a task management function. Each answers
// through [management], also when there is nothing to wait for.
func (c *conn) handleTaskManagement(h *pdu.BHS) error {
	if c.sess.target == nil {
		c.reject(pdu.ProtocolError, h)
		return nil
	}
	var req pdu.TaskManagementRequest
	req.Decode(h)
	response := uint8(pdu.FunctionComplete)
	after := func() {}
	m := newManagement(func() {
		c.out.send(header(&pdu.TaskManagementResponse{Response: response, InitiatorTaskTag: req.InitiatorTaskTag}), true)
		c.out.flushNow()
		after()
	})
	switch req.Function {
	case pdu.AbortTask:
		response = c.sess.abortTask(&req, m)
	case pdu.AbortTaskSet, pdu.ClearTaskSet:
		// The Control mode page says TST=001b, one task set for each I_T
		// nexus, so both mean the same tasks (SPC-4 7.5.7).
		response = c.sess.abortTaskSet(&req, m)
	case pdu.LogicalUnitReset:
		response = c.sess.resetUnit(&req, m)
	case pdu.TargetWarmReset, pdu.TargetColdReset:
		c.sess.resetTarget(&req, m)
		if req.Function == pdu.TargetColdReset {
			after = func() { c.node.dropSessions(c.sess.target) }
		}
	case pdu.TaskReassign:
		response = pdu.AllegianceReassignUnsupport
	default:
		response = pdu.FunctionNotSupported
	}
	m.release()
	return nil
}

// abortTask is ABORT TASK (RFC 7143 11.5.1 and 11.5.5).
func (s *session) abortTask(req *pdu.TaskManagementRequest, m *management) uint8 {
	s.mu.Lock()
	t := s.tasks[req.ReferencedTaskTag]
	if t != nil && !t.aborted {
		s.abortLocked(func(o *task) bool { return o == t }, m)
		s.mu.Unlock()
		return pdu.FunctionComplete
	}
	// A command that has not arrived yet, but has its place in the window
	// before this request, counts as received and aborted.
	if !s.window.Expects(req.RefCmdSN) || !pdu.SNLess(req.RefCmdSN, req.CmdSN) {
		s.mu.Unlock()
		return pdu.TaskDoesNotExist
	}
	s.window.Skip(req.RefCmdSN)
	s.mu.Unlock()
	s.runWaiting()
	return pdu.FunctionComplete
}

// abortTaskSet is ABORT TASK SET and CLEAR TASK SET.
func (s *session) abortTaskSet(req *pdu.TaskManagementRequest, m *management) uint8 {
	n, ok := scsi.LUN(req.LUN).Number()
	if !ok || !s.nexus.Sees(n) {
		return pdu.LUNDoesNotExist
	}
	s.abort(req, func(t *task) bool { return sameUnit(t, n) }, m)
	return pdu.FunctionComplete
}

// abort aborts tasks of the session that came before the request.
func (s *session) abort(req *pdu.TaskManagementRequest, match func(*task) bool, m *management) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abortLocked(func(t *task) bool {
		return match(t) && (t.state != taskEarly || pdu.SNLess(t.req.CmdSN, req.CmdSN))
	}, m)
}

func sameUnit(t *task, n uint16) bool {
	u, ok := scsi.LUN(t.req.LUN).Number()
	return ok && u == n
}

// resetUnit is LOGICAL UNIT RESET: it aborts the tasks of every session.
func (s *session) resetUnit(req *pdu.TaskManagementRequest, m *management) uint8 {
	n, ok := scsi.LUN(req.LUN).Number()
	if !ok || !s.nexus.Sees(n) {
		return pdu.LUNDoesNotExist
	}
	s.abortEverywhere(req, func(t *task) bool { return sameUnit(t, n) }, m)
	s.target.Device.LogicalUnitReset(scsi.LUN(req.LUN), s.nexus)
	return pdu.FunctionComplete
}

// resetTarget is TARGET WARM RESET, and what TARGET COLD RESET has in common
// with it.
func (s *session) resetTarget(req *pdu.TaskManagementRequest, m *management) {
	s.abortEverywhere(req, s.mayReset, m)
	s.target.Device.TargetReset(s.nexus, req.Function == pdu.TargetColdReset)
}

// mayReset reports whether a reset of the target that this session asks for
// concerns a task: what it can't see it can't disturb.
func (s *session) mayReset(t *task) bool {
	u, ok := scsi.LUN(t.req.LUN).Number()
	return t.conn.sess == s || ok && s.nexus.Sees(u)
}

// abortEverywhere aborts tasks of all sessions with the target. Those of
// other sessions count as older than the request wherever they are.
func (s *session) abortEverywhere(req *pdu.TaskManagementRequest, match func(*task) bool, m *management) {
	for _, o := range s.node.sessionList() {
		switch {
		case o == s:
			o.abort(req, match, m)
		case o.target != nil && o.target.Device == s.target.Device:
			o.mu.Lock()
			o.abortLocked(match, m)
			o.mu.Unlock()
		}
	}
}

// dropSessions ends all sessions with a target after a while. It returns at
// once.
func (n *Node) dropSessions(t *Target) {
	for _, s := range n.sessionList() {
		s.mu.Lock()
		s.resetting = s.resetting || s.target != nil && s.target.Device == t.Device
		s.mu.Unlock()
	}
	n.endReset()
}

// endReset ends the sessions whose target was reset, after coldResetDelay.
func (n *Node) endReset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.wg.Add(1)
	go func() {
		defer n.wg.Done()
		timer := time.NewTimer(coldResetDelay)
		defer timer.Stop()
		select {
		case <-n.stop:
			return
		case <-timer.C:
		}
		n.outside(func() {
			for _, s := range n.sessionList() {
				if s.isResetting() {
					s.end(errReset)
				}
			}
		})
	}()
}

func (s *session) isResetting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resetting
}

// AbortTasks aborts the tasks of one I_T nexus on one logical unit, for
// PREEMPT AND ABORT (SPC-4 5.12.11.2.7), and waits a bounded time for those
// running to stop.
func (n *Node) AbortTasks(device *scsi.Device, victim scsi.NexusID, lun scsi.LUN) {
	unit, ok := lun.Number()
	if !ok {
		return
	}
	done := make(chan struct{})
	m := newManagement(func() { close(done) })
	for _, s := range n.sessionList() {
		if s.target == nil || s.target.Device != device || s.nexusID() != victim {
			continue
		}
		s.mu.Lock()
		s.abortLocked(func(t *task) bool { return sameUnit(t, unit) && !isPersistentReserveOut(t) }, m)
		s.mu.Unlock()
	}
	m.release()
	timeout := time.NewTimer(preemptWait)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}

// isPersistentReserveOut tells the commands that PREEMPT AND ABORT must not
// wait for: itself, and one that preempts the other way round.
func isPersistentReserveOut(t *task) bool { return t.req.CDB[0] == 0x5f }
