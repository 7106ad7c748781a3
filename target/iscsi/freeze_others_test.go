// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// ping sends a NOP-Out and expects its answer.
func (r *raw) ping(cmdSN uint32) {
	r.t.Helper()
	r.send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 77, TargetTransferTag: pdu.ReservedTag, CmdSN: cmdSN}, nil)
	if p, _ := r.receive(); !isA[*pdu.NOPIn](p) {
		r.t.Fatalf("%v, want a NOP-In", p)
	}
}

// ended expects the end of the stream.
func (r *raw) ended() {
	r.t.Helper()
	_ = r.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := r.c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		r.t.Fatalf("%d bytes, %v, want the end of the stream", n, err)
	}
}

// TestDismissWhileFrozen lets the time of a dismissal come while the Node is
// frozen: nothing happens before the thaw, and nothing at all after the session
// has moved.
func TestDismissWhileFrozen(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login()
	state, socks := r.freeze(t)
	r.node.Dismiss(state.Sessions[0].TSIH, 0)
	r.move(t, state, socks) // Retire has waited for the dismissal
	c.ping(2)

	r.freeze(t)
	r.node.Dismiss(state.Sessions[0].TSIH, 100*time.Millisecond) // without any, the end may overtake the message
	r.node.Thaw()
	if p, _ := c.receive(); !isA[*pdu.AsyncMessage](p) {
		t.Fatalf("%v, want an Asynchronous Message", p)
	}
	c.ended()
	r.none()
}

// TestFreezeAfterThaw freezes again and again at once after a thaw: each freeze has
// brought the reader to rest itself, and finds what was to be sent whole.
func TestFreezeAfterThaw(t *testing.T) {
	g := newGate(-1)
	r := newRigOn(t, Limits{NOPInterval: -1}, Auth{}, system{random: still{}, writev: g.writev, bound: unbounded}, 0)
	c := r.raw()
	c.login()
	g.set(g.sent() + 12)
	c.send(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 77, TargetTransferTag: pdu.ReservedTag, CmdSN: 2}, nil)
	<-g.reached
	for i := range 20000 {
		state, _ := r.freeze(t)
		if n := len(state.Connections[0].Out); n != pdu.BHSLen-12 {
			t.Fatalf("freeze %d: %d bytes are to be sent, not %d", i, n, pdu.BHSLen-12)
		}
		r.node.Thaw()
	}
	g.set(-1)
	r.freeze(t)
	r.node.Thaw()
	if p, _ := c.receive(); !isA[*pdu.NOPIn](p) {
		t.Fatalf("%v, want a NOP-In", p)
	}
}

// TestDismissalMoves moves a session that was asked to log out: it is not asked
// again, and has no more time than it had.
func TestDismissalMoves(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	tsih := c.login().TSIH
	r.node.Dismiss(tsih, time.Hour)
	if p, _ := c.receive(); !isA[*pdu.AsyncMessage](p) {
		t.Fatalf("%v, want an Asynchronous Message", p)
	}
	state, socks := r.freeze(t)
	r.move(t, state, socks)
	if left := r.node.session(tsih).askToLeave(2 * time.Hour); left > time.Hour {
		t.Errorf("%v left of an hour", left)
	}
	c.ping(2)
	state, _ = r.freeze(t)
	if left := time.Until(time.Unix(0, state.Sessions[0].Leave)); left <= 0 || left > time.Hour {
		t.Errorf("%v left of an hour", left)
	}
	r.node.Thaw()
}

// TestResetWhileFrozen moves a session between the answer to TARGET COLD RESET
// and the end of the connections that it causes.
func TestResetWhileFrozen(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login()
	c.send(&pdu.TaskManagementRequest{Immediate: true, Function: pdu.TargetColdReset, InitiatorTaskTag: 3, ReferencedTaskTag: pdu.ReservedTag, CmdSN: 2}, nil)
	if p, _ := c.receive(); !isA[*pdu.TaskManagementResponse](p) {
		t.Fatalf("%v, want a Task Management Function Response", p)
	}
	state, socks := r.freeze(t)
	r.move(t, state, socks)
	c.ended()
	r.none()
}

