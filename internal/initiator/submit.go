// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// Submit starts a command and returns; cmd.Done is called when it has ended. It
// is sent at once when the target's command window is open, or else when it
// opens. On an error Done is not called.
func (s *Session) Submit(cmd *Command) error {
	if len(cmd.In) > 0 && len(cmd.Out) > 0 {
		return errors.New("initiator: bidirectional commands are not supported")
	}
	if cmd.Done == nil {
		return errors.New("initiator: a submitted command needs a Done function")
	}
	cmd.Err, cmd.Status, cmd.Sense, cmd.Received = nil, 0, cmd.Sense[:0], 0
	cmd.Overflow, cmd.Underflow, cmd.Residual = false, false, 0
	s.mu.Lock()
	t, err := s.newTaskLocked(cmd.Connection)
	if err == nil && s.draining {
		s.tasks.put(t)
		err = ErrLogoutRequested
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	t.cmd, t.immediate = cmd, cmd.Immediate
	cmd.tag = t.tag
	s.enterLocked(t)
	c := t.conn
	s.mu.Unlock()
	c.out.flush()
	return nil
}

// Do runs a command to its end and returns its [Command.Failed]. When ctx ends
// first, the target has not answered in time: that ends the session. Do must
// not be called from a Done function.
func (s *Session) Do(ctx context.Context, cmd *Command) error {
	done := make(chan struct{})
	cmd.Done = func(*Command) { close(done) }
	if err := s.Submit(cmd); err != nil {
		return err
	}
	select {
	case <-done:
	case <-ctx.Done():
		s.fail(fmt.Errorf("initiator: no response to %s: %w", cmd, context.Cause(ctx)))
		<-done
	}
	return cmd.Failed()
}

// newTaskLocked returns a task on the connection with that number (zero: in
// turn).
func (s *Session) newTaskLocked(connection int) (*task, error) {
	c, err := s.pickLocked(connection)
	if err != nil {
		return nil, err
	}
	t := s.tasks.get()
	if t == nil {
		return nil, ErrTooManyCommands
	}
	t.conn = c
	return t, nil
}

// enterLocked sends t now or lines it up for the command window.
func (s *Session) enterLocked(t *task) {
	if !t.immediate && (len(s.waiting) > 0 || pdu.SNLess(s.maxCmdSN, s.cmdSN)) {
		s.waiting = append(s.waiting, t)
		return
	}
	s.sendLocked(t)
}

// pumpLocked sends what waits as far as the window is open.
func (s *Session) pumpLocked() {
	n := 0
	for n < len(s.waiting) && !pdu.SNLess(s.maxCmdSN, s.cmdSN) {
		s.sendLocked(s.waiting[n])
		n++
	}
	s.waiting = append(s.waiting[:0], s.waiting[n:]...)
}

// sendLocked queues t on its connection. An immediate request carries the
// number of the next command without using it up (RFC 7143 4.2.2.1).
func (s *Session) sendLocked(t *task) {
	t.cmdSN, t.sent = s.cmdSN, true
	if !t.immediate {
		s.cmdSN++
	}
	if t.control != nil {
		t.conn.sendControlLocked(t)
		return
	}
	t.cmd.cmdSN = t.cmdSN
	t.conn.sendCommandLocked(t)
}

// sendCommandLocked queues a SCSI command with its immediate and unsolicited data
// (RFC 7143 4.2.4.2 and 11.3.4).
func (c *conn) sendCommandLocked(t *task) {
	cmd, p := t.cmd, &c.s.params
	unsolicited := min(uint32(len(cmd.Out)), p.FirstBurstLength)
	var immediate uint32
	if p.ImmediateData {
		immediate = min(unsolicited, c.params.MaxSendDataSegmentLength)
	}
	if p.InitialR2T {
		unsolicited = immediate
	}
	attribute := cmd.Attribute
	setDefault(&attribute, pdu.Simple)
	head := pdu.SCSICommand{
		Immediate: t.immediate, Final: unsolicited == immediate, Read: len(cmd.In) > 0, Write: len(cmd.Out) > 0,
		Attribute: attribute, LUN: cmd.LUN, InitiatorTaskTag: t.tag, ExpectedDataTransferLength: cmd.expected(),
		CmdSN: t.cmdSN, ExpStatSN: c.expStatSN, CDB: cmd.CDB,
	}
	head.Encode(&c.head)
	number := c.out.put(&c.head, cmd.Out[:immediate], c.params.HeaderDigest, c.params.DataDigest)
	t.noteData(number, immediate)
	t.promised = immediate
	if unsolicited > immediate {
		c.sendDataLocked(t, pdu.ReservedTag, 0, unsolicited)
	}
}

// noteData remembers which batch refers to the command's memory.
func (t *task) noteData(number uint64, length uint32) {
	if length > copyLimit {
		t.outBatch = number
	}
}

// sendDataLocked queues the sequence of Data-Out PDUs that brings t from what was
// promised up to end (RFC 7143 11.7).
func (c *conn) sendDataLocked(t *task, transferTag uint32, lun uint64, end uint32) {
	for sn := uint32(0); t.promised < end; sn++ {
		n := min(end-t.promised, c.params.MaxSendDataSegmentLength)
		p := pdu.DataOut{Final: t.promised+n == end, LUN: lun, InitiatorTaskTag: t.tag, TargetTransferTag: transferTag,
			ExpStatSN: c.expStatSN, DataSN: sn, BufferOffset: t.promised}
		p.Encode(&c.head)
		number := c.out.put(&c.head, t.cmd.Out[t.promised:t.promised+n], c.params.HeaderDigest, c.params.DataDigest)
		t.noteData(number, n)
		t.promised += n
	}
}

// deliver hands the result of t to the goroutine that waits for it.
func (s *Session) deliver(t *task) {
	cmd, control := t.cmd, t.control
	s.mu.Lock()
	s.tasks.put(t)
	leave := s.draining && s.tasks.used == 0 && s.err == nil
	if leave {
		s.logoutLocked()
	}
	s.mu.Unlock()
	if leave {
		s.flush()
	}
	switch {
	case cmd != nil:
		cmd.Done(cmd)
	case control.done != nil:
		close(control.done)
	}
}

// settle ends t: its result is complete. It is delivered now, or once the
// command's memory is no longer being written from.
func (s *Session) settle(t *task) {
	t.settled = true
	if t.outBatch > 0 && t.conn.out.deferUntil(t, t.outBatch) {
		return
	}
	s.deliver(t)
}
