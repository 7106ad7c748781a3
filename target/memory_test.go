// SPDX-License-Identifier: Apache-2.0

package target

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keptNAA is the identifier of a disk that keeps it under another number.
const keptNAA = "3000000000000007"

// ramServer returns a server of RAM disks, and what it logs.
func ramServer(t *testing.T, successor bool, luns ...config.LUN) (*Server, *bytes.Buffer) {
	t.Helper()
	conf := &config.Config{Targets: []config.Target{{Name: "iqn.2026-11.test:ram", LUNs: luns}}}
	for i := range luns {
		luns[i].Backend = "ram"
	}
	return newServer(t, Options{Config: conf, Successor: successor})
}

// newServer returns a server, closed at the end of the test, and what it logs.
func newServer(t *testing.T, o Options) (*Server, *bytes.Buffer) {
	t.Helper()
	o.Config.SetDefaults()
	if err := o.Config.Validate(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, &log
}

func ramStore(s *Server, lun uint16) storage.Store {
	return s.targets[0].device.LogicalUnit(lun).Store()
}

// fill writes a byte all over a disk.
func fill(t *testing.T, s *Server, lun uint16, b byte) {
	t.Helper()
	st := ramStore(s, lun)
	if _, err := st.WriteAt(t.Context(), bytes.Repeat([]byte{b}, int(st.Info().Size)), 0); err != nil {
		t.Fatal(err)
	}
}

// expectFill checks that a disk holds n times a byte, and then zeros.
func expectFill(t *testing.T, when string, s *Server, lun uint16, b byte, n int) {
	t.Helper()
	st := ramStore(s, lun)
	want, got := make([]byte, st.Info().Size), make([]byte, st.Info().Size)
	copy(want, bytes.Repeat([]byte{b}, n))
	if _, err := st.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s, LUN %d does not hold %d times %#x: %v", when, lun, n, b, err)
	}
}

// memorySize returns the size in bytes of the file behind a RAM disk.
func memorySize(t *testing.T, s *Server, lun uint16) int64 {
	t.Helper()
	st, err := ramStore(s, lun).(storage.Movable).MemoryFile().Stat()
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// handOver moves everything from one server to another.
func handOver(t *testing.T, old, next *Server) {
	t.Helper()
	if err := tryHandOver(t, old, next); err != nil {
		t.Fatal(err)
	}
}

// tryHandOver is handOver that may fail.
func tryHandOver(t *testing.T, old, next *Server) error {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[i] = c.(*net.UnixConn)
	}
	taken := make(chan error)
	go func() {
		_, err := next.TakeOver(t.Context(), conns[1], "next")
		taken <- err
	}()
	o := handoff.Options{Version: "old", Kill: func() { conns[1].Close() }}
	_, err = old.HandOver(t.Context(), conns[0], o, time.Now(), new(handoff.Report))
	if takeErr := <-taken; err != nil || takeErr != nil {
		return fmt.Errorf("HandOver: %w, TakeOver: %w", err, takeErr)
	}
	return nil
}

// RAM disks keep their contents, larger, smaller or under another number, and
// what has no place any more is given back with a word of warning.
func TestRAMDisksMove(t *testing.T) {
	const size = 256 << 10
	old, _ := ramServer(t, false,
		config.LUN{Number: 1, Options: storage.Options{Size: size}}, config.LUN{Number: 2, Options: storage.Options{Size: size}}, config.LUN{Number: 3, Options: storage.Options{Size: size}},
		config.LUN{Number: 4, Options: storage.Options{Size: size}}, config.LUN{Number: 5, Options: storage.Options{Size: size}, UnitOptions: scsi.UnitOptions{NAA: keptNAA}})
	for lun := uint16(1); lun <= 5; lun++ {
		fill(t, old, lun, byte(lun))
	}
	next, log := ramServer(t, true,
		config.LUN{Number: 1, Options: storage.Options{Size: size}}, config.LUN{Number: 2, Options: storage.Options{Size: 2 * size}}, config.LUN{Number: 3, Options: storage.Options{Size: size / 2}},
		config.LUN{Number: 5, Options: storage.Options{Size: size}, UnitOptions: scsi.UnitOptions{NAA: "3000000000000008"}}, config.LUN{Number: 6, Options: storage.Options{Size: size}, UnitOptions: scsi.UnitOptions{NAA: keptNAA}})
	handOver(t, old, next)
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		lun  uint16
		fill byte
		n    int
	}{{1, 1, size}, {2, 2, size}, {3, 3, size / 2}, {5, 0, 0}, {6, 5, size}} {
		expectFill(t, "after the move", next, c.lun, c.fill, c.n)
	}
	if n := memorySize(t, next, 3); n != size/2 {
		t.Errorf("the disk that became smaller still takes %d bytes", n)
	}
	if text := log.String(); strings.Count(text, "contents are gone") != 1 || !strings.Contains(text, "lun=4") {
		t.Errorf("the log of the successor, which has no LUN 4:\n%s", text)
	}
}