// TestConnectionLostWhileFrozen loses a connection after its reader has
// stopped: its task does not move, and the session ends, with its other
// connection.
func TestConnectionLostWhileFrozen(t *testing.T) {
	r := newRig(t, Limits{MaxConnections: 2}, Auth{})
	c := r.raw()
	tsih := c.login("MaxConnections=2", "InitialR2T=Yes").TSIH
	other := r.raw()
	join := &pdu.LoginRequest{Transit: true, CSG: pdu.LoginOperationalNegotiation, NSG: pdu.FullFeaturePhase,
		ISID: pdu.ISID{0x80, 1}, TSIH: tsih, CID: 1, InitiatorTaskTag: 1, CmdSN: 2}
	text := []byte("InitiatorName=" + testInitiator + "\x00TargetName=" + testTarget + "\x00")
	join.DataLength = uint32(len(text))
	other.send(join, text)
	if p, _ := other.receive(); p.(*pdu.LoginResponse).Status != pdu.LoginSuccess {
		t.Fatalf("second connection: %v", p)
	}
	w := write10(10, 2, 0, 8, 0)
	c.send(w, nil)
	if p, _ := c.receive(); !isA[*pdu.R2T](p) {
		t.Fatalf("%v, want a R2T", p)
	}
	c.send(read10(12, 4, 0, 1), nil) // ahead of its turn
	r.until("the read has arrived", func() bool {
		s := r.node.sessionList()[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.window.Len() == 1
	})
	if err := r.node.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, o := range r.node.connList() {
		if o.cid == 0 {
			o.close(errors.New("connection reset by peer"))
		}
	}
	state, socks := r.node.Snapshot()
	if len(socks) != 1 || len(state.Sessions[0].Tasks)+len(state.Sessions[0].Pending) != 0 || !state.Sessions[0].Ending {
		t.Errorf("%d sockets and %+v, want one, no task and the end", len(socks), state.Sessions[0])
	}
	r.move(t, state, socks)
	other.ended()
	r.none()
}

// TestTargetGoneInLogin moves a login to a successor that does not offer its
// target any more.
func TestTargetGoneInLogin(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	request := func(text string, transit bool) *pdu.LoginResponse {
		t.Helper()
		p := &pdu.LoginRequest{CSG: pdu.LoginOperationalNegotiation, DataLength: uint32(len(text)), ISID: pdu.ISID{0x80, 1}, InitiatorTaskTag: 1, CmdSN: 1}
		if transit {
			p.Transit, p.NSG = true, pdu.FullFeaturePhase
		}
		c.send(p, []byte(text))
		answer, _ := c.receive()
		return answer.(*pdu.LoginResponse)
	}
	if p := request("InitiatorName="+testInitiator+"\x00TargetName="+testTarget+"\x00", false); p.Status != pdu.LoginSuccess {
		t.Fatalf("first request: %v", p)
	}
	r.changed = func(target *Target) { target.Offline = true }
	state, socks := r.freeze(t)
	r.move(t, state, socks)
	if p := request("InitialR2T=Yes\x00", true); p.Status != pdu.ServiceUnavailable {
		t.Errorf("after the move: %v, want status %#x", p, pdu.ServiceUnavailable)
	}
	c.ended()
	r.none()
}

// TestRestoreWaitsForTimers: what a timer does to a new Node's sessions has ended before these are restored.
func TestRestoreWaitsForTimers(t *testing.T) {
	n := NewNode(Options{})
	defer n.Close()
	begun := make(chan struct{})
	var ended atomic.Bool
	go n.freeze.outside(func() {
		close(begun)
		time.Sleep(50 * time.Millisecond) // long enough for a Restore that does not wait
		ended.Store(true)
	})
	<-begun
	if err := n.Restore(new(NodeState), nil, func(string) *Target { return nil }); err != nil {
		t.Fatal(err)
	}
	if !ended.Load() {
		t.Error("the sessions are restored while a timer is at them")
	}
}

// TestSampleWaitsForNothing: samples of the sessions are left out in a freeze, and while sessions are restored.
func TestSampleWaitsForNothing(t *testing.T) {
	n := NewNode(Options{})
	defer n.Close()
	never := func() { t.Error("a sample is taken while the sessions stand still, or are another process's") }
	if err := n.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.freeze.outsideNow(never)
	n.Thaw()
	taken := false
	n.freeze.outsideNow(func() { taken = true })
	if !taken {
		t.Error("no sample is taken after the freeze")
	}
	if err := n.Restore(new(NodeState), nil, func(string) *Target { return nil }); err != nil {
		t.Fatal(err)
	}
	n.freeze.outsideNow(never)
}

// TestDataBeyondTheCommand has a write of no blocks come ahead of its turn with data, which is kept, and then
// wait for another command: nobody needs the data any more, and it does not move.
func TestDataBeyondTheCommand(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login("ImmediateData=Yes", "InitialR2T=Yes")
	data := pattern(512, 1)
	late := write10(11, 3, 0, 1, len(data))
	transfer10(late, 0x2a, 0, 0)
	late.Attribute = pdu.Ordered
	c.send(late, data)
	c.send(write10(10, 2, 8, 1, 0), nil)
	p, _ := c.receive()
	ask, ok := p.(*pdu.R2T)
	if !ok {
		t.Fatalf("%v, want an R2T", p)
	}
	state, socks := r.freeze(t)
	tasks := state.Sessions[0].Tasks
	if len(tasks) != 2 || tasks[1].Received != 512 || len(tasks[1].Data) > 0 {
		t.Fatalf("%+v", tasks)
	}
	r.move(t, state, socks)
	if again, _ := r.freeze(t); !cmp.Equal(again.Sessions[0].Tasks, tasks, cmpopts.EquateEmpty()) {
		t.Errorf("the tasks are others after a move: %s", cmp.Diff(again.Sessions[0].Tasks, tasks))
	}
	r.node.Thaw()
	c.send(&pdu.DataOut{Final: true, LUN: lun1, InitiatorTaskTag: 10, TargetTransferTag: ask.TargetTransferTag, DataLength: 512}, data)
	if got := c.statuses(2); got[10] != uint8(scsi.Good) || got[11] != uint8(scsi.Good) {
		t.Errorf("ended with %v", got)
	}
	r.stored(8, data)
}

// TestRestoreWithoutStrays takes over connections that are in the table of no session, as a process before could
// have them: they end, and the sessions go on.
func TestRestoreWithoutStrays(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login()
	strays := []*raw{r.raw(), r.raw()}
	r.until("all are accepted", func() bool { return len(r.node.connList()) == 3 })
	state, socks := r.freeze(t)
	first := slices.IndexFunc(state.Connections, func(st ConnectionState) bool { return st.TSIH != 0 })
	conns := state.Connections
	conns[0], conns[first] = conns[first], conns[0] // the first with a CID has it
	socks[0], socks[first] = socks[first], socks[0]
	for i := range conns[1:] { // one has the CID of the session's, the session of the other is gone
		conns[1+i].Login, conns[1+i].TSIH = nil, conns[0].TSIH+uint16(i)
	}
	r.move(t, state, socks)
	c.ping(2)
	for _, s := range strays {
		s.ended()
	}
}
