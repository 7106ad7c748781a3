// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

func TestVerify(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	data := slices.Concat(fill(1, 1), fill(2, 1), fill(3, 1))
	h.write(10, data)
	wrong := bytes.Clone(data)
	wrong[512+7] ^= 1
	h.want(good, rw10(0x2f, 0, 10, 3), nil, 0)
	h.want(good, rw10(0x2f, 0, 10, 3), wrong, 0) // BYTCHK 0 compares nothing
	h.want(good, rw10(0x2f, 2, 10, 3), data, 0)
	r := h.want("e/1d/00", rw10(0x2f, 2, 10, 3), wrong, 0)
	if lba, ok := r.info(); !ok || lba != 11 {
		t.Errorf("miscompare at LBA %d (%t), want 11", lba, ok)
	}
	h.want("e/1d/00", rw16(0x8f, 2, 10, 3), wrong, 0)
	h.want("5/24/00", rw10(0x2f, 4, 10, 3), data, 0) // BYTCHK 2 is reserved
	h.want("5/21/00", rw10(0x2f, 0, 2047, 2), nil, 0)
	h.want(good, rw10(0x2f, 2, 10, 0), nil, 0)

	h.write(20, fill(5, 600)) // more than is looked at in one step
	h.want(good, rw16(0x8f, 6, 20, 600), fill(5, 1), 0)
	h.want("5/24/00", rw16(0x8f, 6, 20, 600), fill(5, 2), 0)
	h.want("5/24/00", rw16(0x8f, 6, 20, 600), fill(5, 1)[:100], 0)
	odd := fill(5, 1)
	odd[511] = 6
	h.write(619, odd)
	r = h.want("e/1d/00", rw16(0x8f, 6, 20, 600), fill(5, 1), 0)
	if lba, _ := r.info(); lba != 619 {
		t.Errorf("miscompare at LBA %d, want 619", lba)
	}
	h.want(good, rw16(0x8f, 2, 20, 600), slices.Concat(fill(5, 599), odd), 0)
}

func TestWriteAndVerify(t *testing.T) {
	h, _, store := faulty(t, scsi.LogicalUnitOptions{})
	h.want(good, rw10(0x2e, 2, 4, 2), fill(8, 2), 0)
	ops := store.Calls(storagetest.WriteDurable, storagetest.Read)
	if len(ops) != 2 || ops[0].Op != storagetest.WriteDurable {
		t.Errorf("calls: %v", ops)
	}
	if got := h.read(4, 2); !bytes.Equal(got, fill(8, 2)) {
		t.Error("not written")
	}
	h.want(good, rw10(0x2e, 0, 4, 2), fill(9, 2), 0)
	h.want("5/24/00", rw10(0x2e, 6, 4, 2), fill(9, 2), 0)
}

func TestPrefetch(t *testing.T) {
	h, _, store := faulty(t, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(1 << 20)})
	const met = "04"
	h.want(met, rw10(0x34, 0, 5, 3), nil, 0)
	if calls := store.Calls(storagetest.Read); len(calls) != 1 || calls[0].Off != 5*512 || calls[0].Len != 3*512 {
		t.Errorf("calls: %v", calls)
	}
	h.want(met, rw10(0x34, 2, 5, 3), nil, 0)
	h.want(met, rw16(0x90, 0, 5, 0), nil, 0)
	h.want("5/21/00", rw16(0x90, 0, 2047, 2), nil, 0)
	big, _ := newHost(t, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(64 << 20)})
	big.want(good, rw16(0x90, 0, 0, 0), nil, 0) // more than the cache is asked to take
	big.want("5/24/00", rw16(0x90, 0, 0, scsi.MaxTransfer/512+1), nil, 0)
}

// compareAndWrite is a COMPARE AND WRITE with its data-out.
func compareAndWrite(lba uint64, compare, write []byte) (cdb, out []byte) {
	cdb = rw16(0x89, 0, lba, 0)
	cdb[13] = byte(len(write) / 512)
	return cdb, slices.Concat(compare, write)
}

func TestCompareAndWrite(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.write(3, fill(1, 2))
	cdb, out := compareAndWrite(3, fill(1, 2), fill(2, 2))
	h.want(good, cdb, out, 0)
	r := h.want("e/1d/00", cdb, out, 0)
	if at, ok := r.info(); !ok || at != 0 {
		t.Errorf("first difference at %d (%t), want 0", at, ok)
	}
	if got := h.read(3, 2); !bytes.Equal(got, fill(2, 2)) {
		t.Error("a miscompare changed the blocks")
	}
	almost := fill(2, 2)
	almost[700] = 0
	cdb, out = compareAndWrite(3, almost, fill(3, 2))
	if at, _ := h.want("e/1d/00", cdb, out, 0).info(); at != 700 {
		t.Errorf("first difference at %d, want 700", at)
	}
	h.want("5/24/00", cdb, out[:1024], 0)
	h.want("5/24/00", cdb, append(out, out...), 0)
	cdb, out = compareAndWrite(0, nil, nil)
	h.want(good, cdb, out, 0)
	cdb, out = compareAndWrite(2047, fill(0, 2), fill(1, 2))
	h.want("5/21/00", cdb, out, 0)
	cdb = rw16(0x89, 0, 0, 0)
	cdb[13] = 255
	h.want("5/24/00", cdb, nil, 0)
}

