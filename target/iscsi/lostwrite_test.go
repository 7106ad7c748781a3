// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"sync"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// TestLostWriteKeepsItsBlocks has a write hang in the store, and its session lose its
// connection. Writes of another initiator to the same blocks wait until it has ended: what they
// write is what is there at last. Those to other blocks go on.
func TestLostWriteKeepsItsBlocks(t *testing.T) { withFastPaths(t, testLostWriteKeepsItsBlocks) }

func testLostWriteKeepsItsBlocks(t *testing.T, f FastPaths) {
	r := newRigWith(t, Limits{}, Auth{}, realSystem, 0, f)
	store := storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize))
	r.store = store
	r.node.SetTargets([]*Target{diskOver(t, store, Limits{}, Auth{})}, announced, Auth{})
	reached, release := make(chan storagetest.Call, 1), make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	store.Inject(storagetest.Fault{Op: storagetest.TryWrite, Count: 1, Err: storage.ErrWouldBlock}) // a worker hangs
	store.Inject(storagetest.Fault{Op: storagetest.Write, Count: 1, Reached: reached, Release: release})

	other := r.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:other", ImmediateData: true})
	lost := r.raw()
	lost.login()
	lost.send(write10(0x300, 2, 0, 8, 4096), pattern(4096, 1))
	<-reached
	lost.c.Close()
	r.until("the session is ending", func() bool {
		for _, s := range r.node.sessionList() {
			s.mu.Lock()
			ending := s.phase == sessionEnding
			s.mu.Unlock()
			if ending {
				return true
			}
		}
		return false
	})

	newer := pattern(4096, 2)
	var write, fence, cmd initiator.Command
	done := make(chan struct{}, 2)
	write.Done = func(*initiator.Command) { done <- struct{}{} }
	fence.Done = write.Done
	if err := other.Submit(write.Write16(initiator.LUN(1), 4, 8, newer, 0)); err != nil {
		t.Fatal(err)
	}
	if err := other.Submit(fence.Unmap(initiator.LUN(1), initiator.Range{LBA: 2, Blocks: 2})); err != nil {
		t.Fatal(err)
	}
	for range 20 { // what does not overlap goes on
		if err := other.Do(t.Context(), cmd.Write16(initiator.LUN(1), 5000, 8, newer, 0)); err != nil {
			t.Fatal(err)
		}
		if err := other.Do(t.Context(), cmd.Read16(initiator.LUN(1), 5000, 8, make([]byte, 4096), 0)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
		t.Error("a write was reported done, and the lost one still runs")
	default:
	}
	let()
	<-done
	<-done
	for _, c := range []*initiator.Command{&write, &fence} {
		if err := c.Failed(); err != nil {
			t.Error(err)
		}
	}
	r.stored(4, newer)
	r.stored(2, make([]byte, 1024))
}
