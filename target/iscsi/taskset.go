// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// maxImmediate is the most immediate commands in the task set at once: they pass by the CmdSN
// window (RFC 7143 4.2.2.1), so they need a limit of their own.
const maxImmediate = 16

// taskSet has the tasks of one I_T nexus, and which of them wait for others because of their task
// attributes. The mutex of the session protects it.
type taskSet struct {
	byTag     map[uint32]*task // by initiator task tag
	immediate int              // tasks that came as immediate commands
	blocked   []*task          // ready, but behind an ORDERED task or the other way round
	ordered   int              // ORDERED tasks that have been delivered
	arrivals  uint64           // tasks delivered so far
}

// mayEnter reports whether the task set has a place for a command, or else
// why it is rejected.
func (s *taskSet) mayEnter(req *pdu.SCSICommand) (pdu.RejectReason, bool) {
	switch {
	case s.byTag[req.InitiatorTaskTag] != nil, req.InitiatorTaskTag == pdu.ReservedTag:
		return pdu.TaskInProgress, false
	case req.Immediate && s.immediate >= maxImmediate:
		return pdu.ImmediateCmdReject, false
	}
	return 0, true
}

// enter adds a task, which may be ahead of its turn.
func (s *taskSet) enter(t *task) {
	s.byTag[t.req.InitiatorTaskTag] = t
	if t.req.Immediate {
		s.immediate++
	}
}

// deliver gives a task its place in the order of delivery.
func (s *taskSet) deliver(t *task) {
	t.order = s.arrivals
	s.arrivals++
	t.moveLocked(taskData)
	s.delivered(t)
}

// delivered counts a task that has its place.
func (s *taskSet) delivered(t *task) {
	if t.req.Attribute == pdu.Ordered {
		s.ordered++
	}
}

// mustWait applies the task attributes (SAM-5 8.9) within the task set
// of this nexus and logical unit: an ORDERED task waits for all older tasks,
// and younger ones wait for it; HEAD OF QUEUE waits for nobody.
func (s *taskSet) mustWait(t *task) bool {
	if s.ordered == 0 || t.req.Attribute == pdu.HeadOfQueue {
		return false
	}
	for _, o := range s.byTag {
		if o.order < t.order && o.phase != taskEarly && o.req.LUN == t.req.LUN &&
			(t.req.Attribute == pdu.Ordered || o.req.Attribute == pdu.Ordered) {
			return true
		}
	}
	return false
}

// unblock takes a task out of those that wait for others.
func (s *taskSet) unblock(t *task) {
	if i := slices.Index(s.blocked, t); i >= 0 {
		s.blocked = slices.Delete(s.blocked, i, i+1)
	}
}

// next takes the first of the tasks that waited for others and need not any more, nil if there is
// none.
func (s *taskSet) next() *task {
	i := slices.IndexFunc(s.blocked, func(t *task) bool { return !s.mustWait(t) })
	if i < 0 {
		return nil
	}
	t := s.blocked[i]
	s.blocked = slices.Delete(s.blocked, i, i+1)
	return t
}

// leave takes a task out, answered or ended.
func (s *taskSet) leave(t *task, to taskPhase) {
	delete(s.byTag, t.req.InitiatorTaskTag)
	if t.req.Immediate {
		s.immediate--
	}
	if t.req.Attribute == pdu.Ordered && t.phase != taskEarly {
		s.ordered--
	}
	t.moveLocked(to)
}

// runningOn reports whether a task of a connection runs.
func (s *taskSet) runningOn(c *transport) bool {
	for _, t := range s.byTag {
		if t.conn == c && t.phase == taskRunning {
			return true
		}
	}
	return false
}
