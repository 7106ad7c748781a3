// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// storms are what initiators do all the time, one connection after the other, while the daemon is upgraded. None
// of them may touch the innocent's commands.
var storms = map[string]func(ctx context.Context, d *Daemon, n int) error{
	"connections that say nothing": func(ctx context.Context, d *Daemon, n int) error {
		c, err := Dial(ctx, d.Portal(), attacker)
		if err != nil {
			return err
		}
		return c.Close()
	},
	"logins as the same initiator port": func(ctx context.Context, d *Daemon, n int) error {
		return stormWith(ctx, d, 0, func(c *Client) error { return c.Settle() })
	},
	"logins in many parts": func(ctx context.Context, d *Daemon, n int) error {
		c, err := Dial(ctx, d.Portal(), attacker)
		if err != nil {
			return err
		}
		defer c.Close()
		for part := range 60 {
			p := c.LoginPDU(Text(fmt.Sprintf("X-part-%d=1", part)))
			p.Header[1] = 0x40 | 1<<2 // C
			p.Set(16, 1)
			if err := c.Send(p); err != nil {
				return err
			}
			if _, err := c.Receive(); err != nil {
				return err
			}
		}
		return nil
	},
	"ABORT TASK SET": func(ctx context.Context, d *Daemon, n int) error {
		return stormWith(ctx, d, n, func(c *Client) error {
			for range 200 {
				var pdus []PDU
				for range 16 {
					pdus = append(pdus, c.Command(Transfer(true, innocentBlocks, bigBlocks), true, big, nil),
						c.Command(Transfer(false, innocentBlocks, 8), false, innocentBytes, nil), c.Management(2, NoTag))
				}
				if err := c.Send(pdus...); err != nil {
					return err
				}
				for range 16 {
					if _, err := c.Expect(TaskMgmtResp); err != nil {
						return err
					}
				}
			}
			return nil
		})
	},
	"text requests that go on": func(ctx context.Context, d *Daemon, n int) error {
		return stormWith(ctx, d, n, func(c *Client) error {
			tag := uint32(NoTag)
			for part := range 1000 {
				p := c.TextPDU(tag, Text(fmt.Sprintf("X-part-%d=1", part)))
				p.Header[1] = 0x40
				if err := c.Send(p); err != nil {
					return err
				}
				p, err := c.Receive()
				if err != nil {
					return err
				}
				if tag = p.Get(20); p.Opcode() == Reject {
					tag = NoTag
				}
			}
			return nil
		})
	},
}

// stormWith logs in as the n-th of many initiators and does something.
func stormWith(ctx context.Context, d *Daemon, n int, f func(c *Client) error) error {
	c, err := Dial(ctx, d.Portal(), netip.AddrFrom4([4]byte{127, 2, 0, byte(n)}))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Login(fmt.Sprintf("%s-%d", Initiator, n), Target); err != nil {
		return err
	}
	return f(c)
}

// TestUpgradeInStorms upgrades while initiators do each of storms as fast as they can.
func TestUpgradeInStorms(t *testing.T) {
	for name, storm := range storms {
		t.Run(name, func(t *testing.T) {
			d := startUpgradable(t, Config(""))
			i := LogIn(t, d)
			// The best of some: what else the machine does disturbs not each of them.
			best := func() time.Duration {
				wait := time.Hour
				for range tries {
					wait = min(wait, i.While(t, func() { upgrade(t, d) }).Max())
				}
				return wait
			}
			idle := best()
			end := attack(t, 8, func(ctx context.Context, n int) {
				if storm(ctx, d, n) != nil {
					pause(ctx, time.Millisecond) // the innocent needs some of the machine too
				}
			})
			disturbed := i.For(t, time.Second)
			during := best()
			end()
			Figure(t, "the innocent's longest wait: %v in an upgrade without the storm, %v in a second of it, %v in an upgrade in it", idle, disturbed.Max(), during)
			if bound := max(250*time.Millisecond, 4*idle, 4*disturbed.Max()); during > bound {
				t.Errorf("the innocent waited for %v, want %v at most", during, bound)
			}
		})
	}
}
