// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/sequence"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// maxR2T is the most R2Ts of one task that are open at a time.
const maxR2T = login.MaxR2T

// task is one SCSI command. Its fields are protected by the session's mutex
// until it runs; then they belong to whoever runs it, and at last to the
// output queue of its connection.
type task struct {
	cmd     scsi.Command
	req     pdu.SCSICommand
	sess    *session
	conn    *conn
	phase   taskPhase
	order   uint64    // place in the order of delivery
	started time.Time // when a worker began to run it; zero on a reader

	// Data-out. Data arrives in order, because DataPDUInOrder and
	// DataSequenceInOrder are always Yes.
	buf         *mem.Buffer
	want        uint32 // bytes that the command takes
	received    uint32 // bytes that have come; the next Data-Out starts here
	unsolicited bool   // Data-Out PDUs that nobody asked for are still to come
	outSN       uint32 // DataSN of the next unsolicited Data-Out
	asked       uint32 // R2Ts have asked for the bytes before this one
	r2ts        [maxR2T]r2t
	openR2Ts    int // r2ts[:openR2Ts], oldest first
	r2tSN       uint32
	unanswered  unanswered
	filling     bool   // the connection's reader is writing into buf
	memoryWait  bool   // waits for memory: before its first R2T, or before it runs
	broken      uint16 // the transport error to report instead of executing, 0 for none

	aborted  bool
	told     bool        // aborted while it ran, by others: it ends with TASK ABORTED
	deferred []*deferred // responses that wait for this task to stop running

	// Data-in, the flusher's.
	inSent       int
	dataSN       uint32
	senseSegment [2 + 252]byte
}

// r2t is a request for data that has been sent (RFC 7143 11.8).
type r2t struct {
	TTT    uint32 `cbor:"1,keyasint"`
	Offset uint32 `cbor:"2,keyasint"`
	Length uint32 `cbor:"3,keyasint"`
	DataSN uint32 `cbor:"4,keyasint"` // of the next Data-Out that answers it
}

// newTask returns a task whose cost is on the session's account already.
func (n *Node) newTask(c *conn) *task {
	t := n.tasks.Get().(*task)
	t.cmd.Pool = c.sess.pool
	t.conn, t.sess = c, c.sess
	return t
}

// release gives back what the task holds and the task itself.
func (t *task) release(n *Node) {
	t.buf.Release()
	t.cmd.In.Release()
	t.cmd.Buffer.Release()
	t.cmd.Reset()
	account := t.sess.memory
	req := &t.req
	*req = pdu.SCSICommand{}
	t.sess, t.conn, t.phase, t.order = nil, nil, taskEarly, 0
	t.buf, t.want, t.received, t.unsolicited, t.outSN = nil, 0, 0, false, 0
	t.asked, t.openR2Ts, t.r2tSN, t.filling, t.memoryWait, t.broken = 0, 0, 0, false, false, 0
	t.unanswered = unanswered{}
	t.aborted, t.told, t.deferred, t.inSent, t.dataSN = false, false, t.deferred[:0], 0, 0
	n.tasks.Put(t)
	account.Release(taskCost)
}

// handleCommand takes in a SCSI Command PDU (RFC 7143 11.3).
func (c *conn) handleCommand(h *pdu.BHS, data []byte) error {
	s := c.sess
	if s.target == nil {
		c.reject(pdu.ProtocolError, h) // RFC 7143 4.4.3: no commands in a discovery session
		return nil
	}
	if !s.memory.Admit(taskCost) {
		c.refuseForMemory(h)
		return nil
	}
	t := c.node.newTask(c)
	t.req.Decode(h)
	s.mu.Lock()
	when := s.window.Admit(t.req.Immediate, t.req.CmdSN)
	if when == sequence.Never || s.phase != sessionOpen {
		s.mu.Unlock()
		t.release(c.node)
		return nil
	}
	if reason, ok := s.mayEnterLocked(&t.req); !ok {
		return c.refuse(t, h, when, reason)
	}
	s.tasks[t.req.InitiatorTaskTag] = t
	if t.req.Immediate {
		s.immediate++
	}
	c.takeImmediateData(t, data)
	if when == sequence.Later {
		if !t.keepData() {
			t.loseData()
		}
		s.window.Keep(t.req.CmdSN, &request{conn: c, bhs: *h, task: t})
		s.mu.Unlock()
		return nil
	}
	run := s.deliverLocked(t)
	more := s.window.Len() > 0
	s.mu.Unlock()
	s.proceed(t, run)
	if more {
		s.runWaiting()
	}
	return nil
}

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

// refuse rejects a command that can't enter the task set. It uses up its CmdSN
// all the same, in its turn. The caller holds the session's mutex.
func (c *conn) refuse(t *task, h *pdu.BHS, when sequence.Turn, reason pdu.RejectReason) error {
	s := c.sess
	if when == sequence.Later {
		s.window.Skip(t.req.CmdSN)
	}
	s.openWindowLocked()
	s.mu.Unlock()
	t.release(c.node)
	c.reject(reason, h)
	s.runWaiting()
	return nil
}

// takeImmediateData notes the data that came with the command. It stays in
// the input buffer for now; [task.keepData] moves it when it must outlive that.
func (c *conn) takeImmediateData(t *task, data []byte) {
	p, r := &c.sess.params, &t.req
	t.unsolicited = r.Write && !r.Final
	n := uint32(len(data))
	switch {
	case n > 0 && (!r.Write || !p.ImmediateData || n > p.FirstBurstLength || n > r.ExpectedDataTransferLength):
		t.broken = scsi.UnexpectedUnsolicitedData
		return
	case t.unsolicited && (p.InitialR2T || n >= min(p.FirstBurstLength, r.ExpectedDataTransferLength)):
		t.broken = scsi.UnexpectedUnsolicitedData
		t.unsolicited = false
		return
	}
	t.cmd.Out = data
	t.received = n
	if c.node.opt.FastPaths.inPlace() {
		if b := c.in.Take(); b != nil {
			t.buf = b
		}
	}
}

