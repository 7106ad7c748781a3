// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

const (
	big       = 8 << 20 // bytes of the longest write
	bigBlocks = big / innocentBlock
	hoard     = 128 // commands of one session
)

// writes sends commands that write 8 MiB each, with immediate data.
func writes(c *Client, n int, immediate []byte) error {
	var pdus []PDU
	for range n {
		pdus = append(pdus, c.Command(Transfer(true, innocentBlocks, bigBlocks), true, big, immediate))
	}
	return c.Send(pdus...)
}

// hoardR2Ts logs in as the n-th initiator and sends writes whose R2Ts it does not answer.
func hoardR2Ts(t *testing.T, d *Daemon, n int) *Client {
	t.Helper()
	c := d.LoginAs(t, n)
	if err := errors.Join(c.Settle(), writes(c, hoard, nil)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestUnansweredR2Ts has sessions that hold all the buffers that they can, and never send the data.
func TestUnansweredR2Ts(t *testing.T) {
	for _, n := range []int{1, 2, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			yaml := Config("limits:\n  memory: 64MiB\n")
			d, control := Start(t, gotgtd, yaml), Start(t, gotgtd, yaml)
			i, undisturbed := LogInSolicited(t, d), LogInSolicited(t, control)
			Compare(t, i, undisturbed) // to get warm
			for k := range n {
				c := hoardR2Ts(t, d, k)
				if k > 0 {
					continue // it may get no R2T
				}
				if _, err := c.Expect(R2T); err != nil {
					t.Fatal(err)
				}
			}
			share := 0.0
			for range tries {
				with, without := Compare(t, i, undisturbed)
				// By the median: what else the machine does makes the mean what it likes.
				share = max(share, without.Writes.Quantile(0.5).Seconds()/with.Writes.Quantile(0.5).Seconds())
				Figure(t, "%d sessions: innocent's writes at %.0f %% of those of a daemon without these; %v; without: %v", n, 100*share, with, without)
				if with.Max() > 5*time.Second {
					t.Errorf("the innocent waited for %v", with.Max())
				}
				if share >= 0.9 {
					return
				}
			}
			t.Errorf("the innocent's writes go on at %.0f %% of their rate", 100*share)
		})
	}
}

// TestUnansweredR2TEndsTheSession waits for the end of a session that leaves an R2T unanswered,
// while it goes on to ping.
func TestUnansweredR2TEndsTheSession(t *testing.T) {
	const limit = 2 * time.Second
	d := Start(t, gotgtd, Config(fmt.Sprintf("limits:\n  r2t-timeout: %v\n", limit)))
	i := LogInSolicited(t, d)
	c := hoardR2Ts(t, d, 1)
	begin := time.Now()
	i.While(t, func() {
		for {
			if err := c.Send(c.NOP(true, nil)); err != nil {
				break
			}
			if _, err := c.Expect(NOPIn); err != nil {
				if !errors.Is(err, io.EOF) && !errors.As(err, new(*net.OpError)) {
					t.Error(err)
				}
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	took := time.Since(begin)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := peer.Until(ctx, func() error {
		if d.CountLog("connection closed") == 0 {
			return errors.New("nothing in the log about the connection's end")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	lines := d.CountLog("an R2T for")
	Figure(t, "with r2t-timeout: %v the session ended after %v, with %d line in the log", limit, took.Round(time.Millisecond), lines)
	if took < limit || took > limit+10*time.Second || lines != 1 {
		t.Errorf("the session ended after %v with %d lines in the log:\n%s", took, lines, d.Log())
	}
}

// TestHoardersLeave has a write wait for memory that another session hoards, until that ends.
func TestHoardersLeave(t *testing.T) {
	yaml := Config("limits:\n  memory: 64MiB\n  r2t-timeout: 1h\n") + "    parameters: {nop-interval: off}\n"
	d := Start(t, gotgtd, yaml)
	hoarder, waiting := d.Login(t, 1), d.Login(t, 2) // of one initiator: they have one share
	if err := errors.Join(hoarder.Settle(), waiting.Settle(), writes(hoarder, hoard, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := hoarder.Expect(R2T); err != nil {
		t.Fatal(err)
	}
	// The last command is handled when a ping behind it has its answer.
	if err := hoarder.Send(hoarder.NOP(true, nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := hoarder.Expect(NOPIn); err != nil {
		t.Fatal(err)
	}
	if err := writes(waiting, 1, nil); err != nil {
		t.Fatal(err)
	}
	waiting.Timeout = time.Second
	if p, err := waiting.Expect(R2T); err == nil {
		t.Fatalf("a write was asked for %d bytes while another session hoards the memory", p.Get(44))
	}
	waiting.Timeout = 20 * time.Second
	begin := time.Now()
	hoarder.Close()
	if _, err := waiting.Expect(R2T); err != nil {
		t.Fatalf("the hoarder is gone: %v", err)
	}
	took := time.Since(begin)
	Figure(t, "the waiting write goes on %v after the hoarder's end, without pings", took.Round(10*time.Microsecond))
	if took > time.Second { // liveness and other timers would come later
		t.Errorf("the waiting write went on only after %v", took)
	}
}