func TestCompareAndWriteIsAtomic(t *testing.T) {
	const hosts, rounds = 4, 50
	d := newDevice(t, scsi.DeviceOptions{})
	attach(t, d, 1, scsi.LogicalUnitOptions{})
	var wg sync.WaitGroup
	for i := range hosts {
		h := openHost(t, d, string(rune('a'+i))).settle()
		wg.Go(func() {
			for done := 0; done < rounds; {
				old := h.do(rw16(0x88, 0, 0, 1), nil, 512).data
				if len(old) != 512 {
					t.Error("can't read")
					return
				}
				next := bytes.Clone(old)
				binary.BigEndian.PutUint64(next, binary.BigEndian.Uint64(old)+1)
				cdb, out := compareAndWrite(0, old, next)
				if r := h.do(cdb, out, 0); r.status == scsi.Good {
					done++
				}
			}
		})
	}
	wg.Wait()
	h := openHost(t, d, "z").settle()
	if n := binary.BigEndian.Uint64(h.read(0, 1)); n != hosts*rounds {
		t.Errorf("counted to %d, want %d", n, hosts*rounds)
	}
}

func TestOrWrite(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.write(3, fill(0x0f, 2))
	h.want(good, rw16(0x8b, 0, 3, 2), fill(0x31, 2), 0)
	if got := h.read(3, 2); !bytes.Equal(got, fill(0x3f, 2)) {
		t.Errorf("got %02x, want 3f", got[0])
	}
	h.want(good, rw16(0x8b, 0, 3, 0), nil, 0)
}

// unmapList is an UNMAP parameter list.
func unmapList(extents ...[2]uint64) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, uint16(6+16*len(extents)))
	binary.BigEndian.PutUint16(b[2:], uint16(16*len(extents)))
	for _, e := range extents {
		b = binary.BigEndian.AppendUint64(b, e[0])
		b = binary.BigEndian.AppendUint32(b, uint32(e[1]))
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func unmapCDB(n int) []byte { return []byte{0x42, 0, 0, 0, 0, 0, 0, byte(n >> 8), byte(n), 0} }

func TestUnmap(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.write(0, fill(1, 64))
	unmap := func(want string, list []byte) {
		t.Helper()
		h.want(want, unmapCDB(len(list)), list, 0)
	}
	unmap("5/21/00", unmapList([2]uint64{0, 8}, [2]uint64{2047, 2}))
	unmap("5/21/00", unmapList([2]uint64{1<<64 - 1, 1}))
	unmap("5/26/00", unmapList(slices.Repeat([][2]uint64{{0, 1}}, 257)...))
	if got := h.read(0, 64); !bytes.Equal(got, fill(1, 64)) {
		t.Fatal("a refused UNMAP changed something")
	}
	unmap(good, nil)
	unmap("5/1a/00", unmapList()[:4])
	unmap("5/1a/00", unmapList([2]uint64{0, 8})[:20])
	unmap(good, unmapList())
	unmap(good, unmapList([2]uint64{8, 8}, [2]uint64{5, 0}, [2]uint64{33, 1}))
	want := fill(1, 64)
	clear(want[8*512 : 16*512])
	clear(want[33*512 : 34*512])
	if got := h.read(0, 64); !bytes.Equal(got, want) {
		t.Error("not exactly the blocks named were freed")
	}
	h.want("5/24/00", []byte{0x42, 1, 8: 0, 9: 0}, nil, 0) // ANCHOR
	huge, _ := newHost(t, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(4 << 30)})
	list := unmapList([2]uint64{0, 1 << 20}, [2]uint64{1 << 20, 1})
	huge.want("5/26/00", unmapCDB(len(list)), list, 0)
}

