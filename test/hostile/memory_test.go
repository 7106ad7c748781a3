// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

const (
	memoryLimit = 64 << 20 // bytes, as configured
	memorySlack = 64 << 20 // what the daemon may take beside, bytes
)

// A memoryAttack is one by one session, that has logged in and sends at most so many commands.
type memoryAttack struct {
	name string
	run  func(c *Client, commands int) error
}

// ping is as long as the target lets a data segment be.
var ping = bytes.Repeat([]byte{1}, 256<<10)

var memoryAttacks = []memoryAttack{
	{"8 MiB writes with 1 byte of immediate data", func(c *Client, commands int) error {
		return writes(c, commands, []byte{1})
	}},
	{"pings of 256 KiB behind a CmdSN gap", func(c *Client, commands int) error {
		c.CmdSN++
		for range min(commands, 8) {
			if err := c.Send(c.NOP(false, ping)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"8 MiB reads never read", func(c *Client, commands int) error {
		var pdus []PDU
		for range commands {
			pdus = append(pdus, c.Command(Transfer(false, innocentBlocks, bigBlocks), false, big, nil))
		}
		return c.Send(pdus...)
	}},
	{"pings whose answers are never read", func(c *Client, commands int) error {
		var pdus []PDU
		for range 16 * commands {
			pdus = append(pdus, c.NOP(true, []byte{1}))
		}
		return c.Send(pdus...)
	}},
	{"commands cut off in the middle", func(c *Client, commands int) error {
		p := c.Command(Transfer(true, innocentBlocks, bigBlocks), true, big, ping)
		return c.SendBytes(p.Bytes()[:100<<10])
	}},
}

// TestMemory has many sessions do all that takes memory, each on its own and all together, and
// looks at what the daemon takes and how the innocent fares. A session whose sending stands
// still, because nobody reads any more, has done what it can.
func TestMemory(t *testing.T) {
	for _, a := range memoryAttacks {
		t.Run(a.name, func(t *testing.T) { attackMemory(t, []memoryAttack{a}, 100, hoard) })
	}
	t.Run("all", func(t *testing.T) { attackMemory(t, memoryAttacks, 100, hoard) })
	t.Run("all on 1000 sessions", func(t *testing.T) { attackMemory(t, memoryAttacks, 1000, 16) })
}

func attackMemory(t *testing.T, attacks []memoryAttack, sessions, commands int) {
	d := Start(t, gotgtd, Config(fmt.Sprintf("limits:\n  memory: %d\n", memoryLimit)))
	i := LogInSolicited(t, d)
	i.For(t, 200*time.Millisecond)
	before := i.For(t, 500*time.Millisecond)
	baseline := d.RSS(t)
	d.ResetPeak(t)
	clients := make([]*Client, sessions)
	for n := range clients {
		clients[n] = d.LoginAs(t, n, "MaxRecvDataSegmentLength=262144")
	}
	idle := d.RSS(t) - baseline
	sending := make(chan struct{}, 16)
	var failed error
	var mu sync.Mutex // protects failed
	during := i.While(t, func() {
		var group sync.WaitGroup
		for n, c := range clients {
			sending <- struct{}{}
			group.Go(func() {
				defer func() { <-sending }()
				c.Timeout = 300 * time.Millisecond
				err := attacks[n%len(attacks)].run(c, commands)
				var timeout interface{ Timeout() bool }
				if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
					mu.Lock()
					defer mu.Unlock()
					failed = errors.Join(failed, err)
				}
			})
		}
		group.Wait()
		time.Sleep(500 * time.Millisecond) // what was sent last has its effect
	})
	if failed != nil {
		t.Errorf("sessions were ended: %.500v", failed)
	}
	peak := d.PeakRSS(t)
	Figure(t, "%d sessions: RSS %s before, +%s with them idle, at most +%s; innocent before: %v; during: %v", sessions, MiB(baseline), MiB(idle), MiB(peak-baseline), before, during)
	if peak > memoryLimit+baseline+memorySlack {
		t.Errorf("RSS was up to %s, %s before; the limit of memory is %s", MiB(peak), MiB(baseline), MiB(memoryLimit))
	}
	if during.Max() > 5*time.Second {
		t.Errorf("the innocent waited for %v", during.Max())
	}
}
