// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/iscsi/socket"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// freeze stops the Node and returns what it would hand over.
func (r *rig) freeze(t fatal) (*NodeState, []*socket.Socket) {
	r.stop(t)
	return r.node.Snapshot()
}

// stop stops the Node.
func (r *rig) stop(t fatal) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.node.Freeze(ctx); err != nil {
		t.Fatalf("freeze: %v", err)
	}
}

// move moves everything of the frozen Node to a fresh one over the same disk.
func (r *rig) move(t fatal, state *NodeState, socks []*socket.Socket) {
	r.moveWith(t, state, socks, nil)
}

// moveWith is move, with what follows the state.
func (r *rig) moveWith(t fatal, state *NodeState, socks []*socket.Socket, rest *Rest) {
	var moved NodeState
	var device scsi.DeviceState
	reencode(t, state, &moved)
	reencode(t, r.target.Device.Snapshot(), &device)
	var files []*os.File
	for _, c := range socks {
		fd, err := unix.FcntlInt(uintptr(c.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatalf("duplicate: %v", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "socket"))
	}
	next := NewNode(Options{Log: r.node.log, Arena: withArena})
	next.sys = r.node.sys
	target := diskOver(r.t, r.store, r.target.Limits, r.target.Auth)
	if err := target.Device.Restore(device); err != nil {
		t.Fatalf("restore: %v", err)
	}
	if r.changed != nil {
		r.changed(target)
	}
	next.SetTargets([]*Target{target}, announced, Auth{})
	if err := next.Restore(&moved, files, func(string) *Target { return target }); err != nil {
		t.Fatalf("restore: %v", err)
	}
	var followed bytes.Buffer
	if rest != nil {
		if err := rest.Write(&followed); err != nil {
			t.Fatalf("what follows: %v", err)
		}
	}
	r.node.Retire()
	if n := r.node.MemoryUsed() - heldByTasks(state); n > int64(len(state.Sessions))*testDiskSize {
		t.Fatalf("the retired node holds %d bytes", n)
	}
	next.Start()
	if rest != nil {
		if err := next.Follow(&followed); err != nil {
			t.Fatalf("what follows: %v", err)
		}
	}
	r.accepts.Store(next)
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

// arrived waits until the target has handled so many PDUs and read all that was
// sent to it.
func (r *rig) arrived(t fatal, pdus int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	for {
		for _, c := range r.node.connList() {
			queued, err := unix.IoctlGetInt(c.sock.FD(), unix.SIOCINQ)
			if err == nil && queued == 0 && int(c.heard.Load()) == pdus {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the target does not take the %d PDUs sent to it", pdus)
		}
	}
}

// trial is a run of a script that is disturbed.
type trial struct {
	cut   int    // bytes that the client sends before
	limit int    // bytes that the client takes before; below 0: no limit
	slow  bool   // the client reads nothing before, and the kernel has little room
	late  bool   // the client reads nothing before
	how   string // one of the ways
	more  int    // bytes that the client takes between two handoffs
}

var ways = []string{"handoff", "thaw", "thaw, then handoff", "two handoffs"}

// dataFollows is one more way: all data moves when the other Node runs already.
const dataFollows = "handoff, and data follows"

// commandsFollow is dataFollows with the commands as well.
const commandsFollow = "handoff, and commands follow"

// smallBuffer is a size of socket buffers that a script's reads fill, bytes.
const smallBuffer = 16 << 10

// play sends the script and returns all that the target answers. When the
// trial's position is reached it calls disturb; without a trial it never does.
func (r *rig) play(t fatal, s *script, spans []span, tr *trial, disturb func()) []byte {
	dialer := net.Dialer{}
	if tr != nil && tr.slow {
		dialer.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, smallBuffer) })
		}
	}
	conn, err := dialer.Dial("tcp", r.address())
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
	wait := tr != nil && (tr.late || tr.slow)
	if !wait {
		go reader()
	}
	rest := s.bytes
	if tr != nil {
		if _, err := conn.Write(rest[:tr.cut]); err != nil {
			t.Fatalf("send: %v", err)
		}
		r.arrived(t, wholePDUs(spans, tr.cut))
		disturb()
		rest = rest[tr.cut:]
	}
	if wait {
		_ = conn.(*net.TCPConn).SetReadBuffer(1 << 20)
		go reader()
	}
	if _, err := conn.Write(rest); err != nil {
		t.Fatalf("send: %v", err)
	}
	return <-answer
}

