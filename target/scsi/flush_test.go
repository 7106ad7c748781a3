// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// flushers returns initiators of one disk, the disk and its store.
func flushers(t *testing.T, n int) (hosts []*host, lu *scsi.LogicalUnit, store *storagetest.FaultStore) {
	t.Helper()
	d := newDevice(t, scsi.DeviceOptions{})
	store = storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	lu = attach(t, d, 1, scsi.LogicalUnitOptions{Store: store})
	for i := range n {
		hosts = append(hosts, openHost(t, d, string(rune('a'+i))).settle())
	}
	return hosts, lu, store
}

// TestFlushesShareAFailure: of two flushes side by side the system tells one that it has failed, and
// the other one must not end with GOOD because it was told nothing, before the first has said so.
func TestFlushesShareAFailure(t *testing.T) {
	hosts, _, store := flushers(t, 2)
	hosts[0].want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	reached, release := make(chan storagetest.Call), make(chan struct{})
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Err: syscall.EIO, Count: 1, Reached: reached, Release: release})
	answers := make(chan reply, 2)
	flush := func(h *host) { answers <- h.do(rw10(0x35, 0, 0, 0), nil, 0) }
	go flush(hosts[0])
	<-reached
	go flush(hosts[1])
	// A second flush that does not wait ends meanwhile.
	select {
	case r := <-answers:
		t.Errorf("the second flush ended before the first: %v", r)
		answers <- r
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	for range 2 {
		if r := <-answers; r.String() != "3/0c/00" {
			t.Errorf("%v, want 3/0c/00", r)
		}
	}
}

// TestFlushesAreShared: commands that wait while the store flushes need one more flush together.
func TestFlushesAreShared(t *testing.T) {
	const others = 8
	hosts, _, store := flushers(t, others+2)
	reached, release := make(chan storagetest.Call), make(chan struct{})
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Count: 1, Reached: reached, Release: release})
	answers := make(chan reply)
	flush := func(h *host) { answers <- h.do(rw10(0x35, 0, 0, 0), nil, 0) }
	go flush(hosts[0])
	<-reached
	hosts[1].want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0) // the flush under way may not know of it
	for _, h := range hosts[2:] {
		go flush(h)
	}
	close(release)
	for range others + 1 {
		if r := <-answers; r.String() != good {
			t.Errorf("%v", r)
		}
	}
	flushes := 0
	for _, c := range store.Calls() {
		if c.Op == storagetest.Flush {
			flushes++
		}
	}
	if flushes < 2 || flushes > others+1 {
		t.Errorf("%d flushes: what was written during the first needs another one", flushes)
	}
}

// TestWaitingFlushEnds: a flush that waits for another one ends with its context, and that is no
// failure of the store.
func TestWaitingFlushEnds(t *testing.T) {
	hosts, lu, store := flushers(t, 1)
	reached, release := make(chan storagetest.Call), make(chan struct{})
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Count: 1, Reached: reached, Release: release})
	answer := make(chan reply)
	go func() { answer <- hosts[0].do(rw10(0x35, 0, 0, 0), nil, 0) }()
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lu.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	close(release)
	if r := <-answer; r.String() != good {
		t.Errorf("the flush that was waited for: %v", r)
	}
	if err := lu.Flush(t.Context()); err != nil || lu.Info().FlushFailed {
		t.Errorf("%v, flush failed: %v", err, lu.Info().FlushFailed)
	}
}
