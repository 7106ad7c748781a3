// SPDX-License-Identifier: Apache-2.0

package storagetest

import (
	"context"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Info returns the properties of the store beneath, with this one's size.
func (s *FaultStore) Info() storage.Info {
	info := s.under.Info()
	s.mu.Lock()
	defer s.mu.Unlock()
	info.Size = s.size
	return info
}

// ReadAt implements storage.Store.
func (s *FaultStore) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = s.call(ctx, Read, off, int64(len(p)), func() error {
		n, err = s.under.ReadAt(ctx, p, off)
		return err
	})
	return n, err
}

// TryReadAt implements storage.TryReader. Without one beneath every call would
// block.
func (s *FaultStore) TryReadAt(p []byte, off int64) (n int, err error) {
	err = s.call(context.Background(), TryRead, off, int64(len(p)), func() error {
		try := storage.Can(s.under).TryReader
		if try == nil {
			return storage.ErrWouldBlock
		}
		n, err = try.TryReadAt(p, off)
		return err
	})
	return n, err
}

// WriteAt implements storage.Store.
func (s *FaultStore) WriteAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = s.call(ctx, Write, off, int64(len(p)), func() error {
		n, err = s.under.WriteAt(ctx, p, off)
		return err
	})
	return n, err
}

// TryWriteAt implements storage.TryWriter. A fault for TryWrite makes it block; if there
// is none, it is a Write.
func (s *FaultStore) TryWriteAt(p []byte, off int64) (int, error) {
	if f, _ := s.pick(TryWrite, off, int64(len(p))); f != nil {
		return 0, storage.ErrWouldBlock
	}
	return s.WriteAt(context.Background(), p, off)
}

// WriteDurableAt implements storage.DurableWriter.
func (s *FaultStore) WriteDurableAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	err = s.call(ctx, WriteDurable, off, int64(len(p)), func() error {
		if d := storage.Can(s.under).DurableWriter; d != nil {
			n, err = d.WriteDurableAt(ctx, p, off)
			return err
		}
		if n, err = s.under.WriteAt(ctx, p, off); err != nil {
			return err
		}
		return s.under.Flush(ctx)
	})
	return n, err
}

// Flush implements storage.Store.
func (s *FaultStore) Flush(ctx context.Context) error {
	return s.call(ctx, Flush, 0, 0, func() error { return s.under.Flush(ctx) })
}

// Discard implements storage.Discarder.
func (s *FaultStore) Discard(ctx context.Context, off, n int64) error {
	return s.call(ctx, Discard, off, n, func() error {
		if d := storage.Can(s.under).Discarder; d != nil {
			return d.Discard(ctx, off, n)
		}
		return s.writeZeros(ctx, off, n)
	})
}

// WriteZeroes implements storage.Zeroer.
func (s *FaultStore) WriteZeroes(ctx context.Context, off, n int64) error {
	return s.call(ctx, WriteZeroes, off, n, func() error {
		if z := storage.Can(s.under).Zeroer; z != nil {
			return z.WriteZeroes(ctx, off, n)
		}
		return s.writeZeros(ctx, off, n)
	})
}

func (s *FaultStore) writeZeros(ctx context.Context, off, n int64) error {
	var zeros [64 << 10]byte
	for n > 0 {
		m := min(n, int64(len(zeros)))
		if _, err := s.under.WriteAt(ctx, zeros[:m], off); err != nil {
			return err
		}
		off, n = off+m, n-m
	}
	return nil
}

// Extent implements storage.Mapper. Without one beneath all is mapped.
func (s *FaultStore) Extent(ctx context.Context, off int64) (n int64, mapped bool, err error) {
	err = s.call(ctx, Extent, off, 1, func() error {
		s.mu.Lock()
		left := s.end - off
		s.mu.Unlock()
		n, mapped = left, true
		if m := storage.Can(s.under).Mapper; m != nil {
			n, mapped, err = m.Extent(ctx, off)
			n = min(n, left)
		}
		return err
	})
	return n, mapped, err
}

// Refresh implements storage.Refresher: Info tells what SetSize said.
func (s *FaultStore) Refresh(ctx context.Context) (size int64, err error) {
	err = s.call(ctx, Refresh, 0, 0, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.size = s.end
		size = s.size
		return nil
	})
	return size, err
}

// Close implements storage.Store.
func (s *FaultStore) Close() error {
	return s.call(context.Background(), Close, 0, 0, s.under.Close)
}
