// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// TestWriteArrival writes in every mix of immediate, unsolicited and solicited
// data that negotiation can come to: what was written is what the disk has,
// and reads bring it back.
func TestWriteArrival(t *testing.T) { withFastPaths(t, testWriteArrival) }

func testWriteArrival(t *testing.T, f FastPaths) {
	r := newRigWith(t, Limits{}, Auth{}, realSystem, 0, f)
	sizes := []uint32{512, 1024, 4096, 8192, 65536, 262144}
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		o := initiator.Options{
			Address: r.address(), TargetName: testTarget, InitiatorName: fmt.Sprintf("iqn.2026-11.test:arrival-%d", n),
			InitialR2T:               rapid.Bool().Draw(rt, "InitialR2T"),
			ImmediateData:            rapid.Bool().Draw(rt, "ImmediateData"),
			FirstBurstLength:         rapid.SampledFrom(sizes).Draw(rt, "FirstBurstLength"),
			MaxBurstLength:           rapid.SampledFrom(sizes).Draw(rt, "MaxBurstLength"),
			MaxRecvDataSegmentLength: rapid.SampledFrom(sizes).Draw(rt, "MaxRecvDataSegmentLength"),
			MaxOutstandingR2T:        uint32(rapid.IntRange(1, 8).Draw(rt, "MaxOutstandingR2T")),
			HeaderDigest:             rapid.SampledFrom([]string{"None", "CRC32C"}).Draw(rt, "HeaderDigest"),
			DataDigest:               rapid.SampledFrom([]string{"None", "CRC32C"}).Draw(rt, "DataDigest"),
		}
		o.FirstBurstLength = min(o.FirstBurstLength, o.MaxBurstLength)
		n++
		s, err := initiator.Dial(t.Context(), o)
		if err == nil {
			err = s.Settle(t.Context(), initiator.LUN(1))
		}
		if err != nil {
			rt.Fatalf("login: %v", err)
		}
		defer s.Close()
		for range 3 {
			blocks := rapid.IntRange(1, 2048).Draw(rt, "blocks")
			lba := rapid.IntRange(0, testDiskSize/512-blocks).Draw(rt, "lba")
			data := pattern(blocks*512, byte(n))
			var cmd initiator.Command
			if err := s.Do(t.Context(), cmd.Write16(initiator.LUN(1), uint64(lba), uint32(blocks), data, 0)); err != nil {
				rt.Fatalf("write: %v", err)
			}
			r.stored(int64(lba), data)
			back := make([]byte, len(data))
			if err := s.Do(t.Context(), cmd.Read16(initiator.LUN(1), uint64(lba), uint32(blocks), back, 0)); err != nil {
				rt.Fatalf("read: %v", err)
			}
			if !bytes.Equal(back, data) {
				rt.Fatalf("%d blocks at LBA %d read back otherwise", blocks, lba)
			}
		}
	})
}

// TestCmdSNWindow sends commands in any order within the window, some of them
// twice and some outside it: each is carried out once, in the order of CmdSN,
// and the window never goes back.
func TestCmdSNWindow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t, Limits{QueueDepth: 32}, Auth{})
		defer r.l.Close()
		c := r.raw()
		defer c.c.Close()
		c.login("ImmediateData=Yes")
		next := uint32(2)
		var last pdu.Sequence
		for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
			count := uint32(rapid.IntRange(1, 31).Draw(rt, "count"))
			var order []uint32
			for i := range count {
				order = append(order, next+i)
			}
			order = rapid.Permutation(order).Draw(rt, "order")
			if rapid.Bool().Draw(rt, "outside") {
				order = slices.Insert(order, 0, next+1000, next-1) // ignored
			}
			// All write the same block, so the last in the order of CmdSN wins.
			for _, sn := range order {
				c.send(write10(sn, sn, 0, 1, 512), bytes.Repeat([]byte{byte(sn)}, 512))
			}
			for i := range count {
				p, _ := c.receive()
				resp, ok := p.(*pdu.SCSIResponse)
				if !ok || resp.Status != uint8(scsi.Good) || resp.InitiatorTaskTag != next+i {
					rt.Fatalf("response %d: %v, want GOOD for tag %d", i, p, next+i)
				}
				if pdu.SNLess(resp.MaxCmdSN, last.MaxCmdSN) || pdu.SNLess(resp.ExpCmdSN, last.ExpCmdSN) {
					rt.Fatalf("the window went back: %v after %v", resp.Sequence, last)
				}
				last = resp.Sequence
			}
			next += count
			if last.ExpCmdSN != next || last.MaxCmdSN != next+31 {
				rt.Fatalf("at rest ExpCmdSN is %d and MaxCmdSN %d, want %d and %d", last.ExpCmdSN, last.MaxCmdSN, next, next+31)
			}
			r.stored(0, bytes.Repeat([]byte{byte(next - 1)}, 512))
		}
		c.c.Close()
		r.none()
		r.node.Close()
	})
}