func TestWriteSame(t *testing.T) {
	for _, thin := range []bool{false, true} {
		h, _ := newHost(t, scsi.LogicalUnitOptions{Store: storagetest.NewRAM(32 << 20), BlockOptions: storage.BlockOptions{Thin: &thin}})
		h.write(0, fill(1, 32))
		h.want(good, rw10(0x41, 0, 4, 2), fill(7, 1), 0)
		h.want(good, rw16(0x93, 1, 8, 2), nil, 0) // NDOB
		h.want(good, rw16(0x93, 0, 12, 2), fill(0, 1), 0)
		want := fill(1, 32)
		copy(want[4*512:], fill(7, 2))
		copy(want[8*512:], fill(0, 2))
		copy(want[12*512:], fill(0, 2))
		if thin {
			h.want(good, rw16(0x93, 8, 16, 2), fill(0, 1), 0)
			h.want(good, rw16(0x93, 9, 20, 2), nil, 0)
			h.want(good, rw16(0x93, 8, 24, 2), fill(9, 1), 0) // not zeros: written
			copy(want[16*512:], fill(0, 2))
			copy(want[20*512:], fill(0, 2))
			copy(want[24*512:], fill(9, 2))
		} else {
			h.want("5/24/00", rw16(0x93, 8, 16, 2), fill(0, 1), 0)
		}
		if got := h.read(0, 32); !bytes.Equal(got, want) {
			t.Errorf("thin %t: not exactly what was to be written was", thin)
		}
		h.want("5/24/00", rw16(0x93, 0x18, 16, 2), fill(0, 1), 0) // ANCHOR
		h.want("5/24/00", rw16(0x93, 0, 0, 0), fill(0, 1), 0)
		h.want("5/24/00", rw16(0x93, 0, 0, 16<<20/512+1), fill(0, 1), 0)
		h.want("5/21/00", rw16(0x93, 0, 65535, 2), fill(0, 1), 0)
		h.want("5/24/00", rw16(0x93, 0, 0, 1), fill(0, 2), 0)
		h.want("5/24/00", rw16(0x93, 0, 0, 1), fill(0, 1)[:256], 0)
		h.want(good, rw16(0x93, 0, 1000, 1201), fill(6, 1), 0) // more than one step
		if got := h.read(1000, 1201); !bytes.Equal(got, fill(6, 1201)) {
			t.Errorf("thin %t: WRITE SAME of many blocks", thin)
		}
	}
}

func TestGetLBAStatus(t *testing.T) {
	h, _ := newHost(t, scsi.LogicalUnitOptions{})
	h.write(8, fill(1, 8))
	h.write(64, fill(1, 8))
	status := func(lba uint64, allocation int) []byte {
		t.Helper()
		cdb := rw16(0x9e, 0x12, lba, uint32(allocation))
		return h.want(good, cdb, nil, allocation).data
	}
	type run struct{ lba, blocks, status uint64 }
	var got []run
	b := status(2, 1000)
	if n := binary.BigEndian.Uint32(b); int(n) != len(b)-4 {
		t.Fatalf("parameter data length %d of %d bytes", n, len(b))
	}
	for d := range slices.Chunk(b[8:], 16) {
		got = append(got, run{binary.BigEndian.Uint64(d), uint64(binary.BigEndian.Uint32(d[8:])), uint64(d[12])})
	}
	want := []run{{2, 6, 1}, {8, 8, 0}, {16, 48, 1}, {64, 8, 0}, {72, 2048 - 72, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if b := status(9, 24); len(b) != 24 || binary.BigEndian.Uint64(b[8:]) != 9 || b[20] != 0 {
		t.Errorf("status from 9: % x", b)
	}
	h.want("5/21/00", rw16(0x9e, 0x12, 2048, 24), nil, 24)
	h.want("5/21/00", rw16(0x9e, 0x12, 1<<64-1, 24), nil, 24)
}

// TestOrWriteInPieces: an ORWRITE that takes several pieces is one to who looks, and one that fails says at which
// block.
func TestOrWriteInPieces(t *testing.T) {
	const blocks = 2<<20/512 + 3
	for _, cache := range []bool{true, false} {
		store := storagetest.NewFaultStore(storagetest.NewRAM(4 << 20))
		h, _ := newHost(t, scsi.LogicalUnitOptions{Store: store, UnitOptions: scsi.UnitOptions{WriteCache: &cache}})
		before, data, want := make([]byte, blocks*512), make([]byte, blocks*512), make([]byte, blocks*512)
		for i := range before {
			before[i], data[i] = byte(i*7)^byte(i>>9), byte(i*13)^byte(i>>11)
			want[i] = before[i] | data[i]
		}
		h.want(good, rw16(0x8a, 0, 1, blocks), before, 0)
		h.want(good, rw16(0x8b, 0, 1, blocks), data, 0)
		if got := h.read(1, blocks); !bytes.Equal(got, want) {
			t.Errorf("cache %v: the blocks are not what they were or data-out", cache)
		}
		for _, op := range []storagetest.Op{storagetest.Read, storagetest.Write} {
			store.Inject(storagetest.Fault{Op: op, Off: 2 << 20, Len: 512, Err: syscall.EIO})
			r := h.do(rw16(0x8b, 0, 1, blocks), data, 0)
			if lba, valid := r.info(); !valid || lba < 2048 || lba > 4096 {
				t.Errorf("cache %v, %s: %v at block %d", cache, op, r, lba)
			}
			store.Heal()
		}
	}
}
