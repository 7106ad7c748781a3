// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"
)

// joinPDU is a login that adds a connection to a session.
func (c *Client) joinPDU(tsih, cid uint16) PDU {
	p := c.LoginPDU(Text("InitiatorName="+Initiator, "TargetName="+Target))
	binary.BigEndian.PutUint16(p.Header[14:], tsih)
	binary.BigEndian.PutUint16(p.Header[20:], cid)
	return p
}

// TestJoinsAtOnce has connections join a session at once under the same CID. One of them is a part of the
// session; the others are not left behind when it ends, to be in the way of an upgrade.
func TestJoinsAtOnce(t *testing.T) {
	d := startUpgradable(t, Config(""))
	joined := 0
	for round := range 10 {
		first, in := joinAtOnce(t, d, byte(round))
		if joined += len(in); len(in) == 0 {
			t.Errorf("round %d: no connection has joined", round)
		}
		answers := func() (n int) {
			for _, c := range in {
				if c.Send(c.NOP(true, nil)) != nil {
					continue
				}
				if _, err := c.Expect(NOPIn); err == nil {
					n++
				}
			}
			return n
		}
		if n := answers(); n > 1 {
			t.Errorf("round %d: %d connections have the same CID", round, n)
		}
		first.Close()
		until(t, func() error {
			if n := answers(); n > 0 {
				return fmt.Errorf("round %d: the session has ended, and %d of its connections answer", round, n)
			}
			return nil
		})
	}
	Figure(t, "%d of 160 connections have joined a session, each in the place of the one before; %s", joined, upgrade(t, d))
}

// joinAtOnce opens a session and has 16 connections join it as CID 7. It returns the session's first
// connection, and those that were told that they have joined.
func joinAtOnce(t *testing.T, d *Daemon, n byte) (first *Client, in []*Client) {
	t.Helper()
	first = d.Dial(t)
	first.ISID[5] = n
	if err := first.Send(first.LoginPDU(Text("InitiatorName="+Initiator, "TargetName="+Target, "MaxConnections=8"))); err != nil {
		t.Fatal(err)
	}
	p, err := first.Receive()
	if err != nil || p.Header[36] != 0 {
		t.Fatalf("login: %v, status %#x", err, p.Header[36])
	}
	tsih := binary.BigEndian.Uint16(p.Header[14:])
	var all sync.WaitGroup
	var mu sync.Mutex // protects in
	begin := make(chan struct{})
	for range 16 {
		c := d.Dial(t)
		c.ISID = first.ISID
		all.Go(func() {
			<-begin
			if c.Send(c.joinPDU(tsih, 7)) != nil {
				return
			}
			if p, err := c.Receive(); err == nil && p.Opcode() == LoginResp && p.Header[36] == 0 {
				mu.Lock()
				defer mu.Unlock()
				in = append(in, c)
			}
		})
	}
	close(begin)
	all.Wait()
	return first, in
}

// TestColdResets has sessions ask for TARGET COLD RESET again and again until they end because of it.
func TestColdResets(t *testing.T) {
	const sessions, each = 50, 20000
	d := Start(t, gotgtd, Config(""))
	before := d.RSS(t)
	d.ResetPeak(t)
	var all sync.WaitGroup
	for n := range sessions {
		c := d.LoginAs(t, n)
		var pdus []PDU
		for range each {
			pdus = append(pdus, c.Management(7, NoTag))
		}
		all.Go(func() { _ = c.Send(pdus...) }) // the session ends meanwhile
		all.Go(func() {
			for {
				if _, err := c.Receive(); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	grown := d.PeakRSS(t) - before
	Figure(t, "%d sessions that send up to %d of TARGET COLD RESET each: RSS +%s", sessions, each, MiB(grown))
	if grown > 20<<20 {
		t.Errorf("RSS has grown by %s", MiB(grown))
	}
}

// ahead is how many commands a session sends ahead of their turn.
const ahead = 127

// sendAhead sends commands behind a gap in CmdSN, so that the target keeps them.
func (c *Client) sendAhead() error {
	c.CmdSN++
	var pdus []PDU
	for range ahead {
		pdus = append(pdus, c.Command(make([]byte, 6), false, 0, nil)) // TEST UNIT READY
	}
	return c.Send(pdus...)
}

// closeGap sends what is missing, and takes the answers to all that was kept.
func (c *Client) closeGap() error {
	p := c.NOP(false, nil)
	p.Set(24, c.CmdSN-1-ahead-1)
	if err := c.Send(p); err != nil {
		return err
	}
	for n := range ahead {
		if _, err := c.Expect(SCSIResponse); err != nil {
			return fmt.Errorf("after %d of %d responses: %w", n, ahead, err)
		}
	}
	return nil
}

// TestUpgradeWithManyCommands upgrades while sessions have all the commands that they may, which take no memory
// to speak of. The innocent hardly waits longer than for an upgrade with as many idle sessions.
func TestUpgradeWithManyCommands(t *testing.T) {
	const sessions = 900
	d := startUpgradable(t, Config(""))
	i := LogIn(t, d)
	var list []*Client
	for n := range sessions {
		list = append(list, d.LoginAs(t, n))
	}
	best := func() (wait time.Duration, told string) {
		wait = time.Hour
		for range tries { // what else the machine does disturbs not each of them
			f := i.While(t, func() { told = upgrade(t, d) })
			wait = min(wait, f.Max())
		}
		return wait, told
	}
	idle, _ := best()
	for _, c := range list {
		if err := c.sendAhead(); err != nil {
			t.Fatal(err)
		}
		if err := c.Send(c.NOP(true, nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Expect(NOPIn); err != nil { // what was sent before it has arrived
			t.Fatal(err)
		}
	}
	many, told := best()
	Figure(t, "%s", told)
	Figure(t, "innocent's longest wait: %v with %d idle sessions, %v with %d commands of theirs", idle, sessions, many, sessions*ahead)
	if bound := max(250*time.Millisecond, 4*idle); many > bound {
		t.Errorf("the innocent waited for %v, and for %v with the sessions idle", many, idle)
	}
	for n := 0; n < len(list); n += 50 {
		if err := list[n].closeGap(); err != nil {
			t.Errorf("session %d: %v", n, err)
		}
	}
}