// TestLoginStatus has a login for each status that a target may refuse with.
func TestLoginStatus(t *testing.T) {
	const closed = "iqn.2026-11.test:closed"
	r := newRig(t, Limits{}, Auth{})
	off := *r.target
	off.Name, off.Offline = "iqn.2026-11.test:offline", true
	shut := *r.target
	shut.Name = closed
	shut.Allowed = func(Peer) (bool, string) { return false, "nobody is" }
	chap := *r.target
	chap.Name, chap.Auth = "iqn.2026-11.test:chap", Auth{Users: []Account{{User: "user", Secret: "a secret of some length"}}}
	r.node.SetTargets([]*Target{r.target, &off, &shut, &chap}, announced, Auth{})
	name, target := "InitiatorName="+testInitiator, "TargetName="+testTarget
	for _, c := range []struct {
		what   string
		change func(*pdu.LoginRequest)
		keys   []string
		want   pdu.LoginStatus
	}{
		{"good", nil, []string{name, target}, pdu.LoginSuccess},
		{"no InitiatorName", nil, []string{target}, pdu.MissingParameter},
		{"no TargetName", nil, []string{name}, pdu.MissingParameter},
		{"unknown target", nil, []string{name, "TargetName=iqn.2026-11.test:none"}, pdu.TargetNotFound},
		{"not allowed", nil, []string{name, "TargetName=" + closed}, pdu.AuthorizationFailure},
		{"offline", nil, []string{name, "TargetName=" + off.Name}, pdu.ServiceUnavailable},
		{"authentication left out", nil, []string{name, "TargetName=" + chap.Name}, pdu.AuthenticationFailure},
		{"session type", nil, []string{name, target, "SessionType=Other"}, pdu.SessionTypeNotSupported},
		{"version", func(p *pdu.LoginRequest) { p.VersionMin = 1 }, []string{name, target}, pdu.UnsupportedVersion},
		{"no such session", func(p *pdu.LoginRequest) { p.TSIH = 999 }, []string{name, target}, pdu.SessionDoesNotExist},
		{"stage", func(p *pdu.LoginRequest) { p.CSG = 2 }, []string{name, target}, pdu.InitiatorError},
		{"T and C", func(p *pdu.LoginRequest) { p.Continue = true }, []string{name, target}, pdu.InitiatorError},
		{"a key twice", nil, []string{name, target, "MaxBurstLength=512", "MaxBurstLength=512"}, pdu.InitiatorError},
		{"two InitiatorNames", nil, []string{"InitiatorName=iqn.2026-11.test:other", name, target}, pdu.InitiatorError},
		{"InitiatorName twice", nil, []string{name, name, target}, pdu.LoginSuccess},
		{"no '='", nil, []string{name, target, "nonsense"}, pdu.InitiatorError},
	} {
		t.Run(c.what, func(t *testing.T) {
			conn := r.raw()
			text := pdu.AppendText(nil)
			for _, k := range c.keys {
				text = append(append(text, k...), 0)
			}
			p := pdu.LoginRequest{Transit: true, CSG: 1, NSG: 3, ISID: pdu.ISID{0x80}, DataLength: uint32(len(text)), InitiatorTaskTag: 9, CmdSN: 1}
			if c.change != nil {
				c.change(&p)
			}
			conn.send(&p, text)
			got, _ := conn.receive()
			if resp, ok := got.(*pdu.LoginResponse); !ok || resp.Status != c.want || resp.InitiatorTaskTag != 9 {
				t.Errorf("%v, want status %#04x", got, c.want)
			}
			conn.c.Close()
			r.none()
		})
	}
}

