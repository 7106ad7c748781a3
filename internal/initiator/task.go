// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// MaxTasks is how many commands and control requests of one session can be
// under way or waiting for the command window.
const MaxTasks = 1 << slotBits

const slotBits = 10

// A Command is one SCSI command. The caller fills in the first group and keeps
// its hands off until Done is called; then the second group is valid and the
// Command may be used again.
type Command struct {
	LUN uint64 // as on the wire; see [LUN]
	CDB [16]byte
	// At most one of In and Out is set; its length is the expected data
	// transfer length. Neither means a command without data.
	In  []byte
	Out []byte
	// Length is what the CDB itself says it transfers, in bytes; residuals
	// are checked against it when the status is GOOD. Zero: not known.
	Length    int
	Attribute pdu.TaskAttribute // zero: Simple
	Immediate bool
	// Connection says which of the session's connections carries the
	// command, counted from 1; zero: each in turn.
	Connection int
	// Done is called once when the command has ended, on a goroutine of the
	// session. It must not block; it may submit commands.
	Done func(*Command)
	Data any // the caller's own

	Err       error // why there is no status; nil when the target sent one
	Status    uint8
	Sense     []byte // valid until the Command is used again
	Received  int    // bytes that arrived in In
	Overflow  bool
	Underflow bool
	Residual  uint32 // bytes

	tag   uint32
	cmdSN uint32
}

// Reset makes cmd a new one that keeps Done, Data and memory for sense data.
func (cmd *Command) Reset() {
	*cmd = Command{Done: cmd.Done, Data: cmd.Data, Sense: cmd.Sense[:0]}
}

// Failed returns Err, or a [StatusError] when the status is not GOOD.
func (cmd *Command) Failed() error {
	if cmd.Err != nil {
		return cmd.Err
	}
	if cmd.Status != StatusGood {
		return &StatusError{CDB: cmd.CDB, Status: cmd.Status, Sense: append([]byte(nil), cmd.Sense...)}
	}
	return nil
}

func (cmd *Command) String() string {
	return fmt.Sprintf("command %x, LUN %#x, in %d bytes, out %d bytes", cmd.CDB, cmd.LUN, len(cmd.In), len(cmd.Out))
}

// expected returns the expected data transfer length.
func (cmd *Command) expected() uint32 { return uint32(len(cmd.In) + len(cmd.Out)) }

// A task is whatever waits for an answer under an initiator task tag: a
// command, or a control request. Its session's lock protects it, except that
// what the target's PDUs move on belongs to the reader of its connection.
type task struct {
	tag       uint32
	cmd       *Command // nil for a control request
	control   *control // nil for a command
	conn      *conn
	cmdSN     uint32
	immediate bool
	sent      bool
	answered  bool // the last PDU for it has come, or its end by task management
	aborted   bool // ended by task management
	settled   bool // the result is complete; left is to deliver it

	dataSN   uint32 // of the next Data-In
	received uint32 // bytes of Data-In
	burst    uint32 // bytes of Data-In since the last F bit
	r2tSN    uint32 // of the next R2T
	promised uint32 // bytes sent or queued, in order from 0
	r2tOpen  uint32 // R2Ts whose data has not left
	r2tBatch uint64 // batch with the data of the last R2T
	outBatch uint64 // last batch that refers to the command's data
}

// A control is a request other than a SCSI command, and its answer.
type control struct {
	request pdu.PDU
	data    []byte
	done    chan struct{} // closed when the rest is valid; nil for nobody waits

	err    error
	answer pdu.PDU
	reply  []byte
}

// A taskTable finds tasks by tag. The low bits of a tag are a slot, the others
// change with each use, so that an answer to an old task is told from one to
// its successor.
type taskTable struct {
	slots      []*task // with tag 0xffffffff when free; grows to MaxTasks
	free       []uint16
	used       int
	generation uint32
}

// get returns an empty task with a fresh tag, or nil when MaxTasks are in use.
func (tt *taskTable) get() *task {
	if len(tt.free) == 0 {
		if len(tt.slots) == MaxTasks {
			return nil
		}
		tt.free = append(tt.free, uint16(len(tt.slots)))
		tt.slots = append(tt.slots, new(task))
	}
	slot := tt.free[len(tt.free)-1]
	tt.free = tt.free[:len(tt.free)-1]
	tt.used++
	// The all-ones tag is reserved: leave the highest generation out.
	tt.generation = (tt.generation + 1) % (1<<(32-slotBits) - 1)
	t := tt.slots[slot]
	*t = task{tag: tt.generation<<slotBits | uint32(slot)}
	return t
}

// find returns the task that waits under tag for something of connection c,
// or nil.
func (tt *taskTable) find(tag uint32, c *conn) *task {
	slot := int(tag % MaxTasks)
	if tag == pdu.ReservedTag || slot >= len(tt.slots) {
		return nil
	}
	if t := tt.slots[slot]; t.tag == tag && t.conn == c && !t.answered {
		return t
	}
	return nil
}

// put frees the slot of t, which must not be used afterwards.
func (tt *taskTable) put(t *task) {
	tt.free = append(tt.free, uint16(t.tag%MaxTasks))
	tt.used--
	*t = task{tag: pdu.ReservedTag}
}

// underWay returns the tasks in use.
func (tt *taskTable) underWay() []*task {
	var all []*task
	for _, t := range tt.slots {
		if t.tag != pdu.ReservedTag {
			all = append(all, t)
		}
	}
	return all
}
