// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// TestPreemptAndAbort preempts an initiator one of whose writes is stuck in the
// store. The status is not told before that write has stopped, and no worker waits
// for it.
func TestPreemptAndAbort(t *testing.T) {
	const register, preemptAndAbort, exclusive = 0, 5, 3
	r := newRigWith(t, Limits{}, Auth{}, realSystem, 0, FastPathsNever)
	store := storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize))
	r.node.SetTargets([]*Target{diskOver(t, store, Limits{}, Auth{})}, announced, Auth{})
	victim := r.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:victim"})
	fencer := r.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:fencer"})
	var cmd initiator.Command
	for i, s := range []*initiator.Session{victim, fencer} {
		if err := s.Do(t.Context(), cmd.ReserveOut(initiator.LUN(1), register, exclusive, 0, uint64(i+1), 0)); err != nil {
			t.Fatal(err)
		}
	}

	reached, release := make(chan storagetest.Call, 1), make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	store.Inject(storagetest.Fault{Op: storagetest.Write, Count: 1, Reached: reached, Release: release})
	var stuck, fence initiator.Command
	stuck.Done = func(*initiator.Command) {}
	if err := victim.Submit(stuck.Write16(initiator.LUN(1), 0, 8, pattern(4096, 1), 0)); err != nil {
		t.Fatal(err)
	}
	<-reached
	done := make(chan error, 1)
	go func() {
		done <- fencer.Do(t.Context(), fence.ReserveOut(initiator.LUN(1), preemptAndAbort, exclusive, 2, 1, 0))
	}()
	r.until("the write is aborted, and its worker alone is at work", func() bool {
		return r.aborted() == 1 && r.workers() == 1
	})
	select {
	case err := <-done:
		t.Fatalf("PREEMPT AND ABORT has ended while the write still runs: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := fencer.Ping(t.Context(), 0, true, nil); err != nil {
		t.Fatal(err)
	}
	let()
	if err := <-done; err != nil {
		t.Errorf("PREEMPT AND ABORT: %v", err)
	}
	if n := r.aborted(); n > 0 {
		t.Errorf("%d aborted tasks still run", n)
	}
}

// workers counts the workers that have something to do.
func (r *rig) workers() int { return r.node.work.Busy() }

// aborted counts the aborted tasks that have not stopped.
func (r *rig) aborted() (count int) {
	for _, s := range r.node.sessionList() {
		s.mu.Lock()
		for _, t := range s.tasks.byTag {
			if t.aborted {
				count++
			}
		}
		s.mu.Unlock()
	}
	return count
}