// TestNamesSentAgain sends a name in the second request of a login.
func TestNamesSentAgain(t *testing.T) {
	for key, want := range map[string]pdu.LoginStatus{
		"InitiatorName=" + testInitiator:          pdu.LoginSuccess,
		"InitiatorName=iqn.2026-11.test:other":    pdu.InitiatorError,
		"TargetName=" + testTarget:                pdu.LoginSuccess,
		"TargetName=iqn.2026-11.test:another-one": pdu.InitiatorError,
	} {
		r := newRig(t, Limits{}, Auth{})
		conn := r.raw()
		for i, keys := range []string{"InitiatorName=" + testInitiator + "\x00TargetName=" + testTarget + "\x00", key + "\x00"} {
			p := pdu.LoginRequest{CSG: 1, ISID: pdu.ISID{0x80}, DataLength: uint32(len(keys)), InitiatorTaskTag: 9, CmdSN: 1}
			conn.send(&p, []byte(keys))
			status := pdu.LoginSuccess
			if i == 1 {
				status = want
			}
			got, _ := conn.receive()
			if resp, ok := got.(*pdu.LoginResponse); !ok || resp.Status != status {
				t.Errorf("request %d, %q: %v, want status %#04x", i, key, got, status)
			}
		}
		conn.c.Close()
		r.none()
	}
}

// TestCHAP authenticates with each algorithm, one-way and mutual, and fails
// to where it must.
func TestCHAP(t *testing.T) {
	auth := Auth{Users: []Account{{User: "alice", Secret: "wonderland-1865"}}, Outgoing: &Account{User: "target", Secret: "looking-glass-1871"}}
	r := newRig(t, Limits{}, auth)
	dial := func(c initiator.CHAP) error {
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address(), TargetName: testTarget, CHAP: c})
		if err != nil {
			return err
		}
		return errors.Join(s.Logout(t.Context()), s.Close())
	}
	for _, a := range []initiator.Algorithm{5, 6, 7, 8} {
		one := initiator.CHAP{User: "alice", Secret: "wonderland-1865", Algorithms: []initiator.Algorithm{a}}
		mutual := one
		mutual.TargetUser, mutual.TargetSecret = "target", "looking-glass-1871"
		wrong := one
		wrong.Secret = "wonderland-1866"
		if err := errors.Join(dial(one), dial(mutual)); err != nil {
			t.Errorf("algorithm %d: %v", a, err)
		}
		var refused *initiator.LoginError
		if err := dial(wrong); !errors.As(err, &refused) || refused.Status != pdu.AuthenticationFailure {
			t.Errorf("algorithm %d with a wrong secret: %v", a, err)
		}
	}
	r.none()
}

// TestReinstatement logs in a second time with the same ISID: the first
// session ends, and its successor has the task set to itself.
func TestReinstatement(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	o := initiator.Options{ISID: pdu.ISID{0x80, 1, 2, 3, 4, 5}}
	first := r.dial(o)
	second := r.dial(o)
	<-first.Done()
	if err := second.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Error(err)
	}
	r.until("one session is left", func() bool { return len(r.node.sessionList()) == 1 })
}

// TestLookWhileLoggingIn looks at the sessions all the time while initiators log
// in: a session stands in the table before its nexus is open.
func TestLookWhileLoggingIn(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				r.node.SampleIO()
				r.node.Sessions()
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	for range 50 {
		r.dial(initiator.Options{}).Close()
	}
}

