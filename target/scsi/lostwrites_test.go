// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// TestLostWrites has writes wait for one whose nexus is lost, and two of those that wait lose
// their nexuses as well: they end, without a byte written, and not only when the other has.
func TestLostWrites(t *testing.T) {
	h, _, store := faulty(t, scsi.LogicalUnitOptions{})
	reached, release := make(chan storagetest.Call, 1), make(chan struct{})
	store.Inject(storagetest.Fault{Op: storagetest.Write, Count: 1, Reached: reached, Release: release})
	execute := func(cdb, out []byte) (*scsi.Command, chan struct{}) {
		c, done := &scsi.Command{Pool: h.cmd.Pool}, make(chan struct{})
		h.prepare(c, cdb, len(out), 0)
		c.Out = out
		go func() {
			defer close(done)
			h.n.Execute(t.Context(), c)
		}()
		return c, done
	}
	hung, hungDone := execute(rw10(0x2a, 0, 10, 10), fill(1, 10))
	<-reached
	hung.KeepRange()
	hung.KeepRange() // a second time does nothing

	first, firstDone := execute(rw10(0x2a, 0, 5, 10), fill(2, 10))
	second, secondDone := execute(rw10(0x2a, 0, 5, 10), fill(3, 10))
	compare, compareDone := execute(compareAndWrite(19, fill(0, 1), fill(9, 1)))
	beside, besideDone := execute(rw10(0x2a, 0, 20, 10), fill(4, 10))
	<-besideDone
	beside.ReleaseRange() // without KeepRange it does nothing
	if r := h.do(rw10(0x28, 0, 10, 10), nil, 5120); r.String() != good {
		t.Errorf("a read: %v", r)
	}
	if c := &h.cmd; true {
		h.prepare(c, rw10(0x2a, 0, 0, 11), 11*512, 0)
		c.Out = fill(5, 11)
		if h.n.TryExecute(c) {
			t.Error("a write to the same blocks was executed at once")
		}
	}
	time.Sleep(10 * time.Millisecond) // for those that have to wait to do so, if they did not
	for _, done := range []chan struct{}{firstDone, secondDone, compareDone} {
		select {
		case <-done:
			t.Fatal("a write to the same blocks has ended")
		default:
		}
	}
	first.KeepRange()
	second.KeepRange()
	<-firstDone
	<-secondDone
	first.ReleaseRange()
	second.ReleaseRange()
	close(release)
	<-hungDone
	hung.ReleaseRange()
	<-compareDone
	if r := h.finish(compare); r.status != scsi.CheckCondition {
		t.Errorf("COMPARE AND WRITE has not seen what the lost write has left: %v", r)
	}
	want := append(append(fill(0, 10), fill(1, 10)...), fill(4, 10)...)
	if got := h.read(0, 30); !bytes.Equal(got, want) {
		t.Error("the disk does not hold what it should")
	}
}
