// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// startUpgradable starts a daemon under a supervisor, so that it can be upgraded.
func startUpgradable(t *testing.T, yaml string, before ...string) *Daemon {
	t.Helper()
	dir := t.TempDir()
	return StartIn(t, gotgtd, dir, yaml, append(before, upgraded.Path(t), "run", "--control", filepath.Join(dir, "upgraded.sock"), "--")...)
}

// family is what the daemon's processes have in use together, in bytes, generations and
// supervisor alike, without what they share by the program's file. What is in memory files and
// mapped nowhere is not in it.
func (d *Daemon) family() (total int64) {
	parents, used := map[int]int{}, map[int]int64{}
	entries, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, path := range entries {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		for line := range strings.Lines(string(text)) {
			var v int64
			if _, err := fmt.Sscanf(line, "PPid: %d", &v); err == nil {
				parents[pid] = int(v)
			}
			for _, field := range []string{"RssAnon", "RssShmem"} {
				if _, err := fmt.Sscanf(line, field+": %d kB", &v); err == nil {
					used[pid] += v << 10
				}
			}
		}
	}
	for pid, n := range used {
		for p := pid; p > 1; p = parents[p] {
			if p == d.PID() {
				total += n
				break
			}
		}
	}
	return total
}

// peak is the most that family was while f ran.
func (d *Daemon) peak(f func()) (most int64) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			most = max(most, d.family())
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	defer func() { close(stop); <-done }() // also when f ends the test
	f()
	return
}

// halfWritten is a session that has a write of 8 MiB of which a block is missing, and whose read of 8 MiB it
// has not taken.
type halfWritten struct {
	c    *Client
	data []byte
	r2t  PDU    // the last one
	sent uint32 // PDUs that answer it
}

// holdMuch makes the daemon hold 16 MiB for a session, and does not wait until it does.
func holdMuch(t *testing.T, d *Daemon, n int) *halfWritten {
	t.Helper()
	h := &halfWritten{c: d.LoginAs(t, n, "MaxRecvDataSegmentLength=65536")}
	h.data = bytes.Repeat([]byte(fmt.Sprintf("%8d", n)), big/8)
	err := errors.Join(h.c.Settle(), h.c.Send(h.c.Command(Transfer(true, innocentBlocks, bigBlocks), true, big, nil)))
	for sent := 0; err == nil && sent < big-innocentBlock; {
		if h.r2t, err = h.c.Expect(R2T); err == nil {
			from := int(h.r2t.Get(40))
			sent = min(from+int(h.r2t.Get(44)), big-innocentBlock)
			err = h.send(from, sent)
		}
	}
	if err == nil {
		err = h.c.Send(h.c.Command(Transfer(false, 2*innocentBlocks, bigBlocks), false, big, nil))
	}
	if err != nil {
		t.Fatalf("session %d: %v", n, err)
	}
	return h
}

// send answers the R2T with the bytes from from to before to.
func (h *halfWritten) send(from, to int) error {
	const segment = 64 << 10
	end := int(h.r2t.Get(40) + h.r2t.Get(44))
	for at := from; at < to; at += segment {
		p := NewPDU(DataOut, false, h.data[at:min(at+segment, to)])
		if at+len(p.Data) < end {
			p.Header[1] = 0
		}
		p.SetLUN(1)
		p.Set(16, h.r2t.Tag())
		p.Set(20, h.r2t.Get(20))
		p.Set(36, h.sent)
		p.Set(40, uint32(at))
		if h.sent++; at+len(p.Data) == end {
			h.sent = 0
		}
		if err := h.c.Send(p); err != nil {
			return err
		}
	}
	return nil
}

// finish takes what is to be read, sends what is missing, and says what is wrong with the outcome.
func (h *halfWritten) finish() error {
	for got := 0; got < big; {
		p, err := h.c.Expect(DataIn)
		if err != nil {
			return err
		}
		if want := bytes.Repeat([]byte{0x5a}, len(p.Data)); !bytes.Equal(p.Data, want) {
			return fmt.Errorf("the read has other data at %d", p.Get(40))
		}
		got += len(p.Data)
	}
	if err := h.send(big-innocentBlock, big); err != nil {
		return err
	}
	if p, err := h.c.Expect(SCSIResponse); err != nil || p.Header[2] != 0 || p.Header[3] != 0 {
		return fmt.Errorf("the write ends with response %#x, status %#x, %v", p.Header[2], p.Header[3], err)
	}
	if err := h.c.Send(h.c.Command(Transfer(false, innocentBlocks, bigBlocks), false, big, nil)); err != nil {
		return err
	}
	for got := 0; got < big; {
		p, err := h.c.Expect(DataIn)
		if err != nil {
			return err
		}
		if at := int(p.Get(40)); !bytes.Equal(p.Data, h.data[at:at+len(p.Data)]) {
			return fmt.Errorf("what was written reads as something else at %d", at)
		}
		got += len(p.Data)
	}
	return nil
}

