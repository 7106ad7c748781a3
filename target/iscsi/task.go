// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"context"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/schedule"
	"github.com/gotgtd/gotgtd/target/iscsi/transfer"
	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// terms are what all tasks of a session have in common: what was negotiated, what they are
// executed by, and who pays for them.
type terms struct {
	params Params
	device *scsi.Device     // nil in a discovery session
	memory *account.Account // what the session and its connections have
	pool   *mem.Pool        // charges it
	free   *sync.Pool       // of *task
}

// task is one SCSI command. Its fields are protected by the session's mutex
// until it runs; then they belong to whoever runs it, and at last to the
// output queue of its connection.
type task struct {
	cmd     scsi.Command
	req     pdu.SCSICommand
	terms   *terms // of its session
	conn    *transport
	phase   taskPhase
	order   uint64    // place in the order of delivery
	started time.Time // when a worker began to run it; zero on a reader

	data       transfer.Out
	buf        *mem.Buffer
	unanswered unanswered
	filling    bool   // the connection's reader is writing into buf
	memoryWait bool   // waits for memory: before its first R2T, or before it runs
	broken     uint16 // the transport error to report instead of executing, 0 for none

	// What an execution on a worker has, and its end. It is made when the first worker takes the
	// task, and again after it was ended: others may hold it still then.
	ctx    context.Context
	cancel context.CancelCauseFunc

	aborted  bool
	told     bool        // aborted while it ran, by others: it ends with TASK ABORTED
	deferred []*deferred // responses that wait for this task to stop running

	// Data-in, the flusher's.
	inSent       int
	dataSN       uint32
	senseSegment [2 + 252]byte
}

// newTask returns a task whose cost is on the session's account already.
func newTask(m *terms, c *transport) *task {
	t := m.free.Get().(*task)
	t.cmd.Pool = m.pool
	t.conn, t.terms = c, m
	return t
}

// release gives back what the task holds and the task itself.
func (t *task) release() {
	t.buf.Release()
	t.cmd.In.Release()
	t.cmd.Buffer.Release()
	t.cmd.Reset()
	m := t.terms
	req := &t.req
	*req = pdu.SCSICommand{}
	t.terms, t.conn, t.phase, t.order = nil, nil, taskEarly, 0
	t.data = transfer.Out{}
	t.buf, t.filling, t.memoryWait, t.broken = nil, false, false, 0
	t.unanswered = unanswered{}
	t.aborted, t.told, t.deferred, t.inSent, t.dataSN = false, false, t.deferred[:0], 0, 0
	m.free.Put(t)
	m.memory.Release(taskCost)
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
	b := t.terms.pool.TryGet(size)
	if b == nil {
		return false
	}
	t.moveTo(b)
	return true
}

// keeps is how many bytes of data-out a task has to keep before it is asked for more.
func (t *task) keeps() int {
	if t.cmd.Done() || t.broken != 0 || t.data.Received() == 0 && !t.data.Unsolicited() {
		return 0
	}
	size := int(min(t.data.Received(), t.req.ExpectedDataTransferLength))
	if t.data.Unsolicited() {
		size = int(min(t.terms.params.FirstBurstLength, t.req.ExpectedDataTransferLength))
	}
	if t.phase != taskEarly {
		size = min(size, int(t.data.Want())) // more than the command takes is passed over
	}
	return size
}

// loseData gives up the data of a command that is ahead of its turn.
func (t *task) loseData() {
	t.broken = insufficientResources
	t.cmd.Out = nil
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
		t.data.SetWant(min(t.cmd.Length, t.cmd.OutExpected)) // none without the W bit: an R2T would have no answer
	}
}

// refuse ends a command for which there is no memory, before it has done anything.
func (t *task) refuse() {
	t.cmd.TaskSetFull()
	t.cmd.Out = nil
}

// dataComplete reports whether all data-out has come that will. A failed
// command still waits for the end of what the initiator is sending (RFC 7143
// 11.4.7.2).
func (t *task) dataComplete() bool {
	if t.data.Underway() {
		return false
	}
	return t.data.Complete() || t.broken != 0 || t.cmd.Done()
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
	t.cmd.Out = t.cmd.Out[:min(int(t.data.Want()), len(t.cmd.Out))]
}

