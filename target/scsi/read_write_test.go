// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// layouts are CDBs that transfer blocks, by length.
var layouts = []struct {
	read, write byte
	cdb         func(code byte, lba uint64, blocks uint32) []byte
}{
	{0x08, 0x0a, func(code byte, lba uint64, blocks uint32) []byte {
		return []byte{code, byte(lba >> 16), byte(lba >> 8), byte(lba), byte(blocks), 0}
	}},
	{0x28, 0x2a, func(code byte, lba uint64, blocks uint32) []byte { return rw10(code, 0, uint32(lba), uint16(blocks)) }},
	{0xa8, 0xaa, func(code byte, lba uint64, blocks uint32) []byte {
		b := make([]byte, 12)
		b[0] = code
		binary.BigEndian.PutUint32(b[2:], uint32(lba))
		binary.BigEndian.PutUint32(b[6:], blocks)
		return b
	}},
	{0x88, 0x8a, func(code byte, lba uint64, blocks uint32) []byte { return rw16(code, 0, lba, blocks) }},
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	for _, size := range []int{512, 4096} {
		for _, cache := range []bool{false, true} {
			for i, l := range layouts {
				t.Run(fmt.Sprintf("%d/%t/%d", size, cache, i), func(t *testing.T) {
					h, _ := newHost(t, scsi.LogicalUnitOptions{BlockOptions: storage.BlockOptions{BlockSize: size}, UnitOptions: scsi.UnitOptions{WriteCache: &cache}})
					data := bytes.Repeat([]byte{0xa5, byte(i)}, size) // two blocks
					h.want(good, l.cdb(l.write, 3, 2), data, 0)
					if got := h.want(good, l.cdb(l.read, 3, 2), nil, len(data)).data; !bytes.Equal(got, data) {
						t.Error("read something else than was written")
					}
					last := uint64(1<<20/size) - 1
					h.want(good, l.cdb(l.write, last, 1), data[:size], 0)
					h.want("5/21/00", l.cdb(l.write, last, 2), data, 0)
					h.want("5/21/00", l.cdb(l.read, last, 2), nil, 2*size)
				})
			}
		}
	}
}

func TestSixByteCountOfZeroIs256(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.want(good, []byte{0x0a, 0, 0, 0, 0, 0}, fill(7, 256), 0)
	if got := h.want(good, []byte{0x08, 0, 0, 0, 0, 0}, nil, 256*512).data; !bytes.Equal(got, fill(7, 256)) {
		t.Error("read something else than was written")
	}
}

func TestRangesAreChecked(t *testing.T) {
	const last = 1<<20/512 - 1
	for _, c := range []struct {
		lba    uint64
		blocks uint32
		want   string
	}{
		{0, 0, good},
		{last + 1, 0, good},
		{last + 2, 0, "5/21/00"},
		{last, 1, good},
		{last, 2, "5/21/00"},
		{1 << 63, 1, "5/21/00"},
		{1<<64 - 1, 0, "5/21/00"},
		{1<<64 - 1, 1, "5/21/00"},
		{1<<64 - 1, 2, "5/21/00"},
		{0, scsi.MaxTransfer/512 + 1, "5/24/00"},
		{0, 1<<32 - 1, "5/24/00"},
	} {
		h, _ := newHost(t, scsi.LogicalUnitOptions{})
		for _, code := range []byte{0x88, 0x8a, 0x8b, 0x8e} {
			h.want(c.want, rw16(code, 0, c.lba, c.blocks), fill(1, int(min(c.blocks, 8))), 512)
		}
	}
}

func TestProtectionInformationIsRefused(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	for _, code := range []byte{0x28, 0x2a, 0x2e, 0x2f, 0x41, 0xa8, 0xaa, 0xae, 0xaf, 0x88, 0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x93} {
		cdb := make([]byte, 16)
		cdb[0], cdb[1] = code, 0x20
		r := h.want("5/24/00", cdb, nil, 0)
		if want := []byte{0xcf, 0, 1}; !bytes.Equal(r.sense[15:18], want) {
			t.Errorf("%02x: field pointer % x, want % x", code, r.sense[15:18], want)
		}
	}
}

