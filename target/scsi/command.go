// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"context"
	"time"

	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// LUN is a logical unit number as the eight bytes on the wire, big endian
// (SAM-5 4.7).
type LUN uint64

// Status is a SCSI status code (SAM-5 5.3.1).
type Status uint8

// The status codes that this device server returns.
const (
	Good                Status = 0x00
	CheckCondition      Status = 0x02
	ConditionMet        Status = 0x04
	Busy                Status = 0x08
	ReservationConflict Status = 0x18
	TaskSetFull         Status = 0x28
	TaskAborted         Status = 0x40
)

// Direction is where a command's data goes, as its CDB says.
type Direction uint8

// The directions of a data transfer.
const (
	NoData  Direction = iota
	DataIn            // from the device server to the initiator
	DataOut           // from the initiator to the device server
)

// MaxTransfer is the most data, in bytes, that one command may move. It is
// what the Block Limits VPD page says.
const MaxTransfer = 8 << 20

// Command is one SCSI command on its way through the device server. The
// transport owns it and may reuse it after [Command.Reset].
//
// Its life: the transport fills the first group and calls [Nexus.Prepare]
// when the command enters the task set. If that ends the command ([Command.Done]),
// its status is final. If not, and Direction is DataOut, the transport
// collects min(Length, OutExpected) bytes into Out. Then it calls
// [Nexus.TryExecute] on the goroutine at hand, and [Nexus.Execute] on a worker
// if that would have blocked. Afterwards the command is Done. TryExecute never waits, so it
// has no context; that of the others reaches every call of the store.
type Command struct {
	// Filled in by the transport before Prepare.
	CDB         [16]byte
	LUN         LUN
	OutExpected uint32    // bytes that the initiator is ready to send
	InExpected  uint32    // bytes that the initiator is ready to take
	Pool        *mem.Pool // where In comes from; nil: one that is common to all

	// Filled in by the transport between Prepare and Execute: a buffer of [Command.Needs] bytes
	// that becomes In; nil: one from Pool. The transport releases it if it is here still at the end.
	Buffer *mem.Buffer

	// Filled in by Prepare.
	Direction Direction
	Length    uint32 // data-out: bytes that the CDB transfers

	// Filled in by the transport between Prepare and Execute: the data-out
	// bytes, fewer than Length if the initiator offered fewer.
	Out []byte

	// Filled in by TryExecute, Execute, or a Prepare that ends the command.
	In       *mem.Buffer // data-in, nil for none; at most InExpected bytes; the transport releases it
	InLength uint32      // data-in bytes that the device server has for the CDB, before the cut at InExpected
	Status   Status
	Sense    []byte // sense data when Status is CheckCondition, backed by senseBuf
	// Preempted are the I_T nexuses that a PREEMPT AND ABORT has preempted. The
	// transport aborts their tasks on the logical unit, and tells Status when
	// none of them runs any more (SPC-4 5.13.11.2.6). nil for other commands.
	Preempted []NexusID

	done     bool
	senseBuf [252]byte
	// The rest of the executor's own state follows here.
	exec execState
}

// execState is what Prepare leaves for the executor.
type execState struct {
	ctx    context.Context // of the execution that is under way
	nexus  *Nexus
	at     *attachment // nil for commands answered without a logical unit
	op     *operation  // nil once the command is done in Prepare
	access reservation.Access
	lba    uint64
	blocks uint32
	direct bool // the command addresses blocks: lba and blocks count
	fua    bool

	progress uint64    // bytes that are done, see slice.go
	ended    bool      // ctx has ended a call of the store: nothing is known of how far that came
	kept     bool      // in the list of kept ranges; the transport's
	lost     bool      // kept because its nexus is lost; protected by the list's mutex
	until    time.Time // when the slice ends; zero: all of the command is one

	prepared time.Time // when Prepare or Reprepare was called, if somebody observes

	// Instants, see activity.go; 0 for not yet.
	arrived time.Duration // it waits to be executed
	began   time.Duration // its execution; arrived if that was in place
	inStore time.Duration // how long it was executed so far, unless in place

	inPlace bool   // it was executed by TryExecute
	batch   *Batch // that counts it, while it is tried, and once it was executed in place
}

// Reset makes c ready for another command. Its Pool stays; its In and Buffer, which the
// transport has released, are forgotten.
func (c *Command) Reset() {
	c.CDB = [16]byte{}
	c.LUN = 0
	c.OutExpected, c.InExpected = 0, 0
	c.Direction, c.Length = NoData, 0
	c.Out, c.In, c.InLength, c.Buffer = nil, nil, 0, nil
	c.Status, c.Sense, c.Preempted = Good, nil, nil
	c.done = false
	c.exec = execState{}
}

// Done reports whether the command has ended: Status, Sense and In are final.
func (c *Command) Done() bool { return c.done }

// Needs returns how many bytes the buffer for the blocks that a prepared command reads has, 0
// if it reads none. The data of other commands is little.
func (c *Command) Needs() int {
	n := min(c.InLength, c.InExpected)
	if c.done || c.Direction != DataIn || !c.exec.direct || n == 0 {
		return 0
	}
	size := c.exec.at.lu.blockSize
	return int(n+size-1) &^ int(size-1)
}

// LBA returns the first block and the number of blocks that the command
// addresses; ok is false for a command that addresses none. It is for reports
// and logs, and valid after [Nexus.Prepare].
func (c *Command) LBA() (lba uint64, blocks uint32, ok bool) {
	return c.exec.lba, c.exec.blocks, c.exec.direct
}

// good ends the command with GOOD.
func (c *Command) good() {
	c.Status = Good
	c.done = true
}

// endWith ends the command with a status that carries no sense data.
func (c *Command) endWith(s Status) {
	c.dropIn()
	c.Status = s
	c.done = true
}

// dropIn gives back data-in that will not be sent.
func (c *Command) dropIn() {
	c.In.Release()
	c.In, c.InLength = nil, 0
}

// reply ends the command with GOOD and as much of data as the CDB's allocation
// length allows.
func (c *Command) reply(data []byte, allocation uint32) {
	n := min(uint32(len(data)), allocation)
	c.InLength = n
	if n = min(n, c.InExpected); n > 0 {
		c.In = c.Pool.Get(int(n))
		copy(c.In.B, data)
	}
	c.good()
}