// TestUpgradeWhileMuchIsHeld upgrades while sessions hold a gigabyte: the innocent hardly waits, there is
// no second gigabyte, and those who hold it go on where they were.
func TestUpgradeWhileMuchIsHeld(t *testing.T) { upgradeWith(t, 64) }

// TestUpgradeInControlGroup does so with less memory than would be needed twice.
func TestUpgradeInControlGroup(t *testing.T) {
	peer.NeedRoot(t)
	upgradeWith(t, 30, enterGroup(t, 800<<20)...)
}

// enterGroup makes a control group with a limit of memory, and returns a command that enters it.
func enterGroup(t *testing.T, limit int64) []string {
	t.Helper()
	name := fmt.Sprintf("gotgtd-test-%d", os.Getpid())
	dir, file := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes"
	if _, err := os.Stat(filepath.Dir(dir)); err != nil { // version 2
		dir, file = filepath.Join("/sys/fs/cgroup", name), "memory.max"
		// Where it is so already this may fail; where it is not, the limit below can't be set.
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("no control group can be made: %v", err)
	}
	t.Cleanup(func() { until(t, func() error { return os.Remove(dir) }) }) // when it is empty
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		t.Fatalf("the control group gets no limit: %v", err)
	}
	return []string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs")}
}

// upgradeWith upgrades while so many sessions hold 16 MiB each. before is put before the daemon's command.
func upgradeWith(t *testing.T, sessions int, before ...string) {
	d := startUpgradable(t, Config("limits:\n  memory: 2GiB\n"), before...)
	filler := d.Login(t, 1)
	if err := errors.Join(filler.Settle(), fillBlocks(filler, 2*innocentBlocks)); err != nil {
		t.Fatal(err)
	}
	i := LogIn(t, d)
	i.For(t, 300*time.Millisecond)
	wait, beside := time.Hour, int64(0) // of an upgrade without all that: two processes take more than one
	for range tries {
		before := d.family()
		f := i.While(t, func() { beside = max(beside, d.peak(func() { upgrade(t, d) })-before) })
		wait = min(wait, f.Max())
	}
	idle := d.family()
	var list []*halfWritten
	for n := range sessions {
		list = append(list, holdMuch(t, d, n))
	}
	last, since := int64(0), time.Now()
	until(t, func() error { // all has come, and nothing more comes
		if now := d.family(); now > last+1<<20 {
			last, since = now, time.Now()
		}
		if last <= idle+int64(sessions)*big || time.Since(since) < 300*time.Millisecond {
			return fmt.Errorf("the daemon has %d bytes, and had %d before", last, idle)
		}
		return nil
	})
	upgradeHeld(t, d, i, held{idle, max(250*time.Millisecond, 4*wait), beside + 64<<20})
	for n, h := range list {
		if n%8 != 0 {
			h.c.Close()
		} else if err := h.finish(); err != nil {
			t.Errorf("session %d: what was held is not what it was: %v", n, err)
		}
	}
}

// held is what an upgrade may cost, and what the daemon had in use before much was held, in bytes.
type held struct {
	idle   int64
	wait   time.Duration // of the innocent
	memory int64         // more than before, bytes
}

// upgradeHeld upgrades until the innocent has not waited for too long, and fails the test if it always has, or
// if an upgrade takes too much memory.
func upgradeHeld(t *testing.T, d *Daemon, i *Innocent, may held) {
	t.Helper()
	for try := 1; ; try++ {
		before := d.family()
		var told string
		var peak int64
		f := i.While(t, func() { peak = d.peak(func() { told = upgrade(t, d) }) })
		Figure(t, "%s", told)
		Figure(t, "held %s; memory of all processes %s before, at most +%s, may be +%s; innocent: %v, may wait for %v",
			MiB(before-may.idle), MiB(before), MiB(peak-before), MiB(may.memory), f, may.wait)
		if peak-before > may.memory {
			t.Errorf("the upgrade took %s more than was held, want %s at most", MiB(peak-before), MiB(may.memory))
		}
		if f.Max() <= may.wait {
			return
		}
		if try == tries {
			t.Fatalf("the innocent waited for %v, want %v at most", f.Max(), may.wait)
		}
	}
}

// fillBlocks writes 8 MiB of 5ah.
func fillBlocks(c *Client, lba uint64) error {
	const part = 256 << 10
	data := bytes.Repeat([]byte{0x5a}, part)
	for at := 0; at < big; at += part {
		err := c.Send(c.Command(Transfer(true, lba+uint64(at/innocentBlock), part/innocentBlock), true, part, nil))
		if err != nil {
			return err
		}
		r, err := c.Expect(R2T)
		if err != nil {
			return err
		}
		p := NewPDU(DataOut, false, data)
		p.SetLUN(1)
		p.Set(16, r.Tag())
		p.Set(20, r.Get(20))
		if err := c.Send(p); err != nil {
			return err
		}
		if _, err := c.Expect(SCSIResponse); err != nil {
			return err
		}
	}
	return nil
}

// until waits until f has no error, for 20 s.
func until(t *testing.T, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	if err := peer.Until(ctx, f); err != nil {
		t.Fatal(err)
	}
}