// wholePDUs counts the PDUs that end before a cut.
func wholePDUs(spans []span, cut int) int {
	for i := range spans {
		if spans[i].to > cut {
			return spans[i].n
		}
	}
	return spans[len(spans)-1].n + 1
}

// freezing is the test of one script.
type freezing struct {
	t      *testing.T
	script *script
	sent   []span // of the client's stream
	want   []byte // the target's stream of an undisturbed run, masked
	got    []span // of it
	disk   []byte // at the end of an undisturbed run
	reach  map[string]int

	scratch []byte // for the disk at the end of a disturbed run
}

func newFreezing(t *testing.T, s *script, reach map[string]int) *freezing {
	f := &freezing{t: t, script: s, sent: dissect(t, s.bytes, s.digests), reach: reach, scratch: make([]byte, testDiskSize)}
	r := newRigOn(t, Limits{}, s.auth, system{random: still{}, writev: (*socket.Socket).Writev, bound: unbounded}, 0)
	f.want = r.play(t, s, f.sent, nil, nil)
	f.got = dissect(t, f.want, s.digests)
	mask(t, f.want, f.got)
	if len(f.want) < 6*128*512 {
		t.Fatalf("the undisturbed run has an answer of %d bytes only", len(f.want))
	}
	f.disk = r.contents(t, make([]byte, testDiskSize))
	r.stored(longLBA, longData())
	return f
}

// unbounded leaves the send buffer as the test has made it.
func unbounded(*socket.Socket) error { return nil }

// contents reads the whole disk.
func (r *rig) contents(t fatal, disk []byte) []byte {
	if _, err := r.store.ReadAt(context.Background(), disk, 0); err != nil {
		t.Fatalf("read: %v", err)
	}
	return disk
}

// positions returns where a place is in this script.
func (f *freezing) positions(p *place) []interval {
	switch {
	case p.chap && !f.script.chap:
		return nil
	case p.out:
		return p.positions(f.got)
	}
	return p.positions(f.sent)
}

// stage prepares a run that stops at a position of a place.
func (f *freezing) stage(p *place, at int) (tr trial, g *gate, r *rig) {
	tr.cut, tr.limit, tr.slow = at, -1, p.slow
	if p.out {
		tr.cut, tr.limit = len(f.script.bytes), at
		if s := spanAt(f.got, at); s != nil && isLogin(s.pdu) {
			tr.cut = f.endOf(s.n) // the client waits for each answer
		}
	}
	g = newGate(tr.limit)
	buffer := 0
	if tr.slow {
		buffer = smallBuffer
	}
	return tr, g, newRigOn(f.t, Limits{}, f.script.auth, system{random: still{}, writev: g.writev, bound: unbounded}, buffer)
}

// awaitGate waits until the target has sent what it may.
func (tr *trial) awaitGate(g *gate) {
	if tr.limit >= 0 {
		<-g.reached
	}
}

// try disturbs a run at a position of a place.
func (f *freezing) try(t fatal, p *place, at int, o trial) {
	tr, g, r := f.stage(p, at)
	tr.how, tr.late, tr.more = o.how, o.late, o.more
	defer r.l.Close()
	hit := false
	stream := r.play(t, f.script, f.sent, &tr, func() {
		tr.awaitGate(g)
		hit = f.disturb(t, r, g, p, &tr)
	})
	spans := dissect(t, stream, f.script.digests)
	mask(t, stream, spans)
	if !bytes.Equal(stream, f.want) {
		t.Fatalf("%s, %s at byte %d (%+v): the initiator sees %d bytes, %d in an undisturbed run; the first difference is at %d",
			p.name, tr.how, at, tr, len(stream), len(f.want), firstDifference(stream, f.want))
	}
	if !bytes.Equal(r.contents(t, f.scratch), f.disk) {
		t.Fatalf("%s, %s at byte %d: the disk holds something else", p.name, tr.how, at)
	}
	if hit {
		f.reach[p.name]++
	}
	r.node.Close()
}

// endOf returns where a PDU of the client ends.
func (f *freezing) endOf(n int) (end int) {
	for i := range f.sent {
		if f.sent[i].n == n {
			end = f.sent[i].to
		}
	}
	return end
}

