// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestStorageErrorsBecomeSense(t *testing.T) {
	read, write := rw10(0x28, 0, 4, 2), rw10(0x2a, 0, 4, 2)
	sync := rw10(0x35, 0, 4, 0)
	unmap := unmapCDB(24)
	compare, both := compareAndWrite(4, fill(0, 1), fill(1, 1))
	for _, c := range []struct {
		op   storagetest.Op
		err  error
		cdb  []byte
		out  []byte
		want string
	}{
		{storagetest.Read, syscall.EIO, read, nil, "3/11/00"},
		{storagetest.Read, io.ErrUnexpectedEOF, read, nil, "3/11/00"},
		{storagetest.Read, syscall.ENODEV, read, nil, "2/04/0c"},
		{storagetest.Read, syscall.ESTALE, read, nil, "2/04/0c"},
		{storagetest.Read, syscall.ESHUTDOWN, read, nil, "2/04/0c"},
		{storagetest.Read, syscall.EBADF, read, nil, "4/44/00"},
		{storagetest.Read, syscall.EIO, rw10(0x2f, 0, 4, 2), nil, "3/11/00"},
		{storagetest.Read, syscall.EIO, rw10(0x34, 0, 4, 2), nil, "3/11/00"},
		{storagetest.Read, syscall.EIO, compare, both, "3/11/00"},
		{storagetest.Read, syscall.EIO, rw16(0x8b, 0, 4, 2), fill(1, 2), "3/11/00"},
		{storagetest.Extent, syscall.EIO, rw16(0x9e, 0x12, 4, 24), nil, "3/11/00"},
		{storagetest.Write, syscall.EIO, write, fill(1, 2), "3/0c/00"},
		{storagetest.Write, io.ErrUnexpectedEOF, write, fill(1, 2), "3/0c/00"},
		{storagetest.Write, syscall.ENOSPC, write, fill(1, 2), "7/27/07"},
		{storagetest.Write, syscall.EDQUOT, write, fill(1, 2), "7/27/07"},
		{storagetest.Write, syscall.EACCES, write, fill(1, 2), "7/27/00"},
		{storagetest.Write, syscall.EROFS, write, fill(1, 2), "2/04/0c"},
		{storagetest.Write, syscall.ESHUTDOWN, compare, both, "2/04/0c"},
		{storagetest.Write, syscall.ENXIO, write, fill(1, 2), "2/04/0c"},
		{storagetest.Write, syscall.ENOTCONN, write, fill(1, 2), "2/04/0c"},
		{storagetest.Discard, syscall.EROFS, unmap, unmapList([2]uint64{4, 2}), "2/04/0c"},
		{storagetest.Flush, syscall.ESHUTDOWN, sync, nil, "2/04/0c"},
		{storagetest.Flush, syscall.ENOLINK, sync, nil, "2/04/0c"},
		{storagetest.Write, syscall.EIO, compare, both, "3/0c/00"},
		{storagetest.Write, syscall.EIO, rw16(0x8b, 0, 4, 2), fill(1, 2), "3/0c/00"},
		{storagetest.Write, syscall.EIO, rw10(0x41, 0, 4, 2), fill(1, 1), "3/0c/00"},
		{storagetest.Write, syscall.EIO, rw10(0x2e, 0, 4, 2), fill(1, 2), "3/0c/00"},
		{storagetest.WriteZeroes, syscall.EIO, rw10(0x41, 0, 4, 2), fill(0, 1), "3/0c/00"},
		{storagetest.Discard, syscall.EIO, unmap, unmapList([2]uint64{4, 2}), "3/0c/00"},
		{storagetest.Discard, syscall.EIO, rw10(0x41, 8, 4, 2), fill(0, 1), "3/0c/00"},
		{storagetest.Flush, syscall.EIO, sync, nil, "3/0c/00"},
		{storagetest.Flush, syscall.ENOSPC, sync, nil, "7/27/07"},
		{storagetest.Flush, syscall.EIO, rw10(0x28, 8, 4, 2), nil, "3/0c/00"},
	} {
		t.Run(fmt.Sprintf("%s/%v/%02x", c.op, c.err, c.cdb[0]), func(t *testing.T) {
			h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
			store.Inject(storagetest.Fault{Op: c.op, Err: c.err})
			r := h.want(c.want, c.cdb, c.out, 1024)
			if lba, ok := r.info(); !ok || lba != 4 {
				t.Errorf("INFORMATION %d (%t), want LBA 4", lba, ok)
			}
			if n := lu.Counters().Errors; n != 1 {
				t.Errorf("%d errors counted", n)
			}
		})
	}
}

