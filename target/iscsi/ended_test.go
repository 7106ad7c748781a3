// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// hangingRig has a disk whose calls hang until their context ends, as those of a server that does not
// answer, and another one as LUN 2.
type hangingRig struct {
	*rig
	hanging *storagetest.FaultStore
	reached chan storagetest.Call
}

func newHangingRig(t *testing.T, workers int) *hangingRig {
	t.Helper()
	h := &hangingRig{rig: newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{FastPaths: FastPathsNever, Workers: workers})}
	h.hanging = storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize))
	h.store, h.target = h.hanging, diskOver(t, h.hanging, Limits{}, Auth{})
	addLUN(t, h.target, 2)
	h.node.SetTargets([]*Target{h.target}, announced, Auth{})
	h.reached = make(chan storagetest.Call, 1)
	return h
}

// hang has the next call of a kind hang; with release until that is closed too.
func (h *hangingRig) hang(op storagetest.Op, release <-chan struct{}) {
	h.hanging.Inject(storagetest.Fault{Op: op, Count: 1, Reached: h.reached, Release: release, Ends: true})
}

// submitted is a command under way.
type submitted struct {
	initiator.Command
	done chan struct{}
}

func (h *hangingRig) submit(s *initiator.Session, cdb string, out, in []byte) *submitted {
	h.t.Helper()
	c := &submitted{done: make(chan struct{})}
	c.LUN, c.Out, c.In = initiator.LUN(1), out, in
	copy(c.CDB[:], cdb)
	c.Done = func(*initiator.Command) { close(c.done) }
	if err := s.Submit(&c.Command); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// other reads from the other disk.
func (h *hangingRig) other(s *initiator.Session) {
	h.t.Helper()
	var cmd initiator.Command
	if err := s.Do(h.t.Context(), cmd.Read16(initiator.LUN(2), 0, 1, make([]byte, 512), 0)); err != nil {
		h.t.Fatalf("the other disk: %v", err)
	}
}

// hangingCalls are commands with the calls of the store that they wait for.
var hangingCalls = []struct {
	name string
	op   storagetest.Op
	cdb  string
	out  int
	in   int
}{
	{"READ", storagetest.Read, "\x28\x00\x00\x00\x00\x08\x00\x00\x01", 0, 512},
	{"READ with FUA", storagetest.Flush, "\x28\x08\x00\x00\x00\x08\x00\x00\x01", 0, 512},
	{"WRITE", storagetest.Write, "\x2a\x00\x00\x00\x00\x08\x00\x00\x01", 512, 0},
	{"WRITE with FUA", storagetest.WriteDurable, "\x2a\x08\x00\x00\x00\x08\x00\x00\x01", 512, 0},
	{"SYNCHRONIZE CACHE", storagetest.Flush, "\x35", 0, 0},
	{"VERIFY", storagetest.Read, "\x2f\x00\x00\x00\x00\x08\x00\x00\x01", 0, 0},
	{"WRITE AND VERIFY", storagetest.WriteDurable, "\x2e\x00\x00\x00\x00\x08\x00\x00\x01", 512, 0},
	{"WRITE SAME of zeros", storagetest.WriteZeroes, "\x41\x00\x00\x00\x00\x08\x00\x00\x01", 512, 0},
	{"WRITE SAME with UNMAP", storagetest.Discard, "\x93\x09\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01", 0, 0},
	{"GET LBA STATUS", storagetest.Extent, "\x9e\x12\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x18", 0, 24},
	{"ORWRITE", storagetest.Read, "\x8b\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01", 512, 0},
	{"COMPARE AND WRITE, reading", storagetest.Read, "\x89\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01", 1024, 0},
	{"COMPARE AND WRITE, writing", storagetest.Write, "\x89\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01", 1024, 0},
}

// TestAbortOfHangingCall aborts commands that hang in their store: each abort is answered, the
// other disk goes on, and so does this one.
func TestAbortOfHangingCall(t *testing.T) {
	h := newHangingRig(t, 0)
	s := h.dial(initiator.Options{})
	if err := s.Settle(t.Context(), initiator.LUN(2)); err != nil {
		t.Fatal(err)
	}
	for _, k := range hangingCalls {
		t.Run(k.name, func(t *testing.T) {
			h.hang(k.op, nil)
			c := h.submit(s, k.cdb, make([]byte, k.out), make([]byte, k.in))
			<-h.reached
			h.other(s)
			if code, err := s.TaskManagement(t.Context(), pdu.AbortTask, initiator.LUN(1), &c.Command); err != nil || code != pdu.FunctionComplete {
				t.Fatalf("ABORT TASK: response %d, %v", code, err)
			}
			<-c.done
			again := h.submit(s, k.cdb, make([]byte, k.out), make([]byte, k.in))
			<-again.done
			if err := again.Failed(); err != nil {
				t.Errorf("the same command again: %v", err)
			}
		})
	}
	if info := h.target.Device.LogicalUnit(1).Info(); info.FlushFailed {
		t.Error("a flush that was ended counts as one that failed")
	}
}

// TestResetOfHangingUnit has another initiator reset the logical unit, and then the session end, while
// commands hang in the store.
func TestResetOfHangingUnit(t *testing.T) {
	h := newHangingRig(t, 0)
	victim, other := h.dial(initiator.Options{}), h.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:other"})
	h.hang(storagetest.Write, nil)
	c := h.submit(victim, "\x2a\x00\x00\x00\x00\x08\x00\x00\x01", make([]byte, 512), nil)
	<-h.reached
	if code, err := other.TaskManagement(t.Context(), pdu.LogicalUnitReset, initiator.LUN(1), nil); err != nil || code != pdu.FunctionComplete {
		t.Fatalf("LOGICAL UNIT RESET: response %d, %v", code, err)
	}
	<-c.done
	if c.Err != nil || c.Status != uint8(scsi.TaskAborted) {
		t.Errorf("the command ends with status %#x, %v, want TASK ABORTED", c.Status, c.Err)
	}
	if err := victim.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	h.hang(storagetest.Write, nil)
	h.submit(victim, "\x2a\x00\x00\x00\x00\x08\x00\x00\x01", make([]byte, 512), nil)
	<-h.reached
	victim.Close()
	other.Close()
	h.none()
}

// TestFreezeEndsHangingCalls has commands of both kinds hang when the Node freezes. They are executed
// again, after a thaw and in the successor.
func TestFreezeEndsHangingCalls(t *testing.T) {
	for _, k := range hangingCalls {
		if strings.HasPrefix(k.name, "COMPARE") {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			for _, moves := range []bool{false, true} {
				h := newHangingRig(t, 0)
				s := h.dial(initiator.Options{})
				out, in := pattern(k.out, 1), make([]byte, k.in)
				if k.op == storagetest.WriteZeroes {
					clear(out)
				}
				h.hang(k.op, nil)
				c := h.submit(s, k.cdb, out, in)
				<-h.reached
				state, socks := h.freeze(t)
				if h.workers() != 0 {
					t.Error("a command runs in a freeze")
				}
				if moves {
					h.move(t, state, socks)
				} else {
					h.node.Thaw()
				}
				<-c.done
				if err := c.Failed(); err != nil {
					t.Errorf("moved %v: %v", moves, err)
				}
				if k.out > 0 {
					h.stored(8, out)
				}
			}
		})
	}
}

