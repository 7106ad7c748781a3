// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// statuses reads the statuses of so many commands, which may come in any order, and
// passes over what else comes.
func (r *raw) statuses(n int) map[uint32]uint8 {
	r.t.Helper()
	got := make(map[uint32]uint8)
	for len(got) < n {
		p, _ := r.receive()
		var tag uint32
		var status uint8
		switch p := p.(type) {
		case *pdu.SCSIResponse:
			tag, status = p.InitiatorTaskTag, p.Status
		case *pdu.DataIn:
			if !p.HasStatus {
				continue
			}
			tag, status = p.InitiatorTaskTag, p.Status
		default:
			continue
		}
		if _, twice := got[tag]; twice {
			r.t.Fatalf("a second answer to %#x", tag)
		}
		got[tag] = status
	}
	return got
}

// victims is a session with a command in every phase that others can abort, on a Node with
// one worker for each logical unit.
type victims struct {
	*raw
	r     *rig
	let   func() // ends the command that runs
	other *initiator.Session
}

// The tags of the victims' commands.
const (
	tagRunning = 0x100 + iota
	tagReady
	tagData
	tagBlocked
	tagEarly
)

func newVictims(t *testing.T, tas bool) *victims {
	t.Helper()
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{FastPaths: FastPathsNever, Workers: 2}) // one for a logical unit
	store := storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize))
	device, err := scsi.NewDevice(scsi.DeviceOptions{Name: testTarget})
	if err != nil {
		t.Fatal(err)
	}
	device.AddTargetPort(1, testTarget+",t,0x0001")
	o := scsi.LogicalUnitOptions{Store: store}
	if !tas {
		o.ModePages = []scsi.ModePage{{Page: 0x0a, Data: []byte{0x20, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0}}}
	}
	lu, err := scsi.NewLogicalUnit(o)
	if err == nil {
		err = device.Attach(1, lu)
	}
	if err != nil {
		t.Fatal(err)
	}
	target := &Target{Name: testTarget, Device: device}
	r.node.SetTargets([]*Target{target}, announced, Auth{})
	r.target = target
	v := &victims{raw: r.raw(), r: r, other: r.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:other"})}
	v.login("InitialR2T=Yes")

	reached, release := make(chan storagetest.Call, 1), make(chan struct{})
	v.let = sync.OnceFunc(func() { close(release) })
	t.Cleanup(v.let)
	store.Inject(storagetest.Fault{Op: storagetest.Read, Count: 1, Reached: reached, Release: release})
	v.send(read10(tagRunning, 2, 0, 1), nil)
	<-reached
	v.send(read10(tagReady, 3, 0, 1), nil)
	v.send(write10(tagData, 4, 8, 8, 0), nil)
	if p, _ := v.receive(); !isA[*pdu.R2T](p) {
		t.Fatalf("%v, want an R2T", p)
	}
	ordered := read10(tagBlocked, 5, 0, 1)
	ordered.Attribute = pdu.Ordered
	v.send(ordered, nil)
	v.send(read10(tagEarly, 7, 0, 1), nil)
	r.until("all commands have arrived", func() bool { return r.tasks() == 5 })
	return v
}

// tasks counts the commands in the task sets.
func (r *rig) tasks() (n int) {
	for _, s := range r.node.sessionList() {
		s.mu.Lock()
		n += len(s.tasks.byTag)
		s.mu.Unlock()
	}
	return n
}

// TestAbortedByOthers has another initiator reset the logical unit under commands in every
// phase. Each is answered with TASK ABORTED; the write only when the data that was asked for
// has come, and the command ahead of its turn in its turn.
func TestAbortedByOthers(t *testing.T) {
	for _, function := range []pdu.TaskFunction{pdu.LogicalUnitReset, pdu.TargetWarmReset} {
		v := newVictims(t, true)
		done := make(chan error, 1)
		go func() {
			_, err := v.other.TaskManagement(t.Context(), function, initiator.LUN(1), nil)
			done <- err
		}()
		want := map[uint32]uint8{tagReady: uint8(scsi.TaskAborted), tagBlocked: uint8(scsi.TaskAborted)}
		v.wants(want) // although a command still runs
		select {
		case err := <-done:
			t.Errorf("%v was answered while a command still runs: %v", function, err)
		default:
		}
		v.let()
		v.wants(map[uint32]uint8{tagRunning: uint8(scsi.TaskAborted)})
		if err := <-done; err != nil {
			t.Error(err)
		}
		ttt := v.r.openTag(tagData)
		v.send(&pdu.DataOut{Final: true, DataLength: 4096, LUN: lun1, InitiatorTaskTag: tagData, TargetTransferTag: ttt}, pattern(4096, 9))
		v.wants(map[uint32]uint8{tagData: uint8(scsi.TaskAborted)})
		v.send(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 3, CmdSN: 6}, nil) // fills the gap
		v.wants(map[uint32]uint8{3: uint8(scsi.CheckCondition), tagEarly: uint8(scsi.TaskAborted)})
		v.r.until("no command is left", func() bool { return v.r.tasks() == 0 })
	}
}

