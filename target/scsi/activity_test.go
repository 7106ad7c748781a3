// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"maps"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// counts are the commands of each kind that a logical unit has counted.
func counts(lu *scsi.LogicalUnit) map[string]uint64 {
	list := make(map[string]uint64)
	for kind, w := range lu.Activity().Commands {
		list[kind] = w.Count
	}
	return list
}

// TestActivityKinds: each command counts once, as what it does, whether it ends in Prepare, in
// place or on a worker, and so does each failure.
func TestActivityKinds(t *testing.T) {
	h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
	before := lu.Activity()
	h.write(0, fill(1, 4))
	h.want(good, rw16(0x8a, 8, 0, 1), fill(1, 1), 0) // FUA: on a worker
	h.want(good, rw16(0x93, 0, 0, 8), fill(0, 1), 0)
	h.want(good, rw16(0x93, 8, 0, 8), fill(0, 1), 0) // with UNMAP
	h.read(0, 4)
	h.want(good, rw10(0x35, 0, 0, 0), nil, 0)
	h.want("5/21/00", rw16(0x88, 0, 1<<40, 1), nil, 512)
	store.Inject(storagetest.Fault{Op: storagetest.Read, Err: syscall.EIO, Count: 1})
	h.want("3/11/00", rw16(0x88, 0, 0, 1), nil, 512)
	other := openHost(t, h.dev, "b").settle()
	other.want(good, []byte{0x16, 5: 0}, nil, 0)
	h.want("18", rw16(0x88, 0, 0, 1), nil, 512)

	got := counts(lu)
	delete(got, "other")
	if diff := cmp.Diff(map[string]uint64{"read": 4, "write": 3, "unmap": 1, "flush": 1}, got); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	failures := lu.Activity().Failures
	failures["unit_attention"] -= before.Failures["unit_attention"]
	if diff := cmp.Diff(map[string]uint64{"illegal_request": 1, "medium_error": 1, "reservation_conflict": 1, "unit_attention": 1}, failures); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	read := lu.Activity().Commands["read"]
	if d, q := read.Device.Count(), read.Queue.Count(); d != 2 || q != 2 {
		t.Errorf("%d reads have a duration in the store and %d one before it, want those 2 that got there", d, q)
	}
}

// TestActivityOfTransport: what the transport refuses or aborts counts once, and not again
// when it had failed before.
func TestActivityOfTransport(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{})
	before := lu.Activity().Failures
	end := func(cdb []byte, end func(c *scsi.Command)) {
		h.prepare(&h.cmd, cdb, 512, 512)
		end(&h.cmd)
	}
	end(rw16(0x8a, 0, 0, 1), (*scsi.Command).TaskSetFull)
	if h.cmd.Status != scsi.TaskSetFull || !h.cmd.Done() || len(h.cmd.Sense) > 0 {
		t.Errorf("status %#x, sense data % x", h.cmd.Status, h.cmd.Sense)
	}
	end(rw16(0x8a, 0, 0, 1), func(c *scsi.Command) { c.Abort(scsi.DataPhaseError) })
	end(rw16(0x8a, 0, 1<<40, 1), func(c *scsi.Command) { c.Abort(scsi.DataPhaseError) }) // has failed in Prepare
	got := lu.Activity().Failures
	got["unit_attention"] -= before["unit_attention"]
	maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
	if diff := cmp.Diff(map[string]uint64{"task_set_full": 1, "aborted_command": 1, "illegal_request": 1}, got); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
	if n := counts(lu)["write"]; n != 3 {
		t.Errorf("%d writes, want 3", n)
	}
}

// TestActivityTimes: the time before a worker has the command is queue, that in the store is device.
func TestActivityTimes(t *testing.T) {
	const wait = 30 * time.Millisecond
	h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
	reached, release := make(chan storagetest.Call), make(chan struct{})
	store.Inject(storagetest.Fault{Op: storagetest.Read, Reached: reached, Release: release, Count: 1})
	h.prepare(&h.cmd, rw16(0x88, 0, 0, 1), 0, 512)
	if h.n.TryExecute(&h.cmd) {
		t.Fatal("a read that has to wait was executed in place")
	}
	time.Sleep(wait)
	go func() {
		<-reached
		time.Sleep(3 * wait)
		close(release)
	}()
	began := time.Now()
	h.n.Execute(t.Context(), &h.cmd)
	took := time.Since(began)
	h.finish(&h.cmd)
	read := lu.Activity().Commands["read"]
	if read.Queue.Sum < wait {
		t.Errorf("%v of queue, want %v and more", read.Queue.Sum, wait)
	}
	if read.Device.Sum < 3*wait || read.Device.Sum > took {
		t.Errorf("%v in the store, want between %v and %v", read.Device.Sum, 3*wait, took)
	}
	// In place there is no queue.
	h.read(8, 1)
	after := lu.Activity().Commands["read"]
	if d := after.Queue.Since(&read.Queue); d.Count() != 1 || d.Buckets[0] != 1 || d.Sum != 0 {
		t.Errorf("a read in place has waited: %+v", d)
	}
	if d := after.Device.Since(&read.Device); d.Count() != 1 || d.Sum <= 0 {
		t.Errorf("a read in place has no time: %+v", d)
	}
}

// TestActivityIsCarried: a successor goes on counting, and a predecessor that tells nothing, or
// one that tells more than is known here, does no harm.
func TestActivityIsCarried(t *testing.T) {
	old := newDevice(t, scsi.DeviceOptions{})
	lu := attach(t, old, 1, scsi.LogicalUnitOptions{})
	h := openHost(t, old, "a").settle()
	h.write(0, fill(1, 1))
	h.read(0, 1)
	h.want(good, rw16(0x88, 8, 0, 1), nil, 512) // FUA: on a worker
	h.want("5/21/00", rw16(0x88, 0, 1<<40, 1), nil, 512)
	state := carry(t, old)

	restore := func(activity []byte) (*scsi.LogicalUnit, error) {
		t.Helper()
		s := state
		s.Units = []scsi.UnitState{state.Units[0]}
		s.Units[0].Activity = activity
		next := newDevice(t, scsi.DeviceOptions{})
		lu := attach(t, next, 1, scsi.LogicalUnitOptions{})
		return lu, next.Restore(s)
	}
	told := state.Units[0].Activity
	next, err := restore(told)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lu.Activity(), next.Activity()); diff != "" {
		t.Errorf("activity (-old +new):\n%s", diff)
	}
	if next, err = restore(nil); err != nil || len(next.Activity().Commands) != 0 {
		t.Errorf("from a process that tells nothing: %+v, %v", next.Activity(), err)
	}
	for n := 1; n < len(told); n++ {
		if _, err := restore(told[:n]); err == nil {
			t.Errorf("%d of %d bytes are an activity", n, len(told))
		}
	}
	// One kind and two failures more than there are: none of these is shown.
	kinds, failures := told[0], told[len(told)-19:]
	more := append([]byte{kinds + 1}, told[1:len(told)-19]...)
	more = append(more, 9, 0, failures[0]+2)
	more = append(append(more, failures[1:]...), 5, 5)
	if next, err = restore(more); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lu.Activity(), next.Activity()); diff != "" {
		t.Errorf("of a later version (-old +new):\n%s", diff)
	}
}
