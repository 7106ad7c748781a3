// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// inBatch executes a command in place for a batch, and reports whether that was possible.
func (h *host) inBatch(b *scsi.Batch, cdb []byte, out, in int) bool {
	h.t.Helper()
	h.prepare(&h.cmd, cdb, out, in)
	h.cmd.Out = make([]byte, out)
	done := h.n.TryExecuteIn(b, &h.cmd)
	if done {
		if r := h.finish(&h.cmd); r.String() != good {
			h.t.Fatalf("%v", r)
		}
	}
	return done
}

// TestBatchCounts: commands of a batch are counted when they are followed by others or the batch
// is stopped, all of them, where those that were executed by themselves are, and their durations
// are no more together than the time that has passed.
func TestBatchCounts(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{})
	var b scsi.Batch
	before := lu.Counters()
	began := time.Now()
	for range 3 {
		h.inBatch(&b, rw16(0x88, 0, 0, 2), 0, 1024)
	}
	if n := counts(lu)["read"]; n != 0 {
		t.Errorf("%d reads are counted before the batch is over", n)
	}
	for range 2 {
		h.inBatch(&b, rw16(0x8a, 0, 0, 1), 512, 0)
	}
	if n := counts(lu)["read"]; n != 3 {
		t.Errorf("%d reads are counted when writes follow, want 3", n)
	}
	h.inBatch(&b, rw16(0x88, 0, 8, 1), 0, 512)
	b.Stop()
	took := time.Since(began)
	b.Stop() // has nothing to count

	a := lu.Activity()
	for kind, want := range map[string]uint64{"read": 4, "write": 2} {
		w := a.Commands[kind]
		if w.Count != want || w.Device.Count() != want || w.Queue.Buckets[0] != want || w.Queue.Sum != 0 {
			t.Errorf("%s: want %d commands that did not wait: %+v", kind, want, w)
		}
	}
	if sum := a.Commands["read"].Device.Sum + a.Commands["write"].Device.Sum; sum <= 0 || sum > took {
		t.Errorf("durations of %v in all, within %v", sum, took)
	}
	want := scsi.Counters{Reads: before.Reads + 4, ReadBytes: before.ReadBytes + 7*512, Writes: before.Writes + 2, WrittenBytes: before.WrittenBytes + 2*512}
	if got := lu.Counters(); got != want {
		t.Errorf("logical unit: %+v, want %+v", got, want)
	}
	if got := h.n.Counters(); got != want {
		t.Errorf("nexus: %+v, want %+v", got, want)
	}
	if s := h.dev.Shares(); len(s) != 1 || s[0].Reads != 4 || s[0].ReadBytes != 7*512 || s[0].Writes != 2 || s[0].WrittenBytes != 2*512 {
		t.Errorf("shares: %+v", s)
	}
}

// TestBatchTellsUnitsApart: what is done to another logical unit is counted there.
func TestBatchTellsUnitsApart(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	first, second := attach(t, d, 1, scsi.LogicalUnitOptions{}), attach(t, d, 2, scsi.LogicalUnitOptions{})
	h := openHost(t, d, "a").settle()
	other := openHost(t, d, "b").settle()
	var b scsi.Batch
	read := func(h *host, lun uint16) {
		t.Helper()
		h.lun = scsi.MakeLUN(lun)
		if lun == 2 {
			h.settle()
		}
		if !h.inBatch(&b, rw16(0x88, 0, 0, 1), 0, 512) {
			t.Fatalf("a read of LUN %d was not executed in place", lun)
		}
	}
	read(h, 1)
	read(h, 2)
	read(h, 1)
	read(other, 1)
	b.Stop()
	if n, m := counts(first)["read"], counts(second)["read"]; n != 3 || m != 1 {
		t.Errorf("%d and %d reads, want 3 and 1", n, m)
	}
	if a, b := h.n.Counters().Reads, other.n.Counters().Reads; a != 3 || b != 1 {
		t.Errorf("%d and %d reads of the nexuses, want 3 and 1", a, b)
	}
}

// TestBatchEndsWithWhatWaits: a command that can't be executed in place has times of its own, and
// the batch does not count how long it waits.
func TestBatchEndsWithWhatWaits(t *testing.T) {
	const wait = 30 * time.Millisecond
	h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
	var b scsi.Batch
	began := time.Now()
	h.inBatch(&b, rw16(0x88, 0, 0, 1), 0, 512)
	store.Inject(storagetest.Fault{Op: storagetest.Read, Count: 1}) // has to wait for a worker
	if h.inBatch(&b, rw16(0x88, 0, 0, 1), 0, 512) {
		t.Fatal("a read that has to wait was executed in place")
	}
	time.Sleep(wait)
	h.n.Execute(t.Context(), &h.cmd)
	h.finish(&h.cmd)
	b.Stop()
	read := lu.Activity().Commands["read"]
	if read.Count != 2 || read.Queue.Count() != 2 || read.Queue.Buckets[0] != 1 || read.Queue.Sum < wait {
		t.Errorf("want 2 reads, one of which waited for %v: %+v", wait, read)
	}
	if most := time.Since(began) - wait; read.Device.Sum > most {
		t.Errorf("%v in the store, want at most %v", read.Device.Sum, most)
	}

	// One that has waited before it is executed in place has waited.
	h.prepare(&h.cmd, rw16(0x88, 0, 8, 1), 0, 512)
	h.cmd.Arrive()
	time.Sleep(wait)
	if !h.n.TryExecuteIn(&b, &h.cmd) {
		t.Fatal("a read was not executed in place")
	}
	h.finish(&h.cmd)
	after := lu.Activity().Commands["read"]
	if q := after.Queue.Since(&read.Queue); q.Count() != 1 || q.Sum < wait {
		t.Errorf("a read that has waited for %v: %+v", wait, q)
	}
}