func TestShrunkStore(t *testing.T) {
	h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
	store.SetSize(512 << 10)
	h.want("3/11/00", rw10(0x28, 0, 1024, 1), nil, 512)
	h.want(good, rw10(0x28, 0, 1023, 1), nil, 512)
	if err := lu.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.want("6/2a/09", rw10(0x28, 0, 1024, 1), nil, 512)
	h.want("5/21/00", rw10(0x28, 0, 1024, 1), nil, 512)
	store.SetSize(100)
	if err := lu.Refresh(t.Context()); err == nil {
		t.Error("a store of less than a block was accepted")
	}
}

func TestAFailedFlushIsForever(t *testing.T) {
	h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Err: syscall.EIO, Count: 1})
	h.want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	h.want("3/0c/00", rw10(0x35, 0, 0, 0), nil, 0)
	store.Forget()
	for range 3 {
		h.want("3/0c/00", rw10(0x35, 0, 0, 0), nil, 0)
		h.want("3/0c/00", rw16(0x91, 0, 0, 0), nil, 0)
		h.want("3/0c/00", rw10(0x2a, 8, 0, 1), fill(1, 1), 0)
		h.want("3/0c/00", rw10(0x28, 8, 0, 1), nil, 512)
		h.want("3/0c/00", []byte{0x1b, 5: 0}, nil, 0)
	}
	if calls := store.Calls(); len(calls) != 0 {
		t.Errorf("the store was asked again: %v", calls)
	}
	h.want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0) // a cached write promises nothing
	h.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	if err := lu.Flush(t.Context()); err == nil {
		t.Error("Flush succeeded")
	}
	if !lu.Info().FlushFailed {
		t.Error("Info says nothing of it")
	}
	if err := lu.Close(); err == nil {
		t.Error("Close succeeded")
	}
}

func TestAFailedDurableWriteMayBeAFailedFlush(t *testing.T) {
	for _, c := range []struct {
		err  error
		then string
	}{
		{syscall.EIO, "3/0c/00"}, {syscall.ENOSPC, good}, {syscall.EDQUOT, good},
		{fmt.Errorf("%w: %w", storage.ErrDropped, syscall.ENOSPC), "3/0c/00"},
	} {
		h, _, store := faulty(t, scsi.LogicalUnitOptions{})
		store.Inject(storagetest.Fault{Op: storagetest.WriteDurable, Err: c.err, Count: 1})
		if r := h.do(rw10(0x2a, 8, 0, 1), fill(1, 1), 0); r.status != scsi.CheckCondition {
			t.Errorf("%v: %v", c.err, r)
		}
		h.want(c.then, rw10(0x35, 0, 0, 0), nil, 0)
	}
}

func TestWithoutACacheEveryChangeIsDurable(t *testing.T) {
	for _, cdb := range [][]byte{rw10(0x41, 0, 0, 2), rw10(0x41, 8, 0, 2), unmapCDB(24)} {
		h, _, store := faulty(t, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{WriteCache: new(false)}})
		out := fill(0, 1)
		if cdb[0] == 0x42 {
			out = unmapList([2]uint64{0, 8})
		}
		h.want(good, cdb, out, 0)
		calls := store.Calls()
		if n := len(calls); n < 2 || calls[n-1].Op != storagetest.Flush {
			t.Errorf("% x: %v", cdb, calls)
		}
	}
}