func TestReadIsCutAtWhatTheInitiatorTakes(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{})
	h.write(0, fill(9, 4))
	for _, in := range []int{0, 1, 511, 512, 513, 2048, 4096} {
		r := h.want(good, rw16(0x88, 0, 0, 4), nil, in)
		if n := min(in, 2048); r.inLength != 2048 || !bytes.Equal(r.data, fill(9, 4)[:n]) {
			t.Errorf("initiator takes %d: got %d bytes of %d", in, len(r.data), r.inLength)
		}
	}
	if c := lu.Counters(); c.Reads != 7 || c.Writes != 1 || c.WrittenBytes != 2048 || c.ReadBytes != 1+511+512+513+2048+2048 {
		t.Errorf("counters: %+v", c)
	}
	if c := h.n.Counters(); c != lu.Counters() {
		t.Errorf("nexus counters: %+v", c)
	}
}

func TestShortWriteWritesWholeBlocks(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.write(0, fill(1, 4))
	h.want(good, rw16(0x8a, 0, 0, 4), fill(2, 4)[:1300], 0)
	if got, want := h.read(0, 4), slices.Concat(fill(2, 2), fill(1, 2)); !bytes.Equal(got, want) {
		t.Error("not exactly the two whole blocks that came were written")
	}
}

func TestFUAAndTheCacheBitDecideDurability(t *testing.T) {
	for _, c := range []struct {
		cache bool
		fua   byte
		want  storagetest.Op
	}{
		{true, 0, storagetest.Write},
		{true, 8, storagetest.WriteDurable},
		{false, 0, storagetest.WriteDurable},
		{false, 8, storagetest.WriteDurable},
	} {
		h, _, store := faulty(t, scsi.LogicalUnitOptions{UnitOptions: scsi.UnitOptions{WriteCache: &c.cache}})
		h.want(good, rw10(0x2a, c.fua, 0, 1), fill(1, 1), 0)
		if calls := store.Calls(storagetest.Write, storagetest.WriteDurable); len(calls) != 1 || calls[0].Op != c.want {
			t.Errorf("cache %t, FUA %d: %v", c.cache, c.fua, calls)
		}
	}
}

func TestReadWithFUAFlushesFirst(t *testing.T) {
	h, _, store := faulty(t, scsi.LogicalUnitOptions{})
	h.want(good, rw10(0x28, 8, 0, 1), nil, 512)
	if calls := store.Calls(); len(calls) != 2 || calls[0].Op != storagetest.Flush || calls[1].Op != storagetest.Read {
		t.Errorf("calls: %v", calls)
	}
}

// bare is a store without any ability beyond the interface.
type bare struct{ storage.Store }

func TestStoreWithoutAbilities(t *testing.T) {
	under := storagetest.NewFaultStore(storagetest.NewRAM(1 << 20))
	h, _ := newHost(t, scsi.LogicalUnitOptions{Store: bare{under}, UnitOptions: scsi.UnitOptions{WriteCache: new(false)}})
	h.want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	if calls := under.Calls(storagetest.Write, storagetest.Flush); len(calls) != 2 || calls[1].Op != storagetest.Flush {
		t.Errorf("durable write without a DurableWriter: %v", calls)
	}
	h.want(good, rw10(0x41, 0, 0, 2), fill(0, 1), 0) // zeros, written one by one
	if got := h.read(0, 1); !bytes.Equal(got, fill(0, 1)) {
		t.Error("WRITE SAME of zeros left something")
	}
	h.want("5/20/00", []byte{0x42, 9: 0}, nil, 0)
	h.want("5/24/00", rw16(0x93, 8, 0, 1), fill(0, 1), 0)
	r := h.want(good, append([]byte{0x9e, 0x12}, make([]byte, 14)...), nil, 0)
	if r.inLength != 0 {
		t.Errorf("allocation length 0, but %d bytes", r.inLength)
	}
	if b2 := h.want(good, []byte{0x12, 1, 0xb2, 0, 255, 0}, nil, 255).data; b2[5] != 0 || b2[6] != 0 {
		t.Errorf("provisioning page of a plain store: % x", b2)
	}
}