// TestFreezeWaitsForCompareAndWrite shows that what can't be executed again is waited for as long as there is
// time, and that the Node then goes on.
func TestFreezeWaitsForCompareAndWrite(t *testing.T) {
	h := newHangingRig(t, 0)
	s := h.dial(initiator.Options{})
	release := make(chan struct{})
	h.hang(storagetest.Write, release)
	c := h.submit(s, "\x89\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01", append(make([]byte, 512), pattern(512, 1)...), nil)
	<-h.reached
	ctx, cancel := context.WithTimeout(t.Context(), 3*freezePatience)
	defer cancel()
	if err := h.node.Freeze(ctx); err == nil || !strings.Contains(err.Error(), "opcode 0x89") {
		t.Fatalf("freeze: %v", err)
	}
	close(release)
	<-c.done
	if err := c.Failed(); err != nil {
		t.Error(err)
	}
	h.stored(8, pattern(512, 1))
}

// TestRepeatedWriteComesFirst has a write that was ended by a freeze hang again in the successor. A
// write of another initiator to the same block waits for it, and is what stays.
func TestRepeatedWriteComesFirst(t *testing.T) {
	h := newHangingRig(t, 0)
	first, second := h.dial(initiator.Options{}), h.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:other"})
	h.hang(storagetest.Write, nil)
	const write = "\x2a\x00\x00\x00\x00\x08\x00\x00\x01"
	hung := h.submit(first, write, pattern(512, 1), nil)
	<-h.reached
	state, socks := h.freeze(t)
	release := make(chan struct{})
	h.hang(storagetest.Write, release)
	h.move(t, state, socks)
	<-h.reached
	if err := second.Settle(t.Context(), initiator.LUN(1)); err != nil { // the other disk has not moved
		t.Fatal(err)
	}
	later := h.submit(second, write, pattern(512, 2), nil)
	if read := h.submit(second, "\x28\x00\x00\x00\x00\x64\x00\x00\x01", nil, make([]byte, 512)); true {
		<-read.done
	}
	h.until("the other write waits", func() bool { return h.workers() >= 2 })
	select {
	case <-later.done:
		t.Error("a write to the same block has overtaken the one that is repeated")
	case <-time.After(20 * time.Millisecond): // for it to end, if it did not wait
	}
	close(release)
	<-hung.done
	<-later.done
	if hung.Failed() != nil || later.Failed() != nil {
		t.Errorf("%v, %v", hung.Failed(), later.Failed())
	}
	got := make([]byte, 512)
	if _, err := h.store.ReadAt(t.Context(), got, 8*512); err != nil || !bytes.Equal(got, pattern(512, 2)) {
		t.Errorf("the block does not hold what was written last (%v)", err)
	}
}

// TestRepeatedWriteHasAWorker has the only worker taken by a write that hangs, while another one to the
// same block is queued. After a thaw the first one has the worker: the other would wait for it with the worker
// that it needs.
func TestRepeatedWriteHasAWorker(t *testing.T) {
	h := newHangingRig(t, 1)
	first, second := h.dial(initiator.Options{}), h.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:other"})
	h.hang(storagetest.Write, nil)
	const write = "\x2a\x00\x00\x00\x00\x08\x00\x00\x01"
	hung := h.submit(first, write, pattern(512, 1), nil)
	<-h.reached
	later := h.submit(second, write, pattern(512, 2), nil)
	h.until("both have arrived", func() bool { return h.tasks() == 2 })
	h.stop(t)
	h.node.Thaw()
	<-hung.done
	<-later.done
	if hung.Failed() != nil || later.Failed() != nil {
		t.Errorf("%v, %v", hung.Failed(), later.Failed())
	}
	h.stored(8, pattern(512, 2))
}
