// SPDX-License-Identifier: Apache-2.0

package storagetest_test

import (
	"context"
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// zero reads as zeros and discards what is written.
type zero int64

func (z zero) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	if err := storage.CheckRange(off, int64(len(p)), int64(z)); err != nil {
		return 0, err
	}
	clear(p)
	return len(p), nil
}

func (z zero) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	if err := storage.CheckRange(off, int64(len(p)), int64(z)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (z zero) Flush(context.Context) error { return nil }
func (z zero) Info() storage.Info          { return storage.Info{Type: "zero", Size: int64(z)} }
func (z zero) Close() error                { return nil }

func init() {
	storage.Register("zero", storage.Driver{
		Open:  func(_ context.Context, _ string, o storage.Options) (storage.Store, error) { return zero(o.Size), nil },
		Needs: storage.SettingSize,
	})
}

func TestZeroConforms(t *testing.T) {
	storagetest.TestInterface(t, func() storage.Store { return zero(storagetest.MinSize) })
	storagetest.TestDriver(t, "zero", storage.Options{Size: 4096})
}