// disturb freezes the Node and lets it go on, here or elsewhere. It reports
// whether the first freeze was at the place.
func (f *freezing) disturb(t fatal, r *rig, g *gate, p *place, tr *trial) bool {
	if tr.how == dataFollows || tr.how == commandsFollow {
		r.stop(t)
		state, socks, rest, err := r.node.SnapshotApart(-1, tr.how == commandsFollow, func() error { return nil })
		if err != nil {
			t.Fatalf("snapshot: %v", err)
		}
		g.set(-1)
		r.moveWith(t, state, socks, rest)
		if rest != nil {
			f.reach[tr.how]++
		}
		return false
	}
	state, socks := r.freeze(t)
	hit := f.hit(p, state, tr.cut, g.sent())
	if tr.limit >= 0 && tr.how == "two handoffs" {
		g.set(tr.limit + tr.more)
	} else {
		g.set(-1)
	}
	if strings.HasPrefix(tr.how, "thaw") {
		r.node.Thaw()
		if tr.how == "thaw" {
			return hit
		}
		state, socks = r.freeze(t)
	}
	r.move(t, state, socks)
	if tr.how == "two handoffs" {
		state, socks = r.freeze(t)
		g.set(-1)
		r.move(t, state, socks)
	}
	return hit
}

// hit reports whether a snapshot that was taken at a cut, when so many bytes
// were sent, is of a place. It is not if more of the input is left than the
// PDU that has begun.
func (f *freezing) hit(p *place, state *NodeState, cut, sent int) bool {
	if len(state.Connections) != 1 {
		return false
	}
	m := moment{conn: &state.Connections[0], sess: new(SessionState), in: spanAt(f.sent, cut), out: spanAt(f.got, sent)}
	if len(state.Sessions) == 1 {
		m.sess = &state.Sessions[0]
	}
	begun := 0
	if m.in != nil {
		begun = cut - m.in.begin
	}
	return len(m.conn.In) == begun && p.hit(&m)
}

// TestFreezeAtAnyByte freezes a session at any byte of its life, in either
// direction, and goes on in a fresh Node, or thaws, or both one after the
// other: the initiator sees the very bytes of an undisturbed run, and the
// disk holds the same. Every kind of position is tried with every script that
// has it, and then at random.
func TestFreezeAtAnyByte(t *testing.T) {
	reach := make(map[string]int)
	all := places()
	var scripted []*freezing
	for _, s := range scripts() {
		f := newFreezing(t, s, reach)
		scripted = append(scripted, f)
		t.Run(s.name, func(t *testing.T) { f.tryEach(t, all) })
	}
	t.Run("at random", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			f := rapid.SampledFrom(scripted).Draw(rt, "script")
			p := rapid.SampledFrom(f.has(all)).Draw(rt, "place")
			v := rapid.SampledFrom(f.positions(p)).Draw(rt, "interval")
			at := rapid.IntRange(v.first, v.last).Draw(rt, "at")
			f.try(rt, p, at, trial{
				how:  rapid.SampledFrom(append(ways, dataFollows, commandsFollow)).Draw(rt, "how"),
				late: !p.out && rapid.Bool().Draw(rt, "the client reads late"),
				more: rapid.IntRange(0, 4096).Draw(rt, "more"),
			})
		})
	})
	for _, how := range []string{dataFollows, commandsFollow} {
		if t.Logf("%4d × %s", reach[how], how); reach[how] == 0 {
			t.Errorf("never happened: %s", how)
		}
	}
	for i := range all {
		t.Logf("%4d × %s", reach[all[i].name], all[i].name)
		if reach[all[i].name] == 0 {
			t.Errorf("never frozen there: %s", all[i].name)
		}
	}
}

// has returns the places that are in this script.
func (f *freezing) has(all []place) []*place {
	var here []*place
	for i := range all {
		if len(f.positions(&all[i])) > 0 {
			here = append(here, &all[i])
		}
	}
	return here
}

// tryEach disturbs a run once at every place, in the middle of its positions.
func (f *freezing) tryEach(t *testing.T, all []place) {
	for i, p := range f.has(all) {
		where := f.positions(p)
		v := where[len(where)/2]
		before := f.reach[p.name]
		f.try(t, p, (v.first+v.last)/2, trial{how: ways[i%len(ways)]})
		if f.reach[p.name] == before {
			t.Errorf("%s: not reached in the middle of %+v", p.name, v)
		}
		f.try(t, p, (v.first+v.last)/2, trial{how: dataFollows})
		f.try(t, p, (v.first+v.last)/2, trial{how: commandsFollow})
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