// keepData moves data-out from the input buffer into the task's own, with room for what comes
// unsolicited, and reports false if the session may have none now. Room for what has to be asked
// for comes later: see [task.bufferLocked].
func (t *task) keepData() bool {
	size := t.keeps()
	if size == 0 {
		return true
	}
	if t.buf != nil && size <= cap(t.buf.B) {
		t.buf.B = t.buf.B[:max(size, len(t.buf.B))]
		return true
	}
	b := t.sess.pool.TryGet(size)
	if b == nil {
		return false
	}
	t.moveTo(b)
	return true
}

// keeps is how many bytes of data-out a task has to keep before it is asked for more.
func (t *task) keeps() int {
	if t.cmd.Done() || t.broken != 0 || t.received == 0 && !t.unsolicited {
		return 0
	}
	size := int(min(t.received, t.req.ExpectedDataTransferLength))
	if t.unsolicited {
		size = int(min(t.sess.params.FirstBurstLength, t.req.ExpectedDataTransferLength))
	}
	if t.phase != taskEarly {
		size = min(size, int(t.want)) // more than the command takes is passed over
	}
	return size
}

// loseData gives up the data of a command that is ahead of its turn.
func (t *task) loseData() {
	t.broken = insufficientResources
	t.cmd.Out = nil
}

// deliverLocked brings a command before the device server in its turn, and
// reports whether it is to be run now.
func (s *session) deliverLocked(t *task) (run bool) {
	r := &t.req
	t.order = s.arrivals
	s.arrivals++
	t.moveLocked(taskData)
	t.address()
	if r.Attribute == pdu.Ordered {
		s.ordered++
	}
	if t.aborted {
		s.dropLocked(t)
		return false
	}
	if t.broken == 0 && !t.cmd.Done() { // it is if others have aborted it
		s.nexus.Prepare(&t.cmd)
	}
	t.setWant()
	return s.continueLocked(t)
}

// address tells the command what the initiator's PDU says.
func (t *task) address() {
	r := &t.req
	t.cmd.CDB, t.cmd.LUN = r.CDB, scsi.LUN(r.LUN)
	if r.Write {
		t.cmd.OutExpected = r.ExpectedDataTransferLength
	} else if r.Read {
		t.cmd.InExpected = r.ExpectedDataTransferLength
	}
}

// setWant finds out how much data-out a prepared command takes.
func (t *task) setWant() {
	if t.broken == 0 && !t.cmd.Done() && t.cmd.Direction == scsi.DataOut {
		t.want = min(t.cmd.Length, t.cmd.OutExpected) // none without the W bit: an R2T would have no answer
	}
}

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
	if s.mustWaitLocked(t) {
		if !t.keepData() {
			t.refuse()
		}
		t.moveLocked(taskBlocked)
		s.blocked = append(s.blocked, t)
		return false
	}
	t.moveLocked(taskRunning)
	return true
}

// refuse ends a command for which there is no memory, before it has done anything.
func (t *task) refuse() {
	t.cmd.Settle(scsi.TaskSetFull, nil)
	t.cmd.Out = nil
}

// dataComplete reports whether all data-out has come that will. A failed
// command still waits for the end of what the initiator is sending (RFC 7143
// 11.4.7.2).
func (t *task) dataComplete() bool {
	if t.unsolicited || t.openR2Ts > 0 {
		return false
	}
	return t.received >= t.want || t.broken != 0 || t.cmd.Done()
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

// proceed runs a task that is to be run: here if that does not block, on a
// worker otherwise. The caller holds no lock.
func (s *session) proceed(t *task, run bool) {
	if !run {
		return
	}
	if !t.settled() {
		t.setOut()
		if !s.node.opt.FastPaths.inPlace() || !t.lend() || !s.nexus.TryExecute(&t.cmd) {
			if t.keepData() {
				s.schedule(t)
				return
			}
			t.refuse()
		}
	}
	s.complete(t)
}

// execute runs a task on a worker: all of it or a slice, after which it waits for a worker
// again.
func (s *session) execute(t *task) {
	if !t.settled() {
		t.setOut()
		if !s.nexus.ExecuteSlice(&t.cmd) {
			s.schedule(t)
			return
		}
	}
	s.complete(t)
}

// settled reports whether the command's outcome is known without executing it.
func (t *task) settled() bool {
	if t.broken != 0 {
		t.cmd.Abort(t.broken)
	}
	return t.cmd.Done()
}

// setOut gives the command its data-out.
func (t *task) setOut() {
	if t.buf != nil {
		t.cmd.Out = t.buf.B
	}
	t.cmd.Out = t.cmd.Out[:min(int(t.want), len(t.cmd.Out))]
}

// schedule hands a task that would block to the workers.
func (s *session) schedule(t *task) {
	s.mu.Lock()
	if t.aborted {
		waiting := s.finishAbortLocked(t)
		s.mu.Unlock()
		releaseAll(waiting)
		return
	}
	t.moveLocked(taskReady)
	s.node.work.add(t)
	s.mu.Unlock()
}

// complete ends a task that has run.
func (s *session) complete(t *task) {
	t.buf.Release()
	t.buf, t.cmd.Out = nil, nil
	if len(t.cmd.Preempted) > 0 {
		s.node.abortPreempted(t)
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
		s.node.work.add(t)
		return true
	})
}
