// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// script is all that a client sends in the life of a session, known
// beforehand: login, text, commands with data of each kind, a CmdSN gap, NOP,
// logout. Target transfer tags count from 1.
func script() []byte {
	var b []byte
	add := func(p pdu.PDU, data []byte) { b = append(b, encode(p, data)...) }
	b = append(b, loginPDU("InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=2048", "MaxBurstLength=4096", "MaxOutstandingR2T=2", "MaxRecvDataSegmentLength=8192")...)
	add(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 2, CmdSN: 1}, nil) // unit attention
	data := pattern(24*512, 0x5a)

	// A write of 12 KiB: 1 KiB immediate, 1 KiB unsolicited, the rest asked for.
	w := write10(10, 2, 100, 24, 1024)
	w.Final = false
	add(w, data[:1024])
	add(&pdu.DataOut{Final: true, DataLength: 1024, LUN: lun1, InitiatorTaskTag: 10, TargetTransferTag: pdu.ReservedTag, BufferOffset: 1024}, data[1024:2048])
	ask := func(ttt, offset, length uint32) {
		half := length / 2
		add(&pdu.DataOut{DataLength: half, LUN: lun1, InitiatorTaskTag: 10, TargetTransferTag: ttt, BufferOffset: offset}, data[offset:offset+half])
		add(&pdu.DataOut{Final: true, DataLength: length - half, LUN: lun1, InitiatorTaskTag: 10, TargetTransferTag: ttt, DataSN: 1, BufferOffset: offset + half}, data[offset+half:offset+length])
	}
	ask(1, 2048, 4096)
	ask(2, 6144, 4096)
	add(&pdu.NOPOut{Immediate: true, DataLength: 5, InitiatorTaskTag: 11, TargetTransferTag: pdu.ReservedTag, CmdSN: 3}, []byte("alive"))
	ask(3, 10240, 2048)

	// Two commands the wrong way round, and reads.
	add(read10(13, 4, 100, 24), nil)
	add(write10(12, 3, 200, 1, 512), pattern(512, 0x77))
	add(&pdu.TextRequest{Final: true, DataLength: 16, InitiatorTaskTag: 14, TargetTransferTag: pdu.ReservedTag, CmdSN: 5}, []byte("SendTargets=\x00\x00\x00\x00"))
	for i := range uint32(6) {
		add(read10(20+i, 6+i, 64*i, 128), nil)
	}
	add(read10(30, 12, 1<<30, 1), nil) // beyond the end: sense data
	add(&pdu.LogoutRequest{InitiatorTaskTag: 40, CmdSN: 13}, nil)
	return b
}

// handoff moves everything of a frozen Node to a fresh one over the same disk.
func (r *rig) handoff(t fatal) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.node.Freeze(ctx); err != nil {
		t.Fatalf("freeze: %v", err)
	}
	state, socks := r.node.Snapshot()
	var moved NodeState
	var device scsi.DeviceState
	reencode(t, state, &moved)
	reencode(t, r.target.Device.Snapshot(), &device)
	var files []*os.File
	for _, c := range socks {
		f, err := c.File()
		if err != nil {
			t.Fatalf("file: %v", err)
		}
		files = append(files, f)
	}
	next := NewNode(Options{Log: r.node.log})
	target := diskOver(r.t, r.store, r.target.Limits, r.target.Auth)
	if err := target.Device.Restore(device); err != nil {
		t.Fatalf("restore: %v", err)
	}
	next.SetTargets([]*Target{target}, announced, Auth{})
	if err := next.Restore(&moved, files, func(string) *Target { return target }); err != nil {
		t.Fatalf("restore: %v", err)
	}
	r.node.Retire()
	if n := r.node.pool.Used() - heldByTasks(state); n > int64(len(state.Sessions))*testDiskSize {
		t.Fatalf("the retired node holds %d bytes", n)
	}
	next.Start()
	r.node, r.target = next, target
}

// heldByTasks is a bound of what a retired Node's abandoned tasks hold.
func heldByTasks(state *NodeState) (n int64) {
	for i := range state.Sessions {
		for j := range state.Sessions[i].Tasks {
			n += int64(len(state.Sessions[i].Tasks[j].Data))
		}
	}
	return n
}

// fatal is what testing.T and rapid.T have in common here.
type fatal interface {
	Fatalf(format string, args ...any)
}

func reencode(t fatal, from, to any) {
	b, err := cbor.Marshal(from)
	if err == nil {
		err = cbor.Unmarshal(b, to)
	}
	if err != nil {
		t.Fatalf("cbor: %v", err)
	}
}