// A successor that has rebuilt everything and is then given up leaves the RAM
// disks of its predecessor as they were, whatever sizes it had for them. The
// next one finds them too.
func TestRAMDisksSurviveRollback(t *testing.T) {
	const size = 256 << 10
	luns := func(sizes ...int64) (list []config.LUN) {
		for i, n := range sizes {
			list = append(list, config.LUN{Number: uint16(i + 1), Options: storage.Options{Size: n}})
		}
		return list
	}
	old, _ := ramServer(t, false, luns(size, size, size)...)
	for lun := uint16(1); lun <= 3; lun++ {
		fill(t, old, lun, byte(lun))
	}
	if err := old.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	snap := new(handoff.Snapshot)
	fds, err := (&giver{server: old, report: new(handoff.Report)}).Snapshot(snap)
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for _, fd := range fds {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, os.NewFile(uintptr(copied), "passed"))
	}
	failed, log := ramServer(t, true, luns(2*size, size/2)...)
	if err := (&taker{server: failed}).Restore(snap, files); err != nil {
		t.Fatal(err)
	}
	expectFill(t, "in the successor", failed, 1, 1, size)
	if err := failed.Close(); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("a successor that did not take over says:\n%s", log)
	}
	old.Thaw()
	for lun := uint16(1); lun <= 3; lun++ {
		expectFill(t, "after the rollback", old, lun, byte(lun), size)
	}
	next, _ := ramServer(t, true, luns(size, size, size)...)
	handOver(t, old, next)
	for lun := uint16(1); lun <= 3; lun++ {
		expectFill(t, "after the next move", next, lun, byte(lun), size)
		if n := memorySize(t, next, lun); n != size {
			t.Errorf("the memory of LUN %d has %d bytes, want %d", lun, n, size)
		}
	}
}

// Who can't take RAM disks over is refused before anything stands still, in
// either direction: the first version had nothing to pass on and asked for a
// feature that nobody has.
func TestRAMDisksRefuseStrangers(t *testing.T) {
	s, _ := ramServer(t, false, config.LUN{Number: 1, Options: storage.Options{Size: 1 << 20}})
	needs := (&giver{server: s}).Needs()
	hello := handoff.Hello{Version: "next", Oldest: 1, Newest: handoff.Schema}
	if err := hello.Check(needs); err == nil {
		t.Error("a successor that can't take the RAM disk over is accepted")
	}
	hello.Features = features
	if err := hello.Check(needs); err != nil {
		t.Error(err)
	}
	if err := hello.Check([]string{"contents of RAM disks"}); err == nil {
		t.Error("a predecessor that keeps the contents to itself is taken over from")
	}
	empty, _ := ramServer(t, false)
	if needs := (&giver{server: empty}).Needs(); len(needs) > 0 {
		t.Errorf("without a RAM disk a successor needs %q", needs)
	}
}

// A RAM disk is new, and empty, after a predecessor that had none and whose
// snapshot knows nothing of memory; a snapshot with a file too few is refused.
func TestRAMDiskFromOlderSnapshot(t *testing.T) {
	s, log := ramServer(t, true, config.LUN{Number: 1, Options: storage.Options{Size: 64 << 10}})
	k := &taker{server: s}
	if err := k.Restore(&handoff.Snapshot{Schema: handoff.Schema}, nil); err != nil {
		t.Fatal(err)
	}
	k.settleMemory()
	expectFill(t, "after the move", s, 1, 0, 0)
	if log.Len() > 0 {
		t.Errorf("it says:\n%s", log)
	}
	snap := &handoff.Snapshot{Schema: handoff.Schema}
	if err := snap.Put(sectionMemory, []memoryState{{NAA: keptNAA}}); err != nil {
		t.Fatal(err)
	}
	if err := k.Restore(snap, nil); err == nil {
		t.Error("a RAM disk without its memory is accepted")
	}
}