// wants reads as many answers and compares them.
func (v *victims) wants(want map[uint32]uint8) {
	v.t.Helper()
	got := v.statuses(len(want))
	for tag, status := range want {
		if s, ok := got[tag]; !ok || s != status {
			v.t.Errorf("task %#x: status %#x (%t), want %#x", tag, s, ok, status)
		}
	}
}

// openTag returns the target transfer tag of a command's R2T.
func (r *rig) openTag(tag uint32) (ttt uint32) {
	for _, s := range r.node.sessionList() {
		s.mu.Lock()
		if t := s.tasks.byTag[tag]; t != nil && len(t.data.Open()) > 0 {
			ttt = t.data.Open()[0].TTT
		}
		s.mu.Unlock()
	}
	return ttt
}

// TestAbortedByOthersMoves hands the sessions over while commands that others have aborted
// still wait for data or for their turn.
func TestAbortedByOthersMoves(t *testing.T) {
	v := newVictims(t, true)
	v.let()
	v.wants(map[uint32]uint8{tagRunning: uint8(scsi.Good), tagReady: uint8(scsi.Good)})
	if _, err := v.other.TaskManagement(t.Context(), pdu.LogicalUnitReset, initiator.LUN(1), nil); err != nil {
		t.Fatal(err)
	}
	v.wants(map[uint32]uint8{tagBlocked: uint8(scsi.TaskAborted)})
	state, socks := v.r.freeze(t)
	v.r.move(t, state, socks)
	ttt := v.r.openTag(tagData)
	v.send(&pdu.DataOut{Final: true, DataLength: 4096, LUN: lun1, InitiatorTaskTag: tagData, TargetTransferTag: ttt}, pattern(4096, 9))
	v.wants(map[uint32]uint8{tagData: uint8(scsi.TaskAborted)})
	v.send(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 3, CmdSN: 6}, nil)
	v.wants(map[uint32]uint8{3: uint8(scsi.CheckCondition), tagEarly: uint8(scsi.TaskAborted)})
}

// TestAbortedWithoutTAS has a Control mode page without TAS: what others abort is not
// answered, as SAM-5 has it then.
func TestAbortedWithoutTAS(t *testing.T) {
	v := newVictims(t, false)
	v.let()
	v.wants(map[uint32]uint8{tagRunning: uint8(scsi.Good), tagReady: uint8(scsi.Good)})
	if _, err := v.other.TaskManagement(t.Context(), pdu.LogicalUnitReset, initiator.LUN(1), nil); err != nil {
		t.Fatal(err)
	}
	v.send(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 3, CmdSN: 6}, nil)
	v.wants(map[uint32]uint8{3: uint8(scsi.CheckCondition)})
	v.r.until("no command is left", func() bool { return v.r.tasks() == 0 })
}

// TestResetScope has an initiator with two sessions reset a target that another one uses. The
// other's session stays, and its command is answered, unless the target says that resets are
// for all; a cold reset ends the sessions that it concerns.
func TestResetScope(t *testing.T) {
	for _, c := range []struct {
		scope    ResetScope
		function pdu.TaskFunction
		own      bool // other initiators are left alone
	}{
		{ResetsAuto, pdu.TargetColdReset, true},
		{ResetsAuto, pdu.TargetWarmReset, false},
		{ResetsOwn, pdu.TargetWarmReset, true},
		{ResetsOwn, pdu.TargetColdReset, true},
		{ResetsAll, pdu.TargetColdReset, false},
		{ResetsAll, pdu.TargetWarmReset, false},
	} {
		t.Run(fmt.Sprintf("%d/%v", c.scope, c.function), func(t *testing.T) {
			v := newVictims(t, true)
			changed := *v.r.target
			changed.Resets = c.scope
			v.r.node.SetTargets([]*Target{&changed}, announced, Auth{})
			second, err := v.r.try(initiator.Options{InitiatorName: "iqn.2026-11.test:other"})
			if err != nil {
				t.Fatal(err)
			}
			v.let()
			v.wants(map[uint32]uint8{tagRunning: uint8(scsi.Good), tagReady: uint8(scsi.Good)})
			if _, err := v.other.TaskManagement(t.Context(), c.function, initiator.LUN(1), nil); err != nil {
				t.Fatal(err)
			}
			if cold := c.function == pdu.TargetColdReset; cold {
				<-v.other.Done()
				<-second.Done()
			}
			if c.own {
				ttt := v.r.openTag(tagData)
				v.send(&pdu.DataOut{Final: true, DataLength: 4096, LUN: lun1, InitiatorTaskTag: tagData, TargetTransferTag: ttt}, pattern(4096, 9))
				v.wants(map[uint32]uint8{tagData: uint8(scsi.Good), tagBlocked: uint8(scsi.Good)})
			} else {
				v.wants(map[uint32]uint8{tagBlocked: uint8(scsi.TaskAborted)})
			}
			v.r.until("the sessions that it concerns have ended", func() bool {
				n := len(v.r.node.sessionList())
				switch {
				case c.function == pdu.TargetWarmReset:
					return n == 3
				case c.own:
					return n == 1
				}
				return n == 0
			})
		})
	}
}