// drained waits until the target has read all that was sent to it.
func (r *rig) drained(t fatal, sent int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for {
		for _, c := range r.node.connList() {
			queued := -1
			_ = c.raw.Control(func(fd uintptr) { queued, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
			if queued == 0 {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the target does not read the %d bytes sent to it", sent)
		}
	}
}

// play sends the script and returns all that the target answers. At byte cut
// it calls disturb; with cut < 0 it never does.
func (r *rig) play(t fatal, all []byte, cut int, disturb func(), late bool) []byte {
	conn, err := net.Dial("tcp", r.address())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	answer := make(chan []byte, 1)
	reader := func() {
		b, err := io.ReadAll(conn)
		if err != nil {
			b = append(b, err.Error()...)
		}
		answer <- b
	}
	if !late {
		go reader()
	}
	if cut >= 0 {
		if _, err := conn.Write(all[:cut]); err != nil {
			t.Fatalf("send: %v", err)
		}
		r.drained(t, cut)
		disturb()
		all = all[cut:]
	}
	if late {
		go reader()
	}
	if _, err := conn.Write(all); err != nil {
		t.Fatalf("send: %v", err)
	}
	return <-answer
}

// mask blanks ExpCmdSN and MaxCmdSN in a stream of the target: they are as of
// the moment of sending, and so depend on how the input was cut. It checks
// that they never go back.
func mask(t fatal, stream []byte) []byte {
	in, out := bytes.NewReader(stream), []byte(nil)
	var last pdu.Sequence
	for in.Len() > 0 {
		at := len(stream) - in.Len()
		p, _, err := readPDU(in)
		if err != nil {
			t.Fatalf("the target's stream ends in the middle of a PDU: %v", err)
		}
		b := bytes.Clone(stream[at : len(stream)-in.Len()])
		h := (*pdu.BHS)(b)
		exp, maximum := be32(h[28:]), be32(h[32:])
		if p != nil && (pdu.SNLess(exp, last.ExpCmdSN) || pdu.SNLess(maximum, last.MaxCmdSN)) {
			t.Fatalf("%v: ExpCmdSN or MaxCmdSN went back", p)
		}
		last.ExpCmdSN, last.MaxCmdSN = exp, maximum
		clear(h[28:36])
		out = append(out, b...)
	}
	return out
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

// TestFreezeAtAnyByte freezes a session at any byte of its life and goes on in
// a fresh Node, or thaws, or both one after the other: the initiator sees the
// very bytes of an undisturbed run, and the disk holds the same.
func TestFreezeAtAnyByte(t *testing.T) {
	all := script()
	undisturbed := newRig(t, Limits{}, Auth{})
	want := mask(t, undisturbed.play(t, all, -1, nil, false))
	if len(want) < 6*128*512 {
		t.Fatalf("the undisturbed run has an answer of %d bytes only", len(want))
	}
	disk := make([]byte, testDiskSize)
	if _, err := undisturbed.store.ReadAt(disk, 0); err != nil {
		t.Fatal(err)
	}
	undisturbed.stored(100, pattern(24*512, 0x5a))
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, Limits{}, Auth{})
		defer r.l.Close()
		cut := rapid.IntRange(1, len(all)-1).Draw(rt, "cut")
		how := rapid.SampledFrom([]string{"handoff", "thaw", "thaw, then handoff", "two handoffs"}).Draw(rt, "how")
		late := rapid.Bool().Draw(rt, "the client reads late")
		got := mask(rt, r.play(rt, all, cut, func() {
			if how == "thaw" || how == "thaw, then handoff" {
				if err := r.node.Freeze(context.Background()); err != nil {
					rt.Fatalf("freeze: %v", err)
				}
				r.node.Snapshot()
				r.node.Thaw()
			}
			if how != "thaw" {
				r.handoff(rt)
			}
			if how == "two handoffs" {
				r.handoff(rt)
			}
		}, late))
		if !bytes.Equal(got, want) {
			rt.Fatalf("%s at byte %d: the initiator sees %d bytes, %d in an undisturbed run; the first difference is at %d",
				how, cut, len(got), len(want), firstDifference(got, want))
		}
		after := make([]byte, testDiskSize)
		if _, err := r.store.ReadAt(after, 0); err != nil {
			rt.Fatalf("read: %v", err)
		}
		if !bytes.Equal(after, disk) {
			rt.Fatalf("%s at byte %d: the disk holds something else", how, cut)
		}
		r.node.Close()
	})
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
