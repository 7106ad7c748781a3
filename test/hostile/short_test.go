// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// takeAll makes many initiators hold all the memory that they get, with writes of all sizes whose R2Ts are never
// answered.
func takeAll(t *testing.T, d *Daemon) {
	t.Helper()
	for n := range 100 {
		c := d.LoginAs(t, n)
		if err := c.Settle(); err != nil {
			t.Fatal(err)
		}
		for size := uint32(bigBlocks); size >= 4; size /= 2 {
			var pdus []PDU
			for range 8 {
				pdus = append(pdus, c.Command(Transfer(true, innocentBlocks, size), true, size*innocentBlock, nil))
			}
			if err := c.Send(pdus...); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, func() error {
		var status struct {
			Waiting int `json:"memory_waiting"`
		}
		out, err := peer.Run(t.Context(), gotgtd.Path(t), "show", "--json", "--control", d.Control())
		if err == nil {
			err = json.Unmarshal([]byte(out), &status)
		}
		if err == nil && status.Waiting < 100 {
			err = fmt.Errorf("%d commands wait for memory", status.Waiting)
		}
		return err
	})
}

// TestMemoryIsShort has initiators with one command at a time, and logins and discovery, while others hold all
// the memory that is shared: the reserve of each suffices for 4 KiB in every way that data may come.
func TestMemoryIsShort(t *testing.T) {
	d := Start(t, gotgtd, Config(fmt.Sprintf("limits:\n  memory: %d\n  r2t-timeout: 1h\n", memoryLimit)))
	takeAll(t, d)
	for _, w := range []struct {
		name string
		o    initiator.Options
	}{
		{"immediate data", initiator.Options{ImmediateData: true, InitialR2T: true}},
		{"immediate and unsolicited data", initiator.Options{ImmediateData: true}},
		{"unsolicited data", initiator.Options{}},
		{"solicited data", initiator.Options{InitialR2T: true}},
		{"immediate data, digests", initiator.Options{ImmediateData: true, HeaderDigest: "CRC32C", DataDigest: "CRC32C"}},
		{"unsolicited data, digests", initiator.Options{HeaderDigest: "CRC32C", DataDigest: "CRC32C"}},
	} {
		Figure(t, "%s: %v", w.name, dialInnocent(t, d, w.o).For(t, 500*time.Millisecond))
	}
	if n := logins(t, d, 20, elsewhere); n != 20 {
		t.Errorf("%d of 20 logins", n)
	}
	c := d.DialFrom(t, elsewhere)
	if err := errors.Join(c.Login("iqn.2026-11.test:innocent", ""), c.Send(c.TextPDU(NoTag, Text("SendTargets=All")))); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Receive(); err != nil || p.Opcode() != TextResp || !bytes.Contains(p.Data, []byte(Target)) {
		t.Errorf("SendTargets: PDU %#x with %q, %v", p.Opcode(), p.Data, err)
	}
	smallRequests(t, d)
}

// smallRequests sends what is answered with little, and with allocation lengths of 0 and of 4 GiB.
func smallRequests(t *testing.T, d *Daemon) {
	t.Helper()
	const most = 0xffffffff
	c := d.LoginAs(t, 1000)
	if err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	page := bytes.Repeat([]byte{1}, innocentBytes)
	for name, request := range map[string]func() PDU{
		"ping":         func() PDU { return c.NOP(true, page) },
		"ping in turn": func() PDU { return c.NOP(false, page) },
		"INQUIRY":      func() PDU { return c.Command([]byte{0x12, 0, 0, 0xff, 0xff, 0}, false, 0xffff, nil) },
		"VPD, no room": func() PDU { return c.Command([]byte{0x12, 1, 0, 0, 0, 0}, false, 0, nil) },
		"VPD":          func() PDU { return c.Command([]byte{0x12, 1, 0xb0, 0xff, 0xff, 0}, false, 0xffff, nil) },
		"MODE SENSE":   func() PDU { return c.Command([]byte{0x1a, 0, 0x3f, 0, 255, 0}, false, 255, nil) },
		"REPORT LUNS": func() PDU {
			return c.Command([]byte{0xa0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}, false, most, nil)
		},
		"REPORT SUPPORTED OPERATION CODES": func() PDU {
			return c.Command([]byte{0xa3, 0x0c, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0}, false, most, nil)
		},
	} {
		for range 20 {
			if err := c.Send(request()); err != nil {
				t.Fatal(err)
			}
			if p, err := c.Receive(); err != nil || p.Opcode() == Reject || p.Opcode() != NOPIn && p.Header[3] != 0 {
				t.Fatalf("%s: PDU %#x, status %#x, %v", name, p.Opcode(), p.Header[3], err)
			}
		}
	}
}

// TestSpecPorts registers an initiator with many sessions by a PERSISTENT RESERVE OUT that names it thousands of times.
func TestSpecPorts(t *testing.T) {
	const sessions, names = 200, 8000
	d := Start(t, gotgtd, Config(""))
	name := "iqn.2026-11.a:x"
	for n := range sessions {
		c := d.DialFrom(t, attacker)
		c.ISID[4], c.ISID[5] = byte(n>>8), byte(n)
		if err := c.Login(name, Target); err != nil {
			t.Fatal(err)
		}
	}
	c := d.Login(t, 1)
	if err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 24) // a TransportID without ISID, see SPC-4 7.6.4.6
	id[0], id[3] = 5, 20
	copy(id[4:], name)
	list := make([]byte, 28, 28+len(id)*names)
	list[15], list[20] = 1, 8 // a key, SPEC_I_PT
	binary.BigEndian.PutUint32(list[24:], uint32(len(id)*names))
	list = append(list, bytes.Repeat(id, names)...)
	cdb := make([]byte, 10)
	cdb[0] = 0x5f
	binary.BigEndian.PutUint32(cdb[5:], uint32(len(list)))
	before := d.CPU(t)
	if err := c.Send(c.Command(cdb, true, uint32(len(list)), nil)); err != nil {
		t.Fatal(err)
	}
	r, err := c.Expect(R2T)
	if err != nil {
		t.Fatal(err)
	}
	p := NewPDU(DataOut, false, list)
	p.SetLUN(1)
	p.Set(16, r.Tag())
	p.Set(20, r.Get(20))
	if err := c.Send(p); err != nil {
		t.Fatal(err)
	}
	if p, err = c.Expect(SCSIResponse); err != nil || p.Header[3] != 0 {
		t.Fatalf("status %#x, %v", p.Header[3], err)
	}
	took := d.CPU(t) - before
	Figure(t, "%d names of an initiator with %d sessions: %v of CPU", names, sessions, took)
	if took > 200*time.Millisecond {
		t.Errorf("%v of CPU", took)
	}
}
