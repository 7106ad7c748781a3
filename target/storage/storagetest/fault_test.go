// SPDX-License-Identifier: Apache-2.0

package storagetest_test

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// basic hides all but the basic methods of a store.
type basic struct{ storage.Store }

func (b basic) Info() storage.Info {
	info := b.Store.Info()
	info.Granularity = 0
	return info
}

func TestFaultStoreConforms(t *testing.T) {
	t.Run("over a full store", func(t *testing.T) {
		storagetest.TestStore(t, func() storage.Store {
			return storagetest.NewFaultStore(storagetest.NewRAM(2 << 20))
		})
	})
	t.Run("over a basic store", func(t *testing.T) {
		storagetest.TestStore(t, func() storage.Store {
			return storagetest.NewFaultStore(basic{storagetest.NewRAM(2 << 20)})
		})
	})
}

func TestBasicStoreConforms(t *testing.T) {
	storagetest.TestStore(t, func() storage.Store { return basic{storagetest.NewRAM(storagetest.MinSize)} })
}

func TestFaultCatchesRange(t *testing.T) {
	s := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	s.Inject(storagetest.Fault{Op: storagetest.Read, Off: 4096, Len: 512, Err: syscall.EIO})
	p := make([]byte, 512)
	for off, want := range map[int64]error{3584: nil, 4096: syscall.EIO, 4608: nil} {
		if _, err := s.ReadAt(t.Context(), p, off); !errors.Is(err, want) {
			t.Errorf("ReadAt(%d): %v, want %v", off, err, want)
		}
	}
	if _, err := s.TryReadAt(p, 4096); err != storage.ErrWouldBlock {
		t.Errorf("TryReadAt: %v, want ErrWouldBlock, so that the read meets its fault", err)
	}
	var e *storage.Error
	if _, err := s.ReadAt(t.Context(), p, 4096); !errors.As(err, &e) || e.Off != 4096 || e.Len != 512 {
		t.Errorf("ReadAt: %v, want a storage.Error with the range", err)
	}
	s.Heal()
	if _, err := s.ReadAt(t.Context(), p, 4096); err != nil {
		t.Errorf("ReadAt after Heal: %v", err)
	}
}

func TestFaultCount(t *testing.T) {
	s := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	s.Inject(storagetest.Fault{Op: storagetest.Write, Count: 1, Err: syscall.ENOSPC})
	s.Inject(storagetest.Fault{Op: storagetest.Flush, Count: 2, Err: syscall.EIO})
	p := []byte("one")
	if _, err := s.WriteDurableAt(t.Context(), p, 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("first write: %v, want ENOSPC", err)
	}
	if _, err := s.WriteAt(t.Context(), p, 0); err != nil {
		t.Errorf("second write: %v", err)
	}
	for i, want := range []error{syscall.EIO, syscall.EIO, nil} {
		if err := s.Flush(t.Context()); !errors.Is(err, want) {
			t.Errorf("flush %d: %v, want %v", i, err, want)
		}
	}
	want := []storagetest.Call{
		{Op: storagetest.WriteDurable, Len: 3, Err: syscall.ENOSPC},
		{Op: storagetest.Write, Len: 3},
	}
	got := s.Calls(storagetest.Write, storagetest.WriteDurable)
	if d := cmp.Diff(want, got, cmpopts.EquateErrors()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	s.Forget()
	if n := len(s.Calls()); n != 0 {
		t.Errorf("%d calls after Forget", n)
	}
}

func TestFaultHolds(t *testing.T) {
	s := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	reached, release := make(chan storagetest.Call), make(chan struct{})
	s.Inject(storagetest.Fault{Op: storagetest.Write, Reached: reached, Release: release})
	done := make(chan error)
	go func() {
		_, err := s.WriteAt(t.Context(), []byte("late"), 8)
		done <- err
	}()
	if c := <-reached; c.Op != storagetest.Write || c.Off != 8 || c.Len != 4 {
		t.Errorf("reached by %+v", c)
	}
	got := make([]byte, 4)
	if _, err := s.ReadAt(t.Context(), got, 8); err != nil || string(got) != "\x00\x00\x00\x00" {
		t.Errorf("a held write is there already: %q, %v", got, err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("WriteAt: %v", err)
	}
	if _, err := s.ReadAt(t.Context(), got, 8); err != nil || string(got) != "late" {
		t.Errorf("a released write is not there: %q, %v", got, err)
	}
}

func TestFaultStoreShrinks(t *testing.T) {
	s := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	s.SetSize(4096)
	p := make([]byte, 512)
	if _, err := s.ReadAt(t.Context(), p, 4096); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAt past the cut: %v, want unexpected EOF", err)
	}
	if size := s.Info().Size; size != 1<<20 {
		t.Errorf("size before Refresh is %d", size)
	}
	if size, err := s.Refresh(t.Context()); size != 4096 || err != nil || s.Info().Size != 4096 {
		t.Errorf("Refresh = %d, %v, Info says %d, want 4096", size, err, s.Info().Size)
	}
}