// moveLocked takes the task to another phase. A move that the table does not have
// is a fault of the program that could answer a command twice, or run one that
// has been aborted: it does not go on.
func (t *task) moveLocked(to taskPhase) {
	if !has(taskMoves[t.phase], to) {
		panic(fmt.Sprintf("iscsi: a task can't go from phase %d to %d", t.phase, to))
	}
	t.phase = to
}

// bufferLocked makes the task's buffer one that holds all that the command takes, and reports false
// if the session may have none now.
func (t *task) bufferLocked() bool {
	n := int(t.data.Want())
	if t.buf != nil && n <= cap(t.buf.B) {
		t.buf.B = t.buf.B[:max(n, len(t.buf.B))]
		return true
	}
	b := t.terms.pool.TryGet(n)
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
	t.cmd.Buffer = t.terms.pool.TryGet(n)
	return t.cmd.Buffer != nil
}

// store copies data to its place; what lies beyond the buffer is more than
// the command takes.
func (t *task) store(data []byte) {
	if t.buf != nil && int(t.data.Received()) < len(t.buf.B) {
		copy(t.buf.B[t.data.Received():], data)
	}
}

// arrived is the data-out that a task will need. One whose outcome is known needs none.
func (t *task) arrived() []byte {
	if t.buf == nil || t.broken != 0 || t.cmd.Done() {
		return nil
	}
	n := min(int(t.data.Received()), len(t.buf.B))
	if t.phase != taskEarly {
		n = min(n, int(t.data.Want())) // it has been kept before that was known
	}
	return t.buf.B[:n]
}

// conditions are what a command fails with because of the data that has come for it.
var conditions = [...]uint16{
	transfer.Unexpected:  scsi.UnexpectedUnsolicitedData,
	transfer.OutOfOrder:  scsi.DataPhaseError,
	transfer.WrongAmount: scsi.IncorrectAmountOfData,
}

// insufficientResources is the condition of a command whose data found no memory (SPC-4 D.2).
const insufficientResources = 0x5503

// unanswered is what the liveness loop remembers of a task with open R2Ts; a task whose oldest
// R2T has been answered in whole starts anew.
type unanswered struct {
	since    time.Time // when the loop first saw the oldest one
	gathered int64     // bytes that the session had sent by then
}

// A task can wait for a worker; it is a [schedule.Task].

func (t *task) Unit() schedule.Unit {
	return schedule.Unit{Device: t.terms.device, LUN: t.req.LUN}
}

func (t *task) Begun() bool { return t.cmd.Progress() > 0 }

// First implements [schedule.Task]: others, with a worker each, may wait for one that keeps its blocks.
func (t *task) First() bool { return t.cmd.Kept() }

func (t *task) Long() bool { return t.cmd.Long() }

func (t *task) Held() bool { return t.conn.out.Full() }

// request is a non-immediate request that came ahead of its turn.
type request struct {
	conn *transport
	bhs  pdu.BHS
	data *mem.Buffer // data segment, nil for none
	task *task       // of a SCSI command; nil for the others
}

// What a command and another request cost while they are there, in bytes, besides their data.
const (
	taskCost    = int64(unsafe.Sizeof(task{}) + unsafe.Sizeof(request{}))
	requestCost = int64(unsafe.Sizeof(request{}))
)

// beginLocked gives a task that a worker has taken its context.
func (t *task) beginLocked(now time.Time) {
	t.moveLocked(taskRunning)
	t.started = now
	if t.ctx == nil || t.ctx.Err() != nil {
		t.ctx, t.cancel = context.WithCancelCause(context.Background())
	}
}

// endLocked ends what the task waits for in its store, if it runs on a worker and the store
// heeds that.
func (t *task) endLocked(why error) {
	if t.phase == taskRunning && t.cancel != nil {
		t.cancel(why)
	}
}
