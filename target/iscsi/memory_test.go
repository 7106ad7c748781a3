// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// starve has somebody take all memory that is shared, and returns what gives it back. Each session has
// its reserve.
func (r *rig) starve() (feed func()) {
	const all = 4 << 30
	greedy := r.node.memory.Open("greedy")
	greedy.Charge(all)
	return func() {
		greedy.Release(all)
		greedy.Close()
	}
}

const manyBlocks = 2048 // 1 MiB, which no reserve has

// pinged sends a ping and wants the next PDU to be its answer.
func (r *raw) pinged(tag uint32) {
	r.t.Helper()
	r.send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: tag, TargetTransferTag: pdu.ReservedTag}, nil)
	if p, _ := r.receive(); p.(*pdu.NOPIn).InitiatorTaskTag != tag {
		r.t.Fatalf("%v, want the answer to ping %d", p, tag)
	}
}

// TestMemoryShort has a read and a write wait for memory, one of each be aborted, and the others go on
// when there is some again; with a handoff in between as well.
func TestMemoryShort(t *testing.T) {
	for _, moves := range []bool{false, true} {
		r := newRig(t, Limits{}, Auth{})
		c := r.raw()
		c.login("MaxBurstLength=16776192", "InitialR2T=Yes")
		feed := r.starve()
		for i := range uint32(2) {
			c.send(read10(10+i, 2+2*i, 0, manyBlocks), nil)
			c.send(write10(20+i, 3+2*i, 4096, manyBlocks, 0), nil)
		}
		c.pinged(30)
		for _, tag := range []uint32{10, 20} {
			c.send(&pdu.TaskManagementRequest{Immediate: true, Function: pdu.AbortTask, LUN: lun1, InitiatorTaskTag: tag + 30, ReferencedTaskTag: tag, CmdSN: 6}, nil)
			if p, _ := c.receive(); p.(*pdu.TaskManagementResponse).Response != 0 {
				t.Fatalf("abort: %v", p)
			}
		}
		if moves {
			state, socks := r.freeze(t)
			feed() // too late for this node
			r.move(t, state, socks)
		} else {
			feed()
		}
		data := pattern(manyBlocks*512, 3)
		got := 0
		for done := 0; done < 2; {
			switch p, seg := c.receive(); p := p.(type) {
			case *pdu.R2T:
				if p.InitiatorTaskTag != 21 || p.DesiredDataTransferLength != uint32(len(data)) {
					t.Fatalf("%v", p)
				}
				for at := 0; at < len(data); at += 128 << 10 {
					part := data[at:][:128<<10]
					c.send(&pdu.DataOut{Final: at+len(part) == len(data), LUN: lun1, InitiatorTaskTag: 21, TargetTransferTag: p.TargetTransferTag,
						DataSN: uint32(at / len(part)), BufferOffset: uint32(at), DataLength: uint32(len(part))}, part)
				}
			case *pdu.DataIn:
				if got += len(seg); p.HasStatus {
					done++
				}
			case *pdu.SCSIResponse:
				if p.Status != uint8(scsi.Good) {
					t.Fatalf("%v", p)
				}
				done++
			default:
				t.Fatalf("%v", p)
			}
		}
		if got != manyBlocks*512 {
			t.Errorf("%d bytes were read", got)
		}
		r.stored(4096, data)
	}
}

// TestNoMemoryForImmediateData sends commands whose immediate data is more than the session may have: they
// are to come again, and what is behind them on the connection is understood.
func TestNoMemoryForImmediateData(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login("ImmediateData=Yes", "FirstBurstLength=262144")
	feed := r.starve()
	data := pattern(256<<10, 1)
	for i := range uint32(3) {
		c.send(write10(10+i, 2+i, 0, 512, len(data)), data)
		if p, _ := c.receive(); p.(*pdu.SCSIResponse).Status != uint8(scsi.TaskSetFull) {
			t.Fatalf("%v, want TASK SET FULL", p)
		}
		c.pinged(20 + i)
	}
	// In its turn, and behind a gap: the data of the second finds no memory beside the first's.
	long := data[:128<<10]
	for i := range uint32(2) {
		c.send(write10(30+i, 6+i, 0, 256, len(long)), long)
	}
	if p, _ := c.receive(); p.(*pdu.SCSIResponse).InitiatorTaskTag != 31 || p.(*pdu.SCSIResponse).Status != uint8(scsi.TaskSetFull) {
		t.Fatalf("%v, want TASK SET FULL for the second", p)
	}
	c.send(&pdu.NOPOut{InitiatorTaskTag: 40, TargetTransferTag: pdu.ReservedTag, CmdSN: 5}, nil)
	answered := 0
	for range 2 {
		switch p, _ := c.receive(); p := p.(type) {
		case *pdu.NOPIn:
			answered |= 1
		case *pdu.SCSIResponse:
			if p.InitiatorTaskTag != 30 || p.Status != uint8(scsi.Good) {
				t.Errorf("%v, want GOOD for the first", p)
			}
			answered |= 2
		}
	}
	if answered != 3 {
		t.Error("the command that has waited for its turn, or the one before it, has no answer")
	}
	feed()
	c.send(write10(50, 8, 1000, 512, len(data)), data)
	if p, _ := c.receive(); p.(*pdu.SCSIResponse).Status != uint8(scsi.Good) {
		t.Fatalf("%v, with memory again", p)
	}
	r.stored(1000, data)
}

