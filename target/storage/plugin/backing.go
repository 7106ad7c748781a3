// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/gotgtd/gotgtd/target/storage"
)

// BackingStore makes a plug-in for gotgt of what open opens, for gotgt's
// scsi.RegisterBackingStore: a program that embeds gotgt can use the stores of
// this project. Unmap discards where the store can, makes zeros where it
// can't, and is refused where it can do neither.
func BackingStore(open func(path string) (storage.Store, error)) scsi.BackingStoreFunc {
	return func() (api.BackingStore, error) { return &backing{open: open}, nil }
}

// backing is a store of this project as a plug-in of gotgt.
type backing struct {
	open func(path string) (storage.Store, error)

	mu    sync.RWMutex // protects store; held shared by every call that uses it
	store storage.Store
}

var _ api.BackingStore = (*backing)(nil)

// opened returns the store.
func (b *backing) opened() (storage.Store, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.store == nil {
		return nil, fs.ErrClosed
	}
	return b.store, nil
}

// with calls f with the store, and keeps it open until f returns.
func (b *backing) with(f func(storage.Store) error) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.store == nil {
		return fs.ErrClosed
	}
	return f(b.store)
}

// Open opens the store that path names.
func (b *backing) Open(_ *api.SCSILu, path string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store != nil {
		return fmt.Errorf("can't open backing store %q: the plug-in has one open already", path)
	}
	s, err := b.open(path)
	if err != nil {
		return err
	}
	b.store = s
	return nil
}

// Close flushes and closes the store.
func (b *backing) Close(*api.SCSILu) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store == nil {
		return fs.ErrClosed
	}
	var err error
	if !b.store.Info().ReadOnly {
		err = b.store.Flush(context.Background())
	}
	err = errors.Join(err, b.store.Close())
	b.store = nil
	return err
}

// Init does nothing: there are no options.
func (b *backing) Init(*api.SCSILu, string) error { return nil }

// Exit does nothing.
func (b *backing) Exit(*api.SCSILu) error { return nil }

// Size returns the size in bytes, 0 when nothing is open.
func (b *backing) Size(*api.SCSILu) uint64 {
	var size int64
	_ = b.with(func(s storage.Store) error {
		size = s.Info().Size
		return nil
	})
	return uint64(size)
}

// Read returns n bytes from off.
func (b *backing) Read(off, n int64) (p []byte, err error) {
	err = b.with(func(s storage.Store) error {
		if size := s.Info().Size; n < 0 || n > size {
			return fmt.Errorf("can't read %d bytes of a backing store of %d", n, size)
		}
		p = make([]byte, n)
		done, err := s.ReadAt(context.Background(), p, off)
		p = p[:done]
		return err
	})
	return p, err
}

// Write writes p at off.
func (b *backing) Write(p []byte, off int64) error {
	return b.with(func(s storage.Store) error {
		_, err := s.WriteAt(context.Background(), p, off)
		return err
	})
}

// DataSync flushes the store, more than the range.
func (b *backing) DataSync(int64, int64) error {
	return b.with(func(s storage.Store) error { return s.Flush(context.Background()) })
}

// DataAdvise does nothing: advice may be ignored.
func (b *backing) DataAdvise(int64, int64, uint32) error { return nil }

// Unmap makes ranges of bytes read as zeros, and frees their space if the store
// can.
func (b *backing) Unmap(ranges []api.UnmapBlockDescriptor) error {
	return b.with(func(s storage.Store) error {
		var zero func(ctx context.Context, off, n int64) error
		if d := storage.Can(s).Discarder; d != nil {
			zero = d.Discard
		} else if z := storage.Can(s).Zeroer; z != nil {
			zero = z.WriteZeroes
		} else {
			return errors.New("the backing store can neither discard nor write zeros")
		}
		for _, r := range ranges {
			if err := zero(context.Background(), int64(r.Offset), int64(r.TL)); err != nil {
				return err
			}
		}
		return nil
	})
}
