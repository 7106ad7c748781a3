// SPDX-License-Identifier: Apache-2.0

package target

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
)

// fileStore is what the store of a file can do.
type fileStore interface {
	storage.Store
	storage.TryReader
	storage.TryWriter
	storage.DurableWriter
	storage.Discarder
	storage.Zeroer
	storage.Mapper
	storage.Refresher
	storage.Spacious
	storage.Locked
}

// A late store stands for one that can't be opened yet.
type late interface {
	storage.Store
	fill(storage.Store) error // from now on, this is it
	blame(error) bool         // why it is not open; whether that is news
	reason() string           // the same, empty once it is open
}

// lateStore is the late store of a plug-in, and what all have in common. Until
// it is open every transfer fails; the logical unit lets none through.
type lateStore struct {
	info  storage.Info // until it is open
	store atomic.Pointer[storage.Store]

	mu     sync.Mutex // protects what follows
	why    string
	closed bool
}

var errNotOpen = errors.New("the backing store is not open")

// newLate makes the late store of a logical unit.
func newLate(c *config.LUN) late {
	s := lateStore{info: storage.Info{Type: "rdwr", Path: c.Path, ReadOnly: c.ReadOnly}}
	if cmp.Or(c.Backend, "file") != "file" {
		s.info.Type = c.Backend
		return &s
	}
	if !c.ReadOnly {
		s.info.Granularity = 4096 // where nothing is freed, zeros are written
	}
	return &lateFile{lateStore: lateStore{info: s.info}}
}

func (s *lateStore) now() (storage.Store, error) {
	if p := s.store.Load(); p != nil {
		return *p, nil
	}
	return nil, errNotOpen
}

func (s *lateStore) fill(st storage.Store) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return os.ErrClosed
	}
	s.why = ""
	s.store.Store(&st)
	return nil
}

func (s *lateStore) blame(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.why != err.Error()
	s.why = err.Error()
	return news
}

func (s *lateStore) reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// Info returns the properties of the store, as far as they are known.
func (s *lateStore) Info() storage.Info {
	st, err := s.now()
	if err != nil {
		return s.info
	}
	return st.Info()
}

// ReadAt reads from the store.
func (s *lateStore) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	st, err := s.now()
	if err != nil {
		return 0, err
	}
	return st.ReadAt(ctx, p, off)
}

// WriteAt writes to the store.
func (s *lateStore) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	st, err := s.now()
	if err != nil {
		return 0, err
	}
	return st.WriteAt(ctx, p, off)
}

// Flush flushes the store; there is nothing to flush before it is open.
func (s *lateStore) Flush(ctx context.Context) error {
	st, err := s.now()
	if err != nil {
		return nil
	}
	return st.Flush(ctx)
}

// Refresh measures the store anew.
func (s *lateStore) Refresh(ctx context.Context) (int64, error) {
	st, err := s.now()
	if err != nil {
		return 0, err
	}
	if r := storage.Can(st).Refresher; r != nil {
		return r.Refresh(ctx)
	}
	return st.Info().Size, nil
}

// Settle settles a plug-in's store.
func (s *lateStore) Settle(ctx context.Context) error {
	if st, err := s.now(); err == nil {
		return settle(ctx, st)
	}
	return nil
}

// Close closes the store, if it is open.
func (s *lateStore) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if st, err := s.now(); err == nil {
		return st.Close()
	}
	return nil
}

// lateFile is the late store of a file or device.
type lateFile struct{ lateStore }

var _ interface {
	fileStore
	late
} = (*lateFile)(nil)

func (s *lateFile) file() (fileStore, error) {
	st, err := s.now()
	if err != nil {
		return nil, err
	}
	return st.(fileStore), nil
}

// TryReadAt reads what is at hand.
func (s *lateFile) TryReadAt(p []byte, off int64) (int, error) {
	f, err := s.file()
	if err != nil {
		return 0, err
	}
	return f.TryReadAt(p, off)
}

// TryWriteAt writes if that is a copy in memory.
func (s *lateFile) TryWriteAt(p []byte, off int64) (int, error) {
	f, err := s.file()
	if err != nil {
		return 0, err
	}
	return f.TryWriteAt(p, off)
}

// WriteDurableAt writes through.
func (s *lateFile) WriteDurableAt(ctx context.Context, p []byte, off int64) (int, error) {
	f, err := s.file()
	if err != nil {
		return 0, err
	}
	return f.WriteDurableAt(ctx, p, off)
}

// Discard frees space.
func (s *lateFile) Discard(ctx context.Context, off, n int64) error {
	f, err := s.file()
	if err != nil {
		return err
	}
	return f.Discard(ctx, off, n)
}

// WriteZeroes zeroes a range.
func (s *lateFile) WriteZeroes(ctx context.Context, off, n int64) error {
	f, err := s.file()
	if err != nil {
		return err
	}
	return f.WriteZeroes(ctx, off, n)
}

// Extent tells what is allocated.
func (s *lateFile) Extent(ctx context.Context, off int64) (int64, bool, error) {
	f, err := s.file()
	if err != nil {
		return 0, false, err
	}
	return f.Extent(ctx, off)
}

// Space tells what space the blocks take.
func (s *lateFile) Space(ctx context.Context) (storage.Space, error) {
	f, err := s.file()
	if err != nil {
		return storage.Space{}, err
	}
	return f.Space(ctx)
}

// LockFile returns the file with the lock, nil before the store is open.
func (s *lateFile) LockFile() *os.File {
	f, err := s.file()
	if err != nil {
		return nil
	}
	return f.LockFile()
}

// AdoptLock refuses: a store that is open late has its lock.
func (s *lateFile) AdoptLock(f *os.File) error {
	return errors.Join(errNotOpen, f.Close())
}

// TakeLock does nothing: opening does it.
func (s *lateFile) TakeLock() error { return nil }

func lateReasonOf(st storage.Store) string {
	if l, ok := st.(late); ok {
		return l.reason()
	}
	return ""
}
