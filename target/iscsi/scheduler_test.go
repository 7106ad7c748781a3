// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"fmt"
	"sync"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// TestStuckDisk has sessions write to a disk that hangs, more at once than there
// are workers. Another disk goes on, and the writes end when theirs does.
func TestStuckDisk(t *testing.T) {
	const workers, sessions, writes = 8, 3, 8
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{FastPaths: FastPathsNever, Workers: workers})
	store := storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize))
	target := diskOver(t, store, Limits{}, Auth{})
	addLUN(t, target, 2)
	r.node.SetTargets([]*Target{target}, announced, Auth{})
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	defer let()
	store.Inject(storagetest.Fault{Op: storagetest.Write, Release: release})

	other := r.dial(initiator.Options{InitiatorName: "iqn.2026-11.test:other"})
	if err := other.Settle(t.Context(), initiator.LUN(2)); err != nil {
		t.Fatal(err)
	}
	var writers []*initiator.Session
	for i := range sessions {
		writers = append(writers, r.dial(initiator.Options{InitiatorName: fmt.Sprintf("iqn.2026-11.test:stuck-%d", i)}))
	}
	var stuck sync.WaitGroup
	commands := make([]initiator.Command, sessions*writes)
	for i, s := range writers {
		for j := range writes {
			cmd := &commands[i*writes+j]
			cmd.Done = func(*initiator.Command) { stuck.Done() }
			stuck.Add(1)
			if err := s.Submit(cmd.Write16(initiator.LUN(1), uint64(j), 1, pattern(512, 1), 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.until("the share of the disk is at work", func() bool { return r.workers() == workers/2 })
	var cmd initiator.Command
	for range 20 {
		if err := other.Do(t.Context(), cmd.Read16(initiator.LUN(2), 0, 1, make([]byte, 512), 0)); err != nil {
			t.Fatal(err)
		}
	}
	let()
	stuck.Wait()
	for i := range commands {
		if err := commands[i].Failed(); err != nil {
			t.Errorf("write %d: %v", i, err)
		}
	}
	r.until("no worker is left", func() bool { return r.workers() == 0 })
}
