// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// continueLocked finds out what a task needs next: more data, its place in
// the order, or to be run, which it reports.
func (s *session) continueLocked(t *task) (run bool) {
	if !t.dataComplete() {
		if t.keepData() {
			s.askLocked(t)
			return false
		}
		if t.refuse(); !t.dataComplete() {
			return false
		}
	}
	if s.tasks.mustWait(t) {
		if !t.keepData() {
			t.refuse()
		}
		t.cmd.Arrive()
		t.moveLocked(taskBlocked)
		s.tasks.blocked = append(s.tasks.blocked, t)
		return false
	}
	t.moveLocked(taskRunning)
	return true
}

// askLocked sends the R2Ts that a task may have open now (RFC 7143 11.8).
func (s *session) askLocked(t *task) {
	if t.data.Unsolicited() || t.broken != 0 || t.cmd.Done() || t.memoryWait {
		return
	}
	if !t.bufferLocked() {
		s.awaitMemoryLocked(t)
		return
	}
	for t.data.MayAsk(&s.params) {
		r, sn := t.data.Ask(s.window.NewTag(), &s.params)
		t.conn.out.Send(header(&pdu.R2T{
			LUN: t.req.LUN, InitiatorTaskTag: t.req.InitiatorTaskTag, TargetTransferTag: r.TTT,
			R2TSN: sn, BufferOffset: r.Offset, DesiredDataTransferLength: r.Length,
		}), false)
	}
}

// serveMemory implements [borrower].
func (s *session) serveMemory() (until int64) {
	s.mu.Lock()
	var conns []*transport
	for len(s.starved) > 0 {
		t := s.starved[0]
		if t.phase == taskReady && !t.lend() || t.phase != taskReady && !t.bufferLocked() {
			s.engine.wait.add(s)
			until = s.memory.Until(int64(max(t.cmd.Needs(), int(t.data.Want()))))
			break
		}
		s.forgetWaitLocked(t)
		if t.phase == taskReady {
			s.engine.work.Add(&s.queue, t)
			continue
		}
		s.askLocked(t)
		if !slices.Contains(conns, t.conn) {
			conns = append(conns, t.conn)
		}
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.out.Flush()
	}
	return until
}
