// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/test/peer"
)

// TestWritesDroppedSideBySide: of durable writes and flushes at the same time, all of which the
// system drops, not one succeeds.
func TestWritesDroppedSideBySide(t *testing.T) {
	peer.NeedRoot(t)
	inOwnMounts(t, "drop", t.TempDir())
}

// dropWrites has a loop device whose file is on a full file system: what is written to the device fails when its
// pages are flushed.
func dropWrites(args []string) error {
	dir := args[0]
	err := errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", dir, "tmpfs", 0, "size=1m"))
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "device")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 16<<20)); err != nil {
		return err
	}
	dev, err := attach(path, 512)
	if err != nil {
		return fmt.Errorf("no loop device: %w", err)
	}
	defer dev.Close()
	defer func() { _ = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0) }()
	if err := takeSpace(filepath.Join(dir, "full"), 1<<20); err != nil {
		return err
	}
	for round := range int64(50) {
		if err := dropRound(dev.Name(), round*sideBySide*4096); err != nil {
			return err
		}
	}
	return nil
}

const sideBySide = 8

// dropRound writes blocks from off on, side by side, and has what is in the cache flushed meanwhile.
func dropRound(path string, off int64) error {
	s, err := storage.OpenFile(storage.Options{Path: path})
	if err != nil {
		return err
	}
	defer s.Close()
	ctx := context.Background()
	p := make([]byte, 4096)
	p[0] = 1
	if _, err := s.WriteAt(ctx, p, 16<<20-4096); err != nil {
		return err
	}
	errs := make([]error, sideBySide)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			if i == 0 {
				errs[i] = s.Flush(ctx)
				return
			}
			_, errs[i] = s.(storage.DurableWriter).WriteDurableAt(ctx, p, off+int64(i)*4096)
		})
	}
	group.Wait()
	for i, err := range errs {
		if !errors.Is(err, storage.ErrDropped) {
			return fmt.Errorf("%d of %d side by side, all of which the device has refused: %w, want %w", i, sideBySide, err, storage.ErrDropped)
		}
	}
	if err := s.Flush(ctx); !errors.Is(err, storage.ErrDropped) {
		return fmt.Errorf("the next flush: %w, want %w", err, storage.ErrDropped)
	}
	return nil
}