// TestEndedWhileOpening ends a session while its login opens it: the login fails,
// and nothing is left to wait for.
func TestEndedWhileOpening(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	end := sync.OnceFunc(func() { r.node.sessionList()[0].end(errDismissed) })
	r.target.Masked = func(Peer) []uint16 { end(); return nil }
	r.node.SetTargets([]*Target{r.target}, announced, Auth{})
	o := initiator.Options{ISID: pdu.ISID{0x80, 1}}
	r.refused(o, pdu.ServiceUnavailable)
	r.none()
	r.dial(o)
}

// TestConnections uses eight connections in one session, closes one, and
// reads through the others.
func TestConnections(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	s := r.dial(initiator.Options{MaxConnections: 8})
	for range 7 {
		if _, err := s.AddConnection(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.AddConnection(t.Context()); err == nil {
		t.Error("a ninth connection was accepted")
	}
	if err := s.LogoutConnection(t.Context(), 3, 3); err != nil {
		t.Errorf("logout of a connection: %v", err)
	}
	var cmd initiator.Command
	buf := make([]byte, 4096)
	for i := range 64 {
		if err := s.Do(t.Context(), cmd.Read10(initiator.LUN(1), uint32(i), 8, buf, 0)); err != nil {
			t.Fatal(err)
		}
	}
	r.until("seven connections are left", func() bool { return len(r.node.connList()) == 7 })
}

// TestJoinsAtOnce has connections join a session at once, two for each CID, while others look at the session and
// ask it to log out: there are no more of them than the session may have, and all end with it.
func TestJoinsAtOnce(t *testing.T) {
	r := newRig(t, Limits{MaxConnections: 4}, Auth{})
	first := r.raw()
	tsih := first.login("MaxConnections=4").TSIH
	text := []byte("InitiatorName=" + testInitiator + "\x00TargetName=" + testTarget + "\x00")
	var joining []*raw
	for range 16 {
		joining = append(joining, r.raw())
	}
	r.until("all are accepted", func() bool { return len(r.node.connList()) == 1+len(joining) })
	r.freeze(t) // so that all logins are there before any is looked at
	var all sync.WaitGroup
	for i, c := range joining {
		if _, err := c.c.Write(encode(&pdu.LoginRequest{
			Transit: true, CSG: pdu.LoginOperationalNegotiation, NSG: pdu.FullFeaturePhase, TSIH: tsih,
			CID: uint16(1 + i%8), DataLength: uint32(len(text)), ISID: pdu.ISID{0x80, 1}, CmdSN: 2,
		}, text)); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for { // until the end of the stream
				if _, _, err := readPDU(c.c); err != nil {
					return
				}
			}
		})
	}
	r.node.Thaw()
	r.until("three have joined", func() bool {
		list := r.node.Sessions()
		r.node.session(tsih).requestLogout()
		if len(list) != 1 || len(list[0].Connections) > 4 {
			t.Fatalf("there is not one session with 4 connections at most: %+v", list)
		}
		return len(list[0].Connections) == 4 && len(r.node.connList()) == 4
	})
	first.c.Close()
	all.Wait()
	r.none()
}

