// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/gotgtd/gotgtd/internal/ranked"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// What a command and another request cost while they are there, in bytes, besides their data.
const (
	taskCost    = int64(unsafe.Sizeof(task{}) + unsafe.Sizeof(request{}))
	requestCost = int64(unsafe.Sizeof(request{}))
)

// insufficientResources is the condition of a command whose data found no memory (SPC-4 D.2).
const insufficientResources = 0x5503

// refuseForMemory answers a request for which the session has no memory, and whose data has been
// passed over. It uses up its CmdSN. What was to come behind it is ignored, as is what
// comes for a task that there is not.
func (c *conn) refuseForMemory(h *pdu.BHS) {
	s := c.sess
	s.mu.Lock()
	switch s.window.Admit(h.Immediate(), h.CmdSN()) {
	case sequence.Never:
		s.mu.Unlock()
		return
	case sequence.Later:
		s.window.Skip(h.CmdSN())
	}
	s.openWindowLocked()
	s.mu.Unlock()
	if h.Opcode() == pdu.OpSCSICommand && s.target != nil {
		// SAM-5 5.3.1: the initiator is to try again when others of its commands have ended.
		c.out.Send(header(&pdu.SCSIResponse{
			Response: pdu.CommandCompleted, Status: uint8(scsi.TaskSetFull), InitiatorTaskTag: h.InitiatorTaskTag(),
		}), true)
	} else {
		c.reject(pdu.LongOperationReject, h)
	}
	s.runWaiting()
}

// bufferLocked makes the task's buffer one that holds all that the command takes, and reports false
// if the session may have none now.
func (t *task) bufferLocked() bool {
	n := int(t.want)
	if t.buf != nil && n <= cap(t.buf.B) {
		t.buf.B = t.buf.B[:max(n, len(t.buf.B))]
		return true
	}
	b := t.sess.pool.TryGet(n)
	if b == nil {
		return false
	}
	t.moveTo(b)
	return true
}

// moveTo moves the data that has come into another buffer.
func (t *task) moveTo(b *mem.Buffer) {
	n := copy(b.B, t.cmd.Out)
	t.cmd.Out = b.B[:n]
	t.buf.Release()
	t.buf = b
}

// lend gives a command that reads its buffer, and reports false if the session may have
// none now.
func (t *task) lend() bool {
	n := t.cmd.Needs()
	if n == 0 || t.cmd.Buffer != nil {
		return true
	}
	t.cmd.Buffer = t.sess.pool.TryGet(n)
	return t.cmd.Buffer != nil
}

// memoryQueue has the sessions with tasks that wait for memory: writes before their first
// R2T, reads before they run. Whatever frees memory wakes the goroutine that serves it
// (package account), and each session's tasks have their turn by then.
type memoryQueue struct {
	waiting atomic.Int32 // tasks

	mu   ranked.Mutex // protects ring
	ring []*session   // each once, in the order of their turns
}

// awaitMemoryLocked lets a task wait. The caller holds the session's mutex.
func (s *session) awaitMemoryLocked(t *task) {
	q := &s.node.wait
	t.memoryWait = true
	q.waiting.Add(1)
	s.starved = append(s.starved, t)
	s.memory.Await(true)
	if len(s.starved) == 1 {
		q.add(s)
	}
	s.node.memory.Retry() // something may have been given back in between
}

// forgetWaitLocked ends the wait of a task.
func (s *session) forgetWaitLocked(t *task) {
	if i := slices.Index(s.starved, t); i >= 0 {
		s.starved = slices.Delete(s.starved, i, i+1)
	}
	t.memoryWait = false
	s.memory.Await(len(s.starved) > 0)
	s.node.wait.waiting.Add(-1)
}

func (q *memoryQueue) add(s *session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Contains(q.ring, s) {
		q.ring = append(q.ring, s)
	}
}

// lendMemory is a goroutine of the Node: it serves the tasks that wait for memory.
func (n *Node) lendMemory() {
	defer n.wg.Done()
	for {
		select {
		case <-n.stop:
			return
		case <-n.memory.Freed():
			n.outside(n.serveMemory)
		}
	}
}

// serveMemory gives memory to the tasks that wait, as far as their sessions may have it.
func (n *Node) serveMemory() {
	q := &n.wait
	if q.waiting.Load() == 0 {
		return
	}
	wanted := n.memory.Await()
	q.mu.Lock()
	ring := q.ring
	q.ring = nil
	q.mu.Unlock()
	var least int64
	for _, s := range ring {
		if need := s.serveMemory(); need > 0 && (least == 0 || need < least) {
			least = need
		}
	}
	wanted(least)
}

// serveMemory gives memory to the session's tasks in their order, until there is one that may
// have none. The session waits again then, for as many bytes as are returned.
func (s *session) serveMemory() (need int64) {
	s.mu.Lock()
	var conns []*conn
	for len(s.starved) > 0 {
		t := s.starved[0]
		if t.phase == taskReady && !t.lend() || t.phase != taskReady && !t.bufferLocked() {
			s.node.wait.add(s)
			need = int64(max(t.cmd.Needs(), int(t.want)))
			break
		}
		s.forgetWaitLocked(t)
		if t.phase == taskReady {
			s.node.work.add(t)
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
	return need
}
