// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// childOf, in the environment, has the test program be a process that is killed.
const childOf = "JOURNAL_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childOf) != "" {
		fmt.Fprintln(os.Stderr, child(os.NewFile(3, "journal"), os.NewFile(4, "arena")))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// progress is at the beginning of the arena, where the parent sees it.
type progress struct{ begun, committed atomic.Uint64 }

func mapProgress(arena *os.File) (*progress, error) {
	m, err := unix.Mmap(descriptor.Number(arena), 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*progress)(unsafe.Pointer(&m[0])), nil
}

// child takes the journal and makes transactions until it is killed. All records of transaction n have the number n.
func child(file, arena *os.File) error {
	p, err := mapProgress(arena)
	if err != nil {
		return err
	}
	j, err := Open(file, arena)
	if err != nil {
		return err
	}
	r, err := j.Recover(nil)
	if err != nil || len(r.Sessions) != 1 {
		return fmt.Errorf("%v: dropped %v", err, r.Dropped)
	}
	if err := j.Take(r); err != nil {
		return err
	}
	s := r.Sessions[0].Session
	for len(r.Sessions[0].Slots) == 0 {
		if n, ok := s.TakeSlot(); !ok || n == 20 {
			break
		}
	}
	for n := r.Sessions[0].Record.Arrivals + 1; ; n++ {
		p.begun.Store(n)
		for i := uint16(1); i <= 20; i++ {
			s.PutSlot(i, &Slot{Kind: Skipped, Order: n, Progress: n})
		}
		s.PutUnits(0x2900, []uint64{n, n, n, n, n})
		s.PutRecord(&SessionRecord{Arrivals: n, ExpCmdSN: uint32(n)})
		s.Commit()
		p.committed.Store(n)
	}
}

// A process is killed again and again, and its successor goes on. All of a transaction is in force, or nothing, and
// what was committed is.
func TestKill(t *testing.T) {
	arena := newFile(t, testArena)
	j := newJournal(t, Options{Sessions: 1, Connections: 1, Units: 1, Arena: arena})
	if _, err := j.OpenSession(nil, &SessionRecord{}); err != nil {
		t.Fatal(err)
	}
	p, err := mapProgress(arena)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(p)), pageSize)); err != nil {
			t.Error(err)
		}
	})
	last := uint64(0)
	for range 20 {
		kill(t, j, arena, p, last)
		r, err := j.Recover(nil)
		if err != nil || len(r.Sessions) != 1 {
			t.Fatalf("%v: dropped %v", err, r.Dropped)
		}
		s := &r.Sessions[0]
		n := s.Record.Arrivals
		if n < p.committed.Load() || n > p.begun.Load() {
			t.Errorf("transaction %d is in force, %d was committed and %d was begun", n, p.committed.Load(), p.begun.Load())
		}
		for _, k := range s.Slots {
			if k.Order != n || k.Progress != n {
				t.Errorf("slot %d is of transaction %d, the session of %d", k.Number, k.Order, n)
			}
		}
		for _, w := range s.Units[0x2900] {
			if w != n {
				t.Errorf("the unit attentions are of transaction %d, the session of %d", w, n)
			}
		}
		if len(s.Slots) != 20 {
			t.Errorf("%d slots are in use", len(s.Slots))
		}
		last = n
	}
}

// kill runs a process until it has committed some transactions, and kills it.
func kill(t *testing.T, j *Journal, arena *os.File, p *progress, last uint64) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), childOf+"=1")
	c.ExtraFiles = []*os.File{j.file, arena}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for enough := last + 100 + rand.Uint64N(5000); p.committed.Load() < enough; {
		select {
		case err := <-ended:
			t.Fatalf("the process has ended by itself: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-ended
}