// TestRejects sends what a target must refuse and the session must survive.
func TestRejects(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login()
	reject := func(what string, reason pdu.RejectReason) {
		t.Helper()
		p, data := c.receive()
		if rej, ok := p.(*pdu.Reject); !ok || rej.Reason != reason || len(data) != pdu.BHSLen {
			t.Errorf("%s is answered %v, want Reject %#x", what, p, reason)
		}
	}
	c.send(&pdu.SNACKRequest{InitiatorTaskTag: 5}, nil)
	reject("SNACK", pdu.SNACKReject)
	var h pdu.BHS
	h[0] = 0x1c
	if _, err := c.c.Write(h[:]); err != nil {
		t.Fatal(err)
	}
	reject("an unknown opcode", pdu.CommandNotSupported)
	w := write10(7, 2, 0, 16, 0)
	c.send(w, nil)
	if p, _ := c.receive(); p.(*pdu.R2T).DesiredDataTransferLength != 8192 {
		t.Errorf("%v", p)
	}
	c.send(read10(7, 3, 0, 1), nil)
	reject("a task tag in use", pdu.TaskInProgress)
	// One that is ahead of its turn is rejected at once, and uses up its CmdSN
	// later. One whose CmdSN has been used up is ignored.
	c.send(read10(7, 5, 0, 1), nil)
	reject("a task tag in use, ahead of its turn", pdu.TaskInProgress)
	c.send(read10(7, 3, 0, 1), nil)
	// A Data-Out out of sequence fails its command and nothing else.
	c.send(&pdu.DataOut{Final: true, DataLength: 8192, LUN: lun1, InitiatorTaskTag: 7, TargetTransferTag: 1, DataSN: 4}, make([]byte, 8192))
	if p, _ := c.receive(); p.(*pdu.SCSIResponse).Status != uint8(scsi.CheckCondition) {
		t.Errorf("%v", p)
	}
	for itt, cmdSN := range map[uint32]uint32{8: 4, 9: 6} {
		c.send(read10(itt, cmdSN, 0, 1), nil)
	}
	for range 2 {
		if p, _ := c.receive(); !p.(*pdu.DataIn).HasStatus {
			t.Errorf("%v", p)
		}
	}
}

// TestKilledClients cuts connections off in the middle of everything: nothing
// is left of them.
func TestKilledClients(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	all := scripts()[0].bytes
	for cut := 1; cut < len(all); cut += 397 {
		conn, err := net.Dial("tcp", r.address())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(all[:cut]); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	r.none()
}

// TestFlippedBits damages one bit of a client's stream: at worst that one
// connection ends, and the target serves the next client.
func TestFlippedBits(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	all := scripts()[0].bytes
	rapid.Check(t, func(rt *rapid.T) {
		damaged := bytes.Clone(all)
		damaged[rapid.IntRange(0, len(all)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		conn, err := net.Dial("tcp", r.address())
		if err != nil {
			rt.Fatalf("dial: %v", err)
		}
		_, _ = conn.Write(damaged)
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	})
	r.none()
	if err := r.dial(initiator.Options{}).TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Error(err)
	}
}

// TestLongSegments writes with Data-Out segments so long that they are read
// straight into their tasks, at depth: a task that has
// gone on is not touched any more by the reader that filled it.
func TestLongSegments(t *testing.T) { withFastPaths(t, testLongSegments) }

func testLongSegments(t *testing.T, f FastPaths) {
	r := newRigWith(t, Limits{}, Auth{}, realSystem, 0, f)
	var wait sync.WaitGroup
	for i := range 4 {
		s := r.dial(initiator.Options{InitiatorName: fmt.Sprintf("iqn.2026-11.test:long-%d", i), InitialR2T: true, MaxBurstLength: 256 << 10, MaxOutstandingR2T: 4})
		for w := range 4 {
			wait.Go(func() {
				var cmd initiator.Command
				data := pattern(512<<10, byte(w))
				for range 20 {
					if err := s.Do(t.Context(), cmd.Write16(initiator.LUN(1), uint64(w*2048), uint32(len(data)/512), data, 0)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wait.Wait()
}

// TestTargetGoneDuringLogin takes a target away after a login has looked it up, and before
// its session is there.
func TestTargetGoneDuringLogin(t *testing.T) {
	n := NewNode(Options{})
	defer n.Close()
	target, _ := newDisk(t, Limits{}, Auth{})
	n.SetTargets([]*Target{target}, nil, Auth{})
	s := newSession(&n.engine, n)
	s.target = target
	n.SetTargets(nil, nil, Auth{})
	if old, err := n.addSession(s); old != nil || !errors.Is(err, login.ErrNoTarget) {
		t.Errorf("%v, %v", old, err)
	}
}
