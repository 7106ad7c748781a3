// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Commands that occupy a store. They address the disk from its second GiB on, and leave the
// innocent's blocks alone.
const farAway = 1 << 30 / innocentBlock

// bigConfig is a YAML with a sparse file of 2 GiB.
func bigConfig(t *testing.T) string {
	return fmt.Sprintf("targets:\n  - name: %s\n    luns:\n      - {lun: 1, path: %s, create: true, size: 2GiB}\n",
		Target, filepath.Join(t.TempDir(), "disk"))
}

// unmapMost is an UNMAP of 256 x 2 MiB.
func unmapMost(c *Client) PDU {
	const extents, blocks = 256, 2 << 20 / innocentBlock
	be := binary.BigEndian
	list := make([]byte, 8, 8+16*extents)
	be.PutUint16(list, 6+16*extents)
	be.PutUint16(list[2:], 16*extents)
	for i := range uint64(extents) {
		list = be.AppendUint64(list, farAway+i*blocks)
		list = be.AppendUint32(list, blocks)
		list = append(list, 0, 0, 0, 0)
	}
	cdb := make([]byte, 10)
	cdb[0] = 0x42
	be.PutUint16(cdb[7:], uint16(len(list)))
	return c.Command(cdb, true, uint32(len(list)), list)
}

// verifyMost is a VERIFY (16) of 8 MiB.
func verifyMost(c *Client) PDU {
	cdb := Transfer(false, farAway, 8<<20/innocentBlock)
	cdb[0] = 0x8f
	return c.Command(cdb, false, 0, nil)
}

// writeSame is a WRITE SAME (16) of 16 MiB, somewhere in what unmapMost frees.
func writeSame(c *Client) PDU {
	const blocks = 16 << 20 / innocentBlock
	cdb := Transfer(true, farAway+uint64(c.LastTag%8)*blocks, blocks)
	cdb[0] = 0x93
	block := make([]byte, innocentBlock)
	block[0] = 1
	return c.Command(cdb, true, innocentBlock, block)
}

// compareAndWrite is a COMPARE AND WRITE of 8 blocks.
func compareAndWrite(c *Client) PDU {
	cdb := Transfer(true, farAway*3/2, 0)
	cdb[0], cdb[13] = 0x89, 8
	return c.Command(cdb, true, 16*innocentBlock, make([]byte, 16*innocentBlock))
}

// flood keeps so many commands of a session under way until it is stopped, and counts those
// that have ended with GOOD.
func flood(t *testing.T, d *Daemon, n, depth int, ended *int, next func(*Client) PDU) (stop func()) {
	t.Helper()
	c := d.LoginAs(t, n)
	if err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range depth {
		if err := c.Send(next(c)); err != nil {
			t.Fatal(err)
		}
	}
	wg.Go(func() {
		for {
			p, err := c.Receive()
			if err != nil {
				return
			}
			if p.Opcode() != SCSIResponse {
				continue
			}
			if p.Header[3] == 0 { // GOOD
				*ended++
			}
			if c.Send(next(c)) != nil {
				return
			}
		}
	})
	return func() {
		c.Close()
		wg.Wait()
	}
}

// within has the innocent work until its 99th percentile is 20 ms, or 5 times that of undisturbed work if that is
// more, and fails the test if it never is.
func within(t *testing.T, i *Innocent, alone *Figures, d time.Duration) *Figures {
	t.Helper()
	for try := 1; ; try++ {
		f := i.For(t, d)
		bound := max(20*time.Millisecond, 5*alone.P99())
		if f.P99() > bound && try == tries {
			t.Errorf("the innocent's p99 is %v, want %v at most", f.P99(), bound)
		}
		if f.P99() <= bound || try == tries {
			return f
		}
	}
}

// TestLongCommands floods a disk with each of the commands that occupy a store for long, and
// with all of them together.
func TestLongCommands(t *testing.T) {
	d := Start(t, gotgtd, bigConfig(t))
	i := LogIn(t, d)
	i.For(t, time.Second) // the innocent's blocks are there then
	alone := i.For(t, 2*time.Second)
	Figure(t, "undisturbed: %v", alone)
	floods := map[string]func(*Client) PDU{"UNMAP": unmapMost, "VERIFY": verifyMost, "WRITE SAME": writeSame, "COMPARE AND WRITE": compareAndWrite}
	run := func(name string, which ...string) {
		var stops []func()
		ended := make([]int, len(which))
		for n, w := range which {
			stops = append(stops, flood(t, d, n+1, 64, &ended[n], floods[w]))
		}
		f := within(t, i, alone, 3*time.Second)
		for _, stop := range stops {
			stop()
		}
		Figure(t, "%s, 64 at a time: %v; %d ended", name, f, ended)
		for n, w := range which {
			if ended[n] == 0 {
				t.Errorf("%s: no %s has ended", name, w)
			}
		}
	}
	for name := range floods {
		run(name, name)
	}
	run("all together", "UNMAP", "VERIFY", "WRITE SAME", "COMPARE AND WRITE")
}

// TestLogFlood has initiators cause lines of the log as fast as they can.
func TestLogFlood(t *testing.T) {
	d := Start(t, gotgtd, Config(""))
	before, begin := len(d.Log()), time.Now()
	end := attack(t, 4, logStorm(t, d))
	time.Sleep(5 * time.Second)
	end()
	time.Sleep(1500 * time.Millisecond) // what was left out is counted within a second
	took := time.Since(begin)
	lines := strings.Split(strings.TrimSuffix(d.Log()[before:], "\n"), "\n")
	bytes, longest := 0, 0
	for _, line := range lines {
		bytes, longest = bytes+len(line), max(longest, len(line))
	}
	Figure(t, "%d lines in %v, %d bytes, the longest has %d", len(lines), took.Round(time.Millisecond), bytes, longest)
	if most := int(took.Seconds()*20) + 20; len(lines) > most || longest > 512 {
		t.Errorf("want %d lines at most, of 512 bytes", most)
	}
	if !strings.Contains(lines[len(lines)-1], "left-out") {
		t.Errorf("what was left out is not counted: %q", lines[len(lines)-1])
	}
}

// logStorm returns attacks: resets of the logical unit and the target, and logins that fail
// with a long AuthMethod.
func logStorm(t *testing.T, d *Daemon) func(ctx context.Context, i int) {
	resets := []*Client{d.LoginAs(t, 1), d.LoginAs(t, 2)}
	return func(ctx context.Context, i int) {
		if i < len(resets) { // LOGICAL UNIT RESET is 5, TARGET WARM RESET 6
			if resets[i].Send(resets[i].Management(byte(5+i), NoTag)) == nil {
				_, _ = resets[i].Expect(TaskMgmtResp)
			}
			return
		}
		c, err := Dial(ctx, d.Portal(), netip.Addr{})
		if err != nil {
			return
		}
		defer c.Close()
		p := c.LoginPDU(Text("InitiatorName="+Initiator, "TargetName="+Target, "AuthMethod="+strings.Repeat("x", 7000)))
		p.Header[1] = 0x80 | 1 // from security to operational negotiation
		if c.Send(p) == nil {
			_, _ = c.Receive()
		}
	}
}