func TestReadCapacity(t *testing.T) {
	const tib = 1 << 40
	for _, c := range []struct {
		size, block int
		last10      uint32
		last16      uint64
	}{
		{1 << 20, 512, 2047, 2047},
		{1 << 20, 4096, 255, 255},
		{2 * tib, 512, 1<<32 - 1, 1<<32 - 1},
		{3 * tib, 512, 1<<32 - 1, 3*tib/512 - 1},
		{1<<20 + 100, 512, 2047, 2047},
	} {
		h, _ := newHost(t, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(int64(c.size)), BlockOptions: storage.BlockOptions{BlockSize: c.block},
			UnitOptions: scsi.UnitOptions{PhysicalBlockExponent: new(3), LowestAlignedLBA: 5}})
		b := h.want(good, []byte{0x25, 9: 0}, nil, 8).data
		if last, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]); last != c.last10 || int(n) != c.block {
			t.Errorf("%+v: (10) says %d, %d", c, last, n)
		}
		b = h.want(good, []byte{0x9e, 0x10, 13: 32, 15: 0}, nil, 32).data
		if last, n := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]); last != c.last16 || int(n) != c.block {
			t.Errorf("%+v: (16) says %d, %d", c, last, n)
		}
		if !bytes.Equal(b[12:16], []byte{0, 3, 0xc0, 5}) {
			t.Errorf("%+v: (16) bytes 12 to 15 % x", c, b[12:16])
		}
	}
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.want("5/24/00", []byte{0x25, 0, 0, 0, 0, 1, 9: 0}, nil, 8)
	h.want(good, []byte{0x25, 0, 0, 0, 0, 1, 8: 1, 9: 0}, nil, 8)
	h.want("5/24/00", []byte{0x9e, 0x10, 9: 1, 13: 32, 15: 0}, nil, 32)
	h.want("5/24/00", []byte{0x9e, 0x11, 15: 0}, nil, 32)
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	data := fill(1, 8)
	for _, cdb := range [][]byte{rw10(0x28, 0, 8, 8), rw16(0x88, 0, 8, 8), rw10(0x2a, 0, 8, 8), rw16(0x8a, 0, 8, 8)} {
		n := testing.AllocsPerRun(200, func() { h.once(cdb, data) })
		if n != 0 {
			t.Errorf("% x: %v allocations", cdb, n)
		}
	}
}

// once carries out a command that is not to block nor to fail.
func (h *host) once(cdb, out []byte) {
	c := &h.cmd
	h.prepare(c, cdb, len(out), len(out))
	if c.Direction == scsi.DataOut {
		c.Out = out
	}
	if !h.n.TryExecute(c) || c.Status != scsi.Good {
		h.t.Fatalf("% x: blocked, or status %02x", cdb, uint8(c.Status))
	}
	c.In.Release()
}

func BenchmarkRead4K(b *testing.B) {
	h, _ := newHost(b, scsi.LogicalUnitOptions{})
	cdb, data := rw10(0x28, 0, 8, 8), fill(1, 8)
	b.ReportAllocs()
	for b.Loop() {
		h.once(cdb, data)
	}
}

func BenchmarkWrite4K(b *testing.B) {
	h, _ := newHost(b, scsi.LogicalUnitOptions{})
	cdb, data := rw10(0x2a, 0, 8, 8), fill(1, 8)
	b.ReportAllocs()
	for b.Loop() {
		h.once(cdb, data)
	}
}
