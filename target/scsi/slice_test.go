// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// slowly has every call of a kind take longer than a slice.
func slowly(t *testing.T, store *storagetest.FaultStore, op storagetest.Op) {
	reached, release, done := make(chan storagetest.Call), make(chan struct{}), make(chan struct{})
	store.Inject(storagetest.Fault{Op: op, Reached: reached, Release: release})
	go func() {
		defer close(done)
		for range reached {
			time.Sleep(3 * time.Millisecond)
			release <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		close(reached)
		<-done
	})
}

// sliced executes a command in slices and returns how many there were.
func (h *host) sliced(c *scsi.Command, out []byte) (n int) {
	h.t.Helper()
	c.Out = out
	for n = 1; !h.n.ExecuteSlice(context.Background(), c); n++ {
		if n == 1000 {
			h.t.Fatalf("% x does not end", c.CDB)
		}
	}
	return n
}

const bigDisk = 9 << 20

// slicedCommands are the commands that are done in slices, each over more than one piece and
// from an odd place on, and what they leave behind.
func slicedCommands() []slicedCommand {
	const first, blocks = 7, 4 << 11 // 4 MiB
	pattern := bytes.Repeat(append(fill(1, 1), fill(2, 1)...), blocks/2)
	both := slices.Concat(fill(0xee, first), fill(0, 3), pattern[:(blocks-3)*512])
	return []slicedCommand{
		{"UNMAP", storagetest.Discard, unmapCDB(40), unmapList([2]uint64{first, 5}, [2]uint64{first + 5, blocks - 5}), 3,
			slices.Concat(fill(0xee, first), fill(0, blocks))},
		{"WRITE SAME with UNMAP", storagetest.Discard, rw16(0x93, 0x08, first, 2*blocks), fill(0, 1), 3,
			slices.Concat(fill(0xee, first), fill(0, 2*blocks))},
		{"WRITE SAME of zeros", storagetest.WriteZeroes, rw16(0x93, 0, first, 2*blocks), fill(0, 1), 3,
			slices.Concat(fill(0xee, first), fill(0, 2*blocks))},
		{"WRITE SAME", storagetest.Write, rw16(0x93, 0, first, blocks), fill(5, 1), 17,
			slices.Concat(fill(0xee, first), fill(5, blocks))},
		{"VERIFY", storagetest.Read, rw16(0x8f, 0, first, blocks), nil, 17, fill(0xee, first)},
		{"VERIFY of data", storagetest.Read, rw16(0x8f, 2, first, blocks), fill(0xee, blocks), 17, fill(0xee, first)},
		{"WRITE AND VERIFY", storagetest.WriteDurable, rw16(0x8e, 2, first, blocks), both[first*512:], 5, both},
		{"PRE-FETCH", storagetest.Read, rw16(0x90, 0, first, blocks), nil, 17, fill(0xee, first)},
	}
}

type slicedCommand struct {
	name  string
	op    storagetest.Op
	cdb   []byte
	out   []byte
	calls int    // of the store, as many as there are pieces
	want  []byte // what the disk begins with, and goes on with as before
}

// status is what the command ends with.
func (c *slicedCommand) status() string {
	if c.name == "PRE-FETCH" {
		return "04" // CONDITION MET
	}
	return good
}

func newSliced(t *testing.T, c *slicedCommand) (*host, *storagetest.FaultStore) {
	store := storagetest.NewFaultStore(storagetest.NewRAM(bigDisk))
	if _, err := store.WriteAt(t.Context(), fill(0xee, bigDisk/512), 0); err != nil {
		t.Fatal(err)
	}
	h, _ := newHost(t, scsi.LogicalUnitOptions{Store: store})
	slowly(t, store, c.op)
	store.Forget()
	return h, store
}

func (c *slicedCommand) check(t *testing.T, store *storagetest.FaultStore) {
	t.Helper()
	if n := len(store.Calls(c.op)); n != c.calls {
		t.Errorf("%d calls, want %d", n, c.calls)
	}
	store.Forget()
	got := make([]byte, bigDisk)
	if _, err := store.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if want := append(bytes.Clone(c.want), fill(0xee, (bigDisk-len(c.want))/512)...); !bytes.Equal(got, want) {
		t.Error("the disk does not hold what it should")
	}
}

// TestSlices executes commands on a store so slow that each piece is a slice: they do all of
// their work, and once.
func TestSlices(t *testing.T) {
	for _, c := range slicedCommands() {
		t.Run(c.name, func(t *testing.T) {
			h, store := newSliced(t, &c)
			h.prepare(&h.cmd, c.cdb, len(c.out), 0)
			if !h.cmd.Long() {
				t.Error("it is not long")
			}
			if n := h.sliced(&h.cmd, c.out); n != c.calls && n != c.calls+1 { // one more to find that all is done
				t.Errorf("%d slices, want %d", n, c.calls)
			}
			if r := h.finish(&h.cmd); r.String() != c.status() {
				t.Errorf("%v, want %s", r, c.status())
			}
			c.check(t, store)
		})
	}
}

// TestSlicesMove executes one slice and the rest by another command, as a process does that
// takes the command over.
func TestSlicesMove(t *testing.T) {
	for _, c := range slicedCommands() {
		t.Run(c.name, func(t *testing.T) {
			h, store := newSliced(t, &c)
			first := &scsi.Command{Pool: h.cmd.Pool}
			h.prepare(first, c.cdb, len(c.out), 0)
			first.Out = c.out
			if h.n.ExecuteSlice(t.Context(), first) || first.Progress() == 0 {
				t.Fatalf("it is done, or not begun: %d bytes", first.Progress())
			}
			next := &h.cmd
			next.Reset()
			copy(next.CDB[:], c.cdb)
			next.LUN, next.OutExpected = h.lun, uint32(len(c.out))
			h.n.Reprepare(next)
			next.Resume(first.Progress())
			h.sliced(next, c.out)
			if r := h.finish(next); r.String() != c.status() {
				t.Errorf("%v, want %s", r, c.status())
			}
			c.check(t, store)
		})
	}
}

// TestSlicesEnd ends commands between two slices, and in the second one.
func TestSlicesEnd(t *testing.T) {
	for _, c := range slicedCommands() {
		t.Run(c.name, func(t *testing.T) {
			h, store := newSliced(t, &c)
			h.prepare(&h.cmd, c.cdb, len(c.out), 0)
			h.cmd.Out = c.out
			if h.n.ExecuteSlice(t.Context(), &h.cmd) {
				t.Fatal("it is done")
			}
			store.Heal()
			store.Inject(storagetest.Fault{Op: c.op, Err: syscall.EIO})
			if !h.n.ExecuteSlice(t.Context(), &h.cmd) || h.cmd.Status != scsi.CheckCondition {
				t.Errorf("after an error it goes on, status %#x", h.cmd.Status)
			}
			h, _ = newSliced(t, &c)
			h.prepare(&h.cmd, c.cdb, len(c.out), 0)
			h.cmd.Out = c.out
			if h.n.ExecuteSlice(t.Context(), &h.cmd) {
				t.Fatal("it is done")
			}
			if _, err := h.dev.Detach(1); err != nil {
				t.Fatal(err)
			}
			if !h.n.ExecuteSlice(t.Context(), &h.cmd) {
				t.Fatal("it goes on without its logical unit")
			}
			if r := h.finish(&h.cmd); r.String() != "5/25/00" {
				t.Error(r)
			}
		})
	}
}