func TestFailuresAreLoggedWithMeasure(t *testing.T) {
	var log bytes.Buffer
	d := newDevice(t, scsi.DeviceOptions{})
	store := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	lu, err := scsi.NewLogicalUnit(scsi.LogicalUnitOptions{Store: store, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Attach(1, lu); err != nil {
		t.Fatal(err)
	}
	h := openHost(t, d, "a").settle()
	store.Inject(storagetest.Fault{Op: storagetest.Read, Err: syscall.EIO})
	for range 500 {
		h.want("3/11/00", rw10(0x28, 0, 77, 1), nil, 512)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) > 20 {
		t.Errorf("%d lines for 500 failures", len(lines))
	}
	for _, part := range []string{"target=" + targetName, "lun=1", "lba=77", "initiator=iqn.2000-01.org.example:a", "input/output error"} {
		if !strings.Contains(lines[0], part) {
			t.Errorf("no %q in %q", part, lines[0])
		}
	}
}

func TestClosedUnit(t *testing.T) {
	h, lu, store := faulty(t, scsi.LogicalUnitOptions{})
	var c scsi.Command
	c.Pool = h.cmd.Pool
	h.prepare(&c, rw10(0x28, 0, 0, 1), 0, 512)
	if err := errors.Join(lu.Close(), lu.Close()); err != nil {
		t.Fatal(err)
	}
	if !h.n.TryExecute(&c) {
		h.n.Execute(t.Context(), &c)
	}
	if r := h.finish(&c); r.String() != "5/25/00" {
		t.Errorf("a read after Close: %v", r)
	}
	h.want("5/25/00", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	h.want("5/25/00", rw10(0x35, 0, 0, 0), nil, 0)
	if calls := store.Calls(storagetest.Close); len(calls) != 1 {
		t.Errorf("closed %d times", len(calls))
	}
	if err := lu.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if err := lu.Refresh(t.Context()); err == nil {
		t.Error("a closed unit was refreshed")
	}
}

func TestReadsThatWouldWaitAreLeftToAWorker(t *testing.T) {
	h, _, store := faulty(t, scsi.LogicalUnitOptions{})
	store.Inject(storagetest.Fault{Op: storagetest.TryRead, Err: storage.ErrWouldBlock, Count: 1})
	c := &h.cmd
	h.prepare(c, rw10(0x28, 0, 0, 1), 0, 512)
	if h.n.TryExecute(c) || c.Done() || c.In != nil {
		t.Fatal("a read that would wait was executed at once")
	}
	h.n.Execute(t.Context(), c)
	if r := h.finish(c); r.String() != good {
		t.Error(r)
	}
	for _, cdb := range [][]byte{rw10(0x2a, 8, 0, 1), rw10(0x28, 8, 0, 1), rw10(0x35, 0, 0, 0)} {
		h.prepare(c, cdb, 512, 512)
		c.Out = fill(1, 1)[:c.Length]
		if h.n.TryExecute(c) {
			t.Errorf("% x: executed at once", cdb)
		}
	}
}

func TestWritesThatWouldWaitAreLeftToAWorker(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	store := storagetest.NewFaultStore(storagetest.NewRAM(4 << 20))
	attach(t, d, 1, scsi.LogicalUnitOptions{Store: store})
	h := openHost(t, d, "a").settle()
	c := &h.cmd
	try := func(blocks uint16) bool {
		h.prepare(c, rw10(0x2a, 0, 0, blocks), int(blocks)*512, 0)
		c.Out = fill(1, int(blocks))
		return h.n.TryExecute(c)
	}
	if !try(2048) || c.Status != scsi.Good {
		t.Error("1 MiB was not written at once")
	}
	if try(2049) {
		t.Error("more than 1 MiB was written at once")
	}
	store.Inject(storagetest.Fault{Op: storagetest.TryWrite, Count: 1})
	if try(1) || c.Done() {
		t.Fatal("a write that would wait was executed at once")
	}
	h.n.Execute(t.Context(), c)
	if r := h.finish(c); r.String() != good {
		t.Error(r)
	}
	store.Inject(storagetest.Fault{Op: storagetest.Write, Count: 1, Err: syscall.EIO})
	if !try(1) {
		t.Fatal("a write that fails was left to a worker")
	}
	if r := h.finish(c); r.String() != "3/0c/00" {
		t.Error(r)
	}
}

func TestAFlushHoldsNothingUp(t *testing.T) {
	d := newDevice(t, scsi.DeviceOptions{})
	store := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	lu := attach(t, d, 1, scsi.LogicalUnitOptions{Store: store})
	h, other := openHost(t, d, "a").settle(), openHost(t, d, "b").settle()
	reached, release := make(chan storagetest.Call, 1), make(chan struct{})
	store.Inject(storagetest.Fault{Op: storagetest.Flush, Count: 1, Reached: reached, Release: release})
	flushed := make(chan reply, 1)
	go func() { flushed <- h.do(rw10(0x35, 0, 0, 0), nil, 0) }()
	<-reached
	cdb, out := compareAndWrite(0, fill(0, 1), fill(1, 1))
	other.want(good, cdb, out, 0)
	other.want(good, rw10(0x28, 0, 0, 1), nil, 512)
	close(release)
	if r := <-flushed; r.String() != good {
		t.Error(r)
	}
	if err := lu.Close(); err != nil {
		t.Error(err)
	}
}
