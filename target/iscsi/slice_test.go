// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// longer is longer than a slice of a command takes.
const longer = 5 * time.Millisecond

// unmapAll is an UNMAP of all of the disk, which is two pieces of work.
func unmapAll(tag, cmdSN uint32) (*pdu.SCSICommand, []byte) {
	list := make([]byte, 24)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint32(list[16:], testDiskSize/512)
	p := &pdu.SCSICommand{Final: true, Write: true, Attribute: pdu.Simple, LUN: lun1, InitiatorTaskTag: tag,
		ExpectedDataTransferLength: 24, CmdSN: cmdSN, DataLength: 24}
	p.CDB[0], p.CDB[8] = 0x42, 24
	return p, list
}

// slowUnmap is a session with an UNMAP of two pieces, of which each is held.
type slowUnmap struct {
	*raw
	r       *rig
	store   *storagetest.FaultStore
	reached chan storagetest.Call
	release chan struct{}
}

func newSlowUnmap(t *testing.T) *slowUnmap {
	t.Helper()
	r := newRig(t, Limits{}, Auth{})
	s := &slowUnmap{r: r, store: storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize)), reached: make(chan storagetest.Call, 2), release: make(chan struct{}, 2)}
	r.store = s.store
	r.target = diskOver(t, s.store, Limits{}, Auth{})
	r.node.SetTargets([]*Target{r.target}, announced, Auth{})
	s.raw = r.raw()
	s.login()
	s.store.Inject(storagetest.Fault{Op: storagetest.Discard, Reached: s.reached, Release: s.release})
	t.Cleanup(func() { close(s.release) })
	s.send(unmapAll(0x200, 2))
	<-s.reached
	time.Sleep(longer) // the first piece is all of its slice
	return s
}

// pieces are where the pieces began that were done.
func (s *slowUnmap) pieces() (at []int64) {
	for _, c := range s.store.Calls(storagetest.Discard) {
		at = append(at, c.Off)
	}
	return at
}

// TestFreezeBetweenSlices has a freeze wait for a slice of a command, not for all of it. The
// successor does the rest, and nothing twice.
func TestFreezeBetweenSlices(t *testing.T) {
	s := newSlowUnmap(t)
	frozen := make(chan struct{})
	go func() {
		defer close(frozen)
		s.r.until("the freeze has begun", func() bool { return s.r.node.freeze.Stopped() })
		s.release <- struct{}{}
	}()
	state, socks := s.r.freeze(t)
	<-frozen
	task := state.Sessions[0].Tasks[0]
	if task.State != taskReady || task.Progress != 4<<20 {
		t.Fatalf("frozen in phase %d, with %d bytes done", task.State, task.Progress)
	}
	s.release <- struct{}{}
	s.r.move(t, state, socks)
	if got := s.statuses(1); got[0x200] != uint8(scsi.Good) {
		t.Errorf("status %#x", got[0x200])
	}
	if got := s.pieces(); !slices.Equal(got, []int64{0, 4 << 20}) {
		t.Errorf("pieces at %d", got)
	}
}

// TestInflight: who asks for the sessions learns what is under way, by logical unit.
func TestInflight(t *testing.T) {
	s := newSlowUnmap(t)
	if i := s.r.node.Sessions()[0]; i.Tasks != 1 || len(i.Inflight) != 1 || i.Inflight[1] != 1 {
		t.Errorf("%d commands are under way, by logical unit: %v", i.Tasks, i.Inflight)
	}
	s.release <- struct{}{}
	s.release <- struct{}{}
	s.statuses(1)
	if i := s.r.node.Sessions()[0]; len(i.Inflight) != 0 {
		t.Errorf("%v are under way at the end", i.Inflight)
	}
}

// TestAbortBetweenSlices aborts a command between two slices: the second one does not begin.
func TestAbortBetweenSlices(t *testing.T) {
	s := newSlowUnmap(t)
	s.send(&pdu.TaskManagementRequest{Immediate: true, Function: pdu.AbortTask, LUN: lun1, InitiatorTaskTag: 0x201, ReferencedTaskTag: 0x200, RefCmdSN: 2, CmdSN: 3}, nil)
	s.r.until("the command is aborted", func() bool { return s.r.aborted() == 1 })
	s.release <- struct{}{}
	if p, _ := s.receive(); p.(*pdu.TaskManagementResponse).Response != pdu.FunctionComplete {
		t.Fatal(p)
	}
	if got := s.pieces(); !slices.Equal(got, []int64{0}) {
		t.Errorf("pieces at %d", got)
	}
	s.r.until("no command is left", func() bool { return s.r.tasks() == 0 })
}

// TestLongCommandsTakeTurns has two sessions flood a disk with long commands, and others read
// from it on workers: one long command runs at a time, and the reads pass it by.
func TestLongCommandsTakeTurns(t *testing.T) {
	r := newRigWith(t, Limits{}, Auth{}, realSystem, 0, FastPathsNever)
	store := storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize))
	r.node.SetTargets([]*Target{diskOver(t, store, Limits{}, Auth{})}, announced, Auth{})
	reader := r.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:reader"})
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	store.Inject(storagetest.Fault{Op: storagetest.Discard, Release: release})
	var flood []*raw
	const sessions, commands = 2, 20
	for i := range sessions {
		c := r.raw()
		if _, err := c.c.Write(loginAs(fmt.Sprintf("iqn.2026-11.test:flood-%d", i))); err != nil {
			t.Fatal(err)
		}
		c.receive()
		c.send(&pdu.SCSICommand{Final: true, LUN: lun1, InitiatorTaskTag: 2, CmdSN: 1}, nil)
		c.receive()
		for j := range uint32(commands) {
			c.send(unmapAll(0x200+j, 2+j))
		}
		flood = append(flood, c)
	}
	r.until("all have arrived", func() bool { return r.tasks() == sessions*commands })
	var cmd initiator.Command
	for range 20 {
		if err := reader.Do(t.Context(), cmd.Read16(initiator.LUN(1), 0, 1, make([]byte, 512), 0)); err != nil {
			t.Fatal(err)
		}
		if n := r.workers(); n > 2 { // one that has just read
			t.Fatalf("%d workers, want one", n)
		}
	}
	let()
	for _, c := range flood {
		for tag, status := range c.statuses(commands) {
			if status != uint8(scsi.Good) {
				t.Errorf("%#x: %#x", tag, status)
			}
		}
	}
	r.until("no worker is left", func() bool { return r.workers() == 0 })
}

// loginAs is loginPDU of another initiator.
func loginAs(name string) []byte {
	text := []byte("InitiatorName=" + name + "\x00TargetName=" + testTarget + "\x00")
	return encode(&pdu.LoginRequest{
		Transit: true, CSG: pdu.LoginOperationalNegotiation, NSG: pdu.FullFeaturePhase,
		DataLength: uint32(len(text)), ISID: pdu.ISID{0x80, 1}, InitiatorTaskTag: 1, CmdSN: 1,
	}, text)
}
