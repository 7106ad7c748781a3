// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// coldResetDelay is how long after the answer to TARGET COLD RESET the
// connections end. Initiators that find answer and end of the stream together
// take the connection for lost and the function for failed.
const coldResetDelay = 200 * time.Millisecond

// management is a Task Management Function Request, whose response is deferred.
type management struct {
	deferred
	node *Node
	sess *session
	conn *transport // that the response goes out on
	tag  uint32     // InitiatorTaskTag of the request
	code uint8      // of the response
	cold bool       // the sessions of the target end afterwards
}

// respond implements [responder].
func (m *management) respond() {
	c := m.conn
	c.out.Send(header(&pdu.TaskManagementResponse{Response: m.code, InitiatorTaskTag: m.tag}), true)
	c.out.FlushNow()
	if m.cold {
		m.dropSessions()
	}
}

// handleTaskManagement carries out a task management function. The response to each
// is deferred, also when there is nothing to wait for.
func (n *Node) handleTaskManagement(s *session, c *transport, h *pdu.BHS) {
	if s.target == nil {
		c.reject(pdu.ProtocolError, h)
		return
	}
	var req pdu.TaskManagementRequest
	req.Decode(h)
	m := &management{node: n, sess: s, conn: c, tag: req.InitiatorTaskTag}
	m.begin(m)
	switch req.Function {
	case pdu.AbortTask:
		m.code = s.abortTask(&req, &m.deferred)
	case pdu.AbortTaskSet, pdu.ClearTaskSet:
		// The Control mode page says TST=001b, one task set for each I_T
		// nexus, so both mean the same tasks (SPC-4 7.5.7).
		m.code = s.abortTaskSet(&req, &m.deferred)
	case pdu.LogicalUnitReset:
		m.code = m.resetUnit(&req)
	case pdu.TargetWarmReset, pdu.TargetColdReset:
		m.cold = req.Function == pdu.TargetColdReset
		m.resetTarget(&req)
	case pdu.TaskReassign:
		m.code = pdu.AllegianceReassignUnsupport
	default:
		m.code = pdu.FunctionNotSupported
	}
	m.release()
	n.tally.Management(req.Function)
}

// abortTask is ABORT TASK (RFC 7143 11.5.1 and 11.5.5).
func (s *session) abortTask(req *pdu.TaskManagementRequest, d *deferred) uint8 {
	s.mu.Lock()
	t := s.tasks.byTag[req.ReferencedTaskTag]
	if t != nil && (!t.aborted || t.told) {
		s.abortLocked(func(o *task) bool { return o == t }, d)
		s.mu.Unlock()
		return pdu.FunctionComplete
	}
	// A command that has not arrived yet, but has its place in the window
	// before this request, counts as received and aborted.
	if !s.window.Expects(req.RefCmdSN) || !pdu.SNLess(req.RefCmdSN, req.CmdSN) {
		s.mu.Unlock()
		return pdu.TaskDoesNotExist
	}
	s.window.Skip(req.RefCmdSN) // whose turn may come at once
	s.mu.Unlock()
	return pdu.FunctionComplete
}

// abortTaskSet is ABORT TASK SET and CLEAR TASK SET.
func (s *session) abortTaskSet(req *pdu.TaskManagementRequest, d *deferred) uint8 {
	n, ok := scsi.LUN(req.LUN).Number()
	if !ok || !s.nexus.Sees(n) {
		return pdu.LUNDoesNotExist
	}
	s.abort(req, func(t *task) bool { return sameUnit(t, n) }, d)
	return pdu.FunctionComplete
}

// abort aborts tasks of the session that came before the request.
func (s *session) abort(req *pdu.TaskManagementRequest, match func(*task) bool, d *deferred) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abortLocked(func(t *task) bool {
		return match(t) && (t.phase != taskEarly || pdu.SNLess(t.req.CmdSN, req.CmdSN))
	}, d)
}

// resetUnit is LOGICAL UNIT RESET: it aborts the tasks of every session.
func (m *management) resetUnit(req *pdu.TaskManagementRequest) uint8 {
	s := m.sess
	n, ok := scsi.LUN(req.LUN).Number()
	if !ok || !s.nexus.Sees(n) {
		return pdu.LUNDoesNotExist
	}
	m.abortIn(req, m.node.sessionList(), func(t *task) bool { return sameUnit(t, n) })
	s.target.Device.LogicalUnitReset(scsi.LUN(req.LUN), s.nexus)
	return pdu.FunctionComplete
}

// resetTarget is TARGET WARM RESET, and what TARGET COLD RESET has in common
// with it.
func (m *management) resetTarget(req *pdu.TaskManagementRequest) {
	s := m.sess
	if !m.resets().own(m.cold) {
		m.abortIn(req, m.node.sessionList(), m.mayReset)
		s.target.Device.TargetReset(s.nexus, m.cold)
		return
	}
	m.abortIn(req, m.sameInitiator(), m.mayReset)
	s.target.Device.ResetNexuses(s.nexus, m.cold, func(id scsi.NexusID) bool { return id.Initiator == s.initiator })
}

// resets is what the target says of resets now, if it is served still.
func (m *management) resets() ResetScope {
	return cmp.Or(m.node.target(m.sess.target.Name), m.sess.target).Resets
}

// sameInitiator returns the sessions of the session's initiator with its target. One of
// another account has the same name by chance or on purpose, and is not among them.
func (m *management) sameInitiator() []*session {
	s := m.sess
	return slices.DeleteFunc(m.node.sessionList(), func(o *session) bool {
		return o.target == nil || o.target.Device != s.target.Device || o.initiator != s.initiator || o.account != s.account
	})
}

// mayReset reports whether a reset of the target that this session asks for
// concerns a task: what it can't see it can't disturb.
func (m *management) mayReset(t *task) bool {
	u, ok := scsi.LUN(t.req.LUN).Number()
	return t.terms == &m.sess.terms || ok && m.sess.nexus.Sees(u)
}

// abortIn aborts tasks of those of the sessions that are with the target. Those of
// other sessions count as older than the request wherever they are.
func (m *management) abortIn(req *pdu.TaskManagementRequest, sessions []*session, match func(*task) bool) {
	for _, o := range sessions {
		switch {
		case o == m.sess:
			o.abort(req, match, &m.deferred)
		case o.target != nil && o.target.Device == m.sess.target.Device:
			o.abortForOthers(match, &m.deferred)
		}
	}
}

// dropSessions ends the sessions that a TARGET COLD RESET of this one concerns, after a
// while. It returns at once.
func (m *management) dropSessions() {
	sessions := m.node.sessionList()
	if m.resets().own(true) {
		sessions = m.sameInitiator()
	}
	first := false // each of them ends once, however often that is asked for
	for _, o := range sessions {
		if o.target == nil || o.target.Device != m.sess.target.Device {
			continue
		}
		o.mu.Lock()
		first = first || !o.resetting
		o.resetting = true
		o.mu.Unlock()
	}
	if first {
		m.node.endReset()
	}
}

// endReset ends the sessions whose target was reset, after coldResetDelay.
func (n *Node) endReset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.freeze.is(nodeEnding) {
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
		n.freeze.outside(func() {
			for _, s := range n.sessionList() {
				if s.isResetting() {
					s.end(errReset)
				}
			}
		})
	}()
}
