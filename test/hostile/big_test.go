// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

// bigTransfer is what a command of 8 MiB moves, the most that one may.
const bigTransfer = 8 << 20

// transferFlood keeps 64 commands of 8 MiB of a session under way until it is stopped, and counts those
// that have ended.
func transferFlood(t *testing.T, d *Daemon, opcode byte, ended *int) (stop func()) {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: d.Portal(), TargetName: Target, InitiatorName: "iqn.2026-11.test:big"})
	if err == nil {
		err = s.Settle(t.Context(), initiator.LUN(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, bigTransfer)
	var mu sync.Mutex
	var wg sync.WaitGroup
	over := false
	var done func(*initiator.Command)
	submit := func(c *initiator.Command) {
		*c = initiator.Command{LUN: initiator.LUN(1), Done: done}
		c.CDB[0] = opcode
		binary.BigEndian.PutUint64(c.CDB[2:], farAway)
		binary.BigEndian.PutUint32(c.CDB[10:], bigTransfer/innocentBlock)
		if opcode == 0x88 {
			c.In = buf
		} else {
			c.Out = buf
		}
		if s.Submit(c) != nil {
			wg.Done()
		}
	}
	done = func(c *initiator.Command) {
		mu.Lock()
		defer mu.Unlock()
		if over || c.Failed() != nil {
			wg.Done()
			return
		}
		*ended++
		submit(c)
	}
	for range 64 {
		wg.Add(1)
		submit(new(initiator.Command))
	}
	return func() {
		mu.Lock()
		over = true
		mu.Unlock()
		s.Close()
		wg.Wait()
	}
}

// TestBigTransfers floods a disk with the largest reads, writes and ORWRITEs, which are not executed in
// slices: what they do at a time is little enough.
func TestBigTransfers(t *testing.T) {
	d := Start(t, gotgtd, bigConfig(t))
	i := LogIn(t, d)
	i.For(t, time.Second)
	alone := i.For(t, 2*time.Second)
	Figure(t, "undisturbed: %v", alone)
	for name, opcode := range map[string]byte{"READ": 0x88, "WRITE": 0x8a, "ORWRITE": 0x8b} {
		ended := 0
		stop := transferFlood(t, d, opcode, &ended)
		f := within(t, i, alone, 3*time.Second)
		stop()
		Figure(t, "%s of 8 MiB, 64 at a time: %v; %d ended", name, f, ended)
		if ended == 0 {
			t.Errorf("%s: none has ended", name)
		}
	}
}