// TestOneByteOfImmediateData looks at what a write of 1 MiB has while its data is not asked for.
func TestOneByteOfImmediateData(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login("ImmediateData=Yes")
	feed := r.starve()
	before := r.node.sessionList()[0].memory.Used()
	c.send(write10(10, 2, 0, manyBlocks, 1), []byte{1})
	c.pinged(11)
	if n := r.node.sessionList()[0].memory.Used() - before; n > 128<<10 {
		t.Errorf("a write with one byte of immediate data has %d bytes", n)
	}
	feed()
	if p, _ := c.receive(); p.(*pdu.R2T).BufferOffset != 1 {
		t.Errorf("%v", p)
	}
}

// TestUnansweredR2T moves the clock: a session that leaves an R2T unanswered ends, unless it sends so much
// other data that it has not come to this one.
func TestUnansweredR2T(t *testing.T) {
	for _, sent := range []int64{0, 40 << 20} {
		r := newRig(t, Limits{}, Auth{})
		c := r.raw()
		c.login("InitialR2T=Yes")
		c.send(write10(10, 2, 0, 16, 0), nil)
		if p, _ := c.receive(); p.(*pdu.R2T).InitiatorTaskTag != 10 {
			t.Fatalf("%v", p)
		}
		s := r.node.sessionList()[0]
		limit, now := r.node.opt.Limits.R2TTimeout, time.Now()
		s.checkR2Ts(now)
		s.checkR2Ts(now.Add(limit))
		c.pinged(11)
		s.mu.Lock()
		s.gathered += sent
		s.mu.Unlock()
		s.checkR2Ts(now.Add(limit + time.Second))
		if sent > 0 {
			c.pinged(12)
			c.send(&pdu.DataOut{Final: true, LUN: lun1, InitiatorTaskTag: 10, TargetTransferTag: 1, DataLength: 8192}, pattern(8192, 1))
			if p, _ := c.receive(); p.(*pdu.SCSIResponse).Status != uint8(scsi.Good) {
				t.Fatalf("%v", p)
			}
			continue
		}
		<-s.gone
		if err := s.reason(); err == nil || !strings.Contains(err.Error(), "R2T for 8192 bytes of command 0x2a") {
			t.Errorf("the session has ended because of %v", err)
		}
	}
}

// TestTextIsAskedOnce repeats a key, and asks before the answer is fetched.
func TestTextIsAskedOnce(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login("MaxRecvDataSegmentLength=512")
	ask := func(tag, ttt uint32, text string) pdu.PDU {
		t.Helper()
		c.send(&pdu.TextRequest{Immediate: true, Final: true, InitiatorTaskTag: tag, TargetTransferTag: ttt, DataLength: uint32(len(text))}, []byte(text))
		p, _ := c.receive()
		return p
	}
	rejected := func(what string, p pdu.PDU) {
		t.Helper()
		if rejection, ok := p.(*pdu.Reject); !ok || rejection.Reason != pdu.ProtocolError {
			t.Errorf("%s: %v, want a Reject", what, p)
		}
	}
	rejected("a key twice", ask(10, pdu.ReservedTag, "SendTargets=\x00SendTargets=\x00"))
	long := "SendTargets=\x00"
	for i := range 60 {
		long += "X-" + strings.Repeat("y", i+1) + "=1\x00"
	}
	first, ok := ask(11, pdu.ReservedTag, long).(*pdu.TextResponse)
	if !ok || !first.Continue {
		t.Fatalf("%v, want a part of an answer", first)
	}
	second, ok := ask(11, first.TargetTransferTag, "").(*pdu.TextResponse)
	if !ok || !second.Continue {
		t.Fatalf("%v, want another part", second)
	}
	rejected("asked before all is fetched", ask(11, second.TargetTransferTag, "SendTargets=\x00"))
	rejected("an exchange that was ended", ask(11, second.TargetTransferTag, ""))
	s := r.node.sessionList()[0]
	s.mu.Lock()
	held := s.text.held
	s.mu.Unlock()
	if held != 0 {
		t.Errorf("%d bytes of text are on the account still", held)
	}
	if p, ok := ask(12, pdu.ReservedTag, "SendTargets=\x00").(*pdu.TextResponse); !ok || !p.Final {
		t.Errorf("%v, want an answer", p)
	}
}

// TestWithoutArena: a Node that gets no arena says so, and serves nevertheless.
func TestWithoutArena(t *testing.T) {
	var said bytes.Buffer
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{
		Arena: true, Limits: NodeLimits{Memory: 1 << 50}, Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if !strings.Contains(said.String(), "no arena for buffers") {
		t.Errorf("nothing is said of an arena of 1 PiB: %s", said.String())
	}
	r.dial(initiator.Options{})
}

// TestInputLeavesReserve has all shared memory be taken while a long input buffer is on loan: the session's
// reserve is there for its command all the same.
func TestInputLeavesReserve(t *testing.T) {
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Limits: NodeLimits{Memory: 64 << 20}})
	c := r.raw()
	c.login("ImmediateData=Yes")
	holds := func(chunk bool) {
		for (r.node.MemoryUsed() >= stream.ChunkSize) != chunk {
			time.Sleep(time.Millisecond)
		}
	}
	holds(false) // any more
	data := pattern(4<<10, 1)
	command := encode(write10(10, 2, 0, 8, len(data)), data)
	half := pdu.BHSLen / 2
	send := func(b []byte) {
		if _, err := c.c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	send(command[:half])
	holds(true)
	defer r.starve()()
	send(command[half:])
	if p, _ := c.receive(); p.(*pdu.SCSIResponse).Status != uint8(scsi.Good) {
		t.Errorf("%v, want GOOD", p)
	}
	r.stored(0, data)
}
