// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/storage"
)

// allocated returns the bytes of disk that a file takes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestDiscardFreesSpace(t *testing.T) {
	s, path := create(t, 8<<20)
	if _, err := s.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 8<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := allocated(t, path)
	if err := s.(storage.Discarder).Discard(t.Context(), 1<<20, 4<<20); err != nil {
		t.Fatal(err)
	}
	freed := before - allocated(t, path)
	if s.Info().Granularity > 0 && freed < 3<<20 {
		t.Errorf("granularity is %d, but only %d bytes were freed", s.Info().Granularity, freed)
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != 8<<20 {
		t.Errorf("the file is no longer what it was: %v, %v", fi, err)
	}
}

func TestExtentsOfSparseFile(t *testing.T) {
	s, _ := create(t, 8<<20)
	if _, err := s.WriteAt(t.Context(), []byte{1}, 2<<20); err != nil {
		t.Fatal(err)
	}
	m := s.(storage.Mapper)
	n, mapped, err := m.Extent(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	// A file system that knows no holes calls everything data.
	if mapped && n != 8<<20 || !mapped && n > 2<<20 {
		t.Errorf("Extent(0) = %d, %v", n, mapped)
	}
	if n, mapped, err := m.Extent(t.Context(), 2<<20); !mapped || n < 512 || err != nil {
		t.Errorf("Extent at the data = %d, %v, %v", n, mapped, err)
	}
}

// TestFullDisk fills a disk smaller than the image on it. The disk is a tmpfs
// in the helper's own mount namespace. Where the system does not let us mount,
// there remains the file size limit, which is tested in any case.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := helper(t, "fill", dir, "limit").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	inOwnMounts(t, "fill", dir, "mount")
}

// inOwnMounts runs a role that mounts something, in a mount namespace of its own. Where the
// system does not let us mount, it says so in the test's log.
func inOwnMounts(t *testing.T, role string, args ...string) {
	t.Helper()
	for _, attr := range []*syscall.SysProcAttr{
		{Cloneflags: syscall.CLONE_NEWNS},
		{
			Cloneflags:  syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		},
	} {
		cmd := helper(t, role, args...)
		cmd.SysProcAttr = attr
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError // any other error: the namespace was refused
		refused := err != nil && !errors.As(err, &exit) || bytes.Contains(out, []byte(cantMount))
		if refused {
			t.Logf("%v: %s", err, out)
			continue
		}
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
}

const cantMount = "can't mount"

// mountSmall mounts a tmpfs of so many bytes at a directory, for this process's own
// mount namespace.
func mountSmall(dir string, size int64) error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	}
	if err != nil {
		return fmt.Errorf("%s a tmpfs: %w", cantMount, err)
	}
	return nil
}

// fillSmallDisk writes to an image in a directory until there is no room, and
// checks how the store takes it.
func fillSmallDisk(args []string) error {
	dir, how := args[0], args[1]
	want, room := syscall.ENOSPC, int64(1<<20)
	if how == "mount" {
		if err := mountSmall(dir, room); err != nil {
			return err
		}
	}
	s, err := storage.OpenFile(storage.Options{Path: filepath.Join(dir, "disk.img"), Size: 4 << 20, Create: true})
	if err != nil {
		return err
	}
	defer s.Close()
	if how == "limit" {
		want = syscall.EFBIG
		signal.Ignore(syscall.SIGXFSZ)
		limit := unix.Rlimit{Cur: uint64(room), Max: uint64(room)}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
	}
	return fill(context.Background(), s, room, want)
}

// fill fills s, on a disk of room bytes where the next write gives want.
func fill(ctx context.Context, s storage.Store, room int64, want error) error {
	var err error
	var off int64
	chunk := bytes.Repeat([]byte{7}, 192<<10) // which room is no multiple of
	for ; off < 4<<20 && err == nil; off += int64(len(chunk)) {
		_, err = s.WriteAt(ctx, chunk, off)
	}
	var e *storage.Error
	if !errors.As(err, &e) || !errors.Is(err, want) || e.Op != "write" || e.Len != int64(len(chunk)) {
		return fmt.Errorf("a full disk gives %v, want %w", err, want)
	}
	if off <= room-int64(len(chunk)) || off > room+int64(len(chunk)) {
		return fmt.Errorf("the disk of %d bytes was full at %d", room, off)
	}
	if _, err := s.(storage.DurableWriter).WriteDurableAt(ctx, chunk, 3<<20); !errors.Is(err, want) {
		return fmt.Errorf("a durable write on a full disk gives %v, want %w", err, want)
	}
	// The file size limit does not hold for fallocate(2).
	if err := s.(storage.Zeroer).WriteZeroes(ctx, 3<<20, 1<<20); want == syscall.ENOSPC && !errors.Is(err, want) {
		return fmt.Errorf("zeroing on a full disk gives %v, want %w", err, want)
	}
	got := make([]byte, 4096)
	if _, err := s.ReadAt(ctx, got, 4096); err != nil || !bytes.Equal(got, chunk[:4096]) {
		return fmt.Errorf("after the failure data is gone: %v", err)
	}
	if err := s.(storage.Discarder).Discard(ctx, 0, 512<<10); err != nil {
		return err
	}
	if _, err := s.WriteAt(ctx, chunk, 0); err != nil {
		return fmt.Errorf("after a discard there is still no room: %w", err)
	}
	return s.Flush(ctx)
}
