// SPDX-License-Identifier: Apache-2.0

package storagetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/bits"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
)

// block is the unit in which the suite works: what a logical unit asks of its
// store is made of whole logical blocks, and this is the smallest.
const block = 512

// MinSize is the size in bytes that a store under test must have.
const MinSize = 1 << 20

// A subtest gets a store of its own.
type subtest struct {
	name string
	run  func(*testing.T, storage.Store)
}

// TestStore checks that a store does what its interface promises. open returns
// a writable store of MinSize bytes or more, whose content does not matter and
// which no other caller has; TestStore calls it often and closes what it gets.
// Optional interfaces are tested where the store has them.
func TestStore(t *testing.T, open func() storage.Store) {
	TestInterface(t, open)
	runAll(t, open, []subtest{
		{"ReadBack", testReadBack},
		{"Refusals", testRefusals},
		{"Durable", testDurable},
		{"TryRead", testTryRead},
		{"TryWrite", testTryWrite},
		{"Discard", testDiscard},
		{"WriteZeroes", testWriteZeroes},
		{"Extents", testExtents},
		{"Concurrent", testConcurrent},
	})
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
}

// TestInterface is the part of [TestStore] that a store passes too which does not keep what is
// written, such as one that reads as zeros.
func TestInterface(t *testing.T, open func() storage.Store) {
	runAll(t, open, []subtest{
		{"Info", testInfo},
		{"Transfers", testTransfers},
		{"Bounds", testBounds},
		{"Refresh", testRefresh},
	})
}

func runAll(t *testing.T, open func() storage.Store, tests []subtest) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := open()
			test.run(t, s)
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

func testInfo(t *testing.T, s storage.Store) {
	info := s.Info()
	if info.Type == "" {
		t.Error("no type")
	}
	if info.Size < MinSize || info.Size%block != 0 {
		t.Errorf("size is %d, want whole blocks and at least %d", info.Size, MinSize)
	}
	if info.ReadOnly {
		t.Error("is read-only, the suite needs to write")
	}
	g := info.Granularity
	if g < 0 || bits.OnesCount64(uint64(g)) > 1 {
		t.Errorf("granularity is %d, want a power of two or 0", g)
	}
	if g > 0 && storage.Can(s).Discarder == nil {
		t.Errorf("granularity is %d but the store can't discard", g)
	}
}

func testReadBack(t *testing.T, s storage.Store) {
	for i, n := range []int{block, 4096, 9 * block, 64 << 10, 512<<10 + block} {
		for _, off := range []int64{0, block, 4096, 7 * block, s.Info().Size - int64(n)} {
			want := pattern(n, uint64(i)<<32|uint64(off))
			write(t, s, want, off)
			check(t, s, want, off)
		}
	}
	// A transport's buffers may begin anywhere.
	want := pattern(3*block, 99)
	odd := append(make([]byte, 1, 1+len(want)), want...)[1:]
	write(t, s, odd, 5*block)
	got := make([]byte, 1+len(want))[1:]
	if _, err := s.ReadAt(t.Context(), got, 5*block); err != nil || !bytes.Equal(got, want) {
		t.Errorf("an odd buffer reads back other bytes (error %v)", err)
	}
	write(t, s, nil, 0)
	check(t, s, nil, s.Info().Size)
}

// testTransfers checks that whatever lies within the store is moved in whole.
func testTransfers(t *testing.T, s storage.Store) {
	size := s.Info().Size
	for _, n := range []int{0, block, 64 << 10, 512<<10 + block} {
		for _, off := range []int64{0, block, size - int64(n)} {
			p := pattern(n, uint64(off))
			write(t, s, p, off)
			if got, err := s.ReadAt(t.Context(), p, off); got != n || err != nil {
				t.Errorf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
			}
		}
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Errorf("Flush: %v", err)
	}
}

// testRefusals checks that what is refused changes nothing.
func testRefusals(t *testing.T, s storage.Store) {
	off := s.Info().Size - block
	last := pattern(block, 1)
	write(t, s, last, off)
	testBounds(t, s)
	check(t, s, last, off)
}

// testBounds checks that what does not lie in whole within the store is refused.
func testBounds(t *testing.T, s storage.Store) {
	size := s.Info().Size
	for _, off := range []int64{size, size - block, size + 1<<20, math.MaxInt64 - block, -block} {
		p := pattern(2*block, 2)
		if _, err := s.ReadAt(t.Context(), p, off); err == nil {
			t.Errorf("reading at %d of %d bytes succeeds", off, size)
		} else if off >= 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading at %d of %d bytes: %v, want unexpected EOF", off, size, err)
		}
		if _, err := s.WriteAt(t.Context(), p, off); err == nil {
			t.Errorf("writing at %d of %d bytes succeeds", off, size)
		}
		if d := storage.Can(s).Discarder; d != nil && d.Discard(t.Context(), off, 2*block) == nil {
			t.Errorf("discarding at %d of %d bytes succeeds", off, size)
		}
		if z := storage.Can(s).Zeroer; z != nil && z.WriteZeroes(t.Context(), off, 2*block) == nil {
			t.Errorf("zeroing at %d of %d bytes succeeds", off, size)
		}
		if d := storage.Can(s).DurableWriter; d != nil {
			if _, err := d.WriteDurableAt(t.Context(), p, off); err == nil {
				t.Errorf("writing durably at %d of %d bytes succeeds", off, size)
			}
		}
	}
	if now := s.Info().Size; now != size {
		t.Errorf("size went from %d to %d", size, now)
	}
}

func testDurable(t *testing.T, s storage.Store) {
	want := pattern(8192, 1)
	write(t, s, want, 4096)
	if err := s.Flush(t.Context()); err != nil {
		t.Errorf("Flush: %v", err)
	}
	check(t, s, want, 4096)
	d := storage.Can(s).DurableWriter
	if d == nil {
		return
	}
	want = pattern(8192, 2)
	if n, err := d.WriteDurableAt(t.Context(), want, 8192); n != len(want) || err != nil {
		t.Errorf("WriteDurableAt = %d, %v, want %d", n, err, len(want))
	}
	check(t, s, want, 8192)
}

func testTryRead(t *testing.T, s storage.Store) {
	try := storage.Can(s).TryReader
	if try == nil {
		return
	}
	want := pattern(64<<10, 1)
	write(t, s, want, 0)
	got := make([]byte, len(want))
	switch n, err := try.TryReadAt(got, 0); {
	case err == nil && (n != len(got) || !bytes.Equal(got, want)):
		t.Errorf("TryReadAt returns %d bytes that are not those written", n)
	case err != nil && err != storage.ErrWouldBlock:
		t.Errorf("TryReadAt: %v, want no error or ErrWouldBlock", err)
	}
	if n, err := try.TryReadAt(got, s.Info().Size-block); err == nil {
		t.Errorf("TryReadAt past the end returns %d and no error", n)
	}
}

func testTryWrite(t *testing.T, s storage.Store) {
	try := storage.Can(s).TryWriter
	if try == nil {
		return
	}
	old, want := pattern(64<<10, 1), pattern(64<<10, 2)
	write(t, s, old, 0)
	n, err := try.TryWriteAt(want, 0)
	switch {
	case err == storage.ErrWouldBlock:
		want = old
	case n != len(want) || err != nil:
		t.Errorf("TryWriteAt = %d, %v, want %d or ErrWouldBlock", n, err, len(want))
	}
	check(t, s, want, 0)
	if n, err := try.TryWriteAt(want, s.Info().Size-block); err == nil {
		t.Errorf("TryWriteAt past the end returns %d and no error", n)
	}
}

func testDiscard(t *testing.T, s storage.Store) {
	if d := storage.Can(s).Discarder; d != nil {
		testZeroing(t, s, d.Discard)
	}
}

func testWriteZeroes(t *testing.T, s storage.Store) {
	if z := storage.Can(s).Zeroer; z != nil {
		testZeroing(t, s, z.WriteZeroes)
	}
}

// testZeroing checks that zero zeroes all of a range and nothing else.
func testZeroing(t *testing.T, s storage.Store, zero func(ctx context.Context, off, n int64) error) {
	size := s.Info().Size
	for _, r := range [][2]int64{
		{0, block}, {4096, 4096}, {block, 128 << 10}, {3 * block, 64<<10 + block},
		{size - 5*block, 5 * block}, {size - 512<<10, 512 << 10}, {block, 0},
	} {
		off, n := r[0], r[1]
		from, to := max(0, off-64<<10), min(size, off+n+64<<10)
		want := pattern(int(to-from), uint64(off))
		write(t, s, want, from)
		if err := zero(t.Context(), off, n); err != nil {
			t.Errorf("zeroing %d bytes at %d: %v", n, off, err)
			continue
		}
		clear(want[off-from:][:n])
		check(t, s, want, from)
	}
	if err := zero(t.Context(), 0, size); err != nil {
		t.Errorf("zeroing everything: %v", err)
	}
	check(t, s, make([]byte, MinSize), size-MinSize)
}

func testExtents(t *testing.T, s storage.Store) {
	m := storage.Can(s).Mapper
	if m == nil {
		return
	}
	size := s.Info().Size
	if d := storage.Can(s).Discarder; d != nil {
		if err := d.Discard(t.Context(), 0, size); err != nil {
			t.Fatalf("Discard: %v", err)
		}
	}
	written := []int64{0, 192 << 10, size/2 - size/2%block, size - block}
	for _, off := range written {
		write(t, s, pattern(block, uint64(off)), off)
	}
	for _, off := range written {
		if n, mapped, err := m.Extent(t.Context(), off); n < block || !mapped || err != nil {
			t.Errorf("Extent(%d), where there is data = %d, %v, %v", off, n, mapped, err)
		}
	}
	for off := int64(0); off < size; {
		n, mapped, err := m.Extent(t.Context(), off)
		if err != nil || n <= 0 || n > size-off || n%block != 0 {
			t.Fatalf("Extent(%d) of %d bytes = %d, %v, %v", off, size, n, mapped, err)
		}
		if !mapped {
			head := min(n, 1<<20)
			check(t, s, make([]byte, head), off)
			check(t, s, make([]byte, head), off+n-head)
		}
		off += n
	}
	for _, off := range []int64{-block, size, size + block} {
		if n, mapped, err := m.Extent(t.Context(), off); err == nil {
			t.Errorf("Extent(%d) of %d bytes = %d, %v and no error", off, size, n, mapped)
		}
	}
}

func testRefresh(t *testing.T, s storage.Store) {
	r := storage.Can(s).Refresher
	if r == nil {
		return
	}
	if size, err := r.Refresh(t.Context()); size != s.Info().Size || err != nil {
		t.Errorf("Refresh = %d, %v, want %d", size, err, s.Info().Size)
	}
}

// testConcurrent has several goroutines write and read blocks that lie
// between those of the others, while one flushes.
func testConcurrent(t *testing.T, s storage.Store) {
	const workers, rounds = 8, 100
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				off := int64(i%50*workers+w) * block
				want := pattern(block, uint64(i)<<32|uint64(w))
				if !write(t, s, want, off) || !check(t, s, want, off) {
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if err := s.Flush(t.Context()); err != nil {
				t.Errorf("Flush: %v", err)
			}
		}
	})
	wg.Wait()
	for w := range workers {
		for i := rounds - 50; i < rounds; i++ {
			check(t, s, pattern(block, uint64(i)<<32|uint64(w)), int64(i%50*workers+w)*block)
		}
	}
}

// reporter is the part of testing.T that rapid.T has too.
type reporter interface {
	Helper()
	Context() context.Context
	Errorf(format string, args ...any)
}

func write(t reporter, s storage.Store, p []byte, off int64) bool {
	t.Helper()
	n, err := s.WriteAt(t.Context(), p, off)
	if n != len(p) || err != nil {
		t.Errorf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
		return false
	}
	return true
}

func check(t reporter, s storage.Store, want []byte, off int64) bool {
	t.Helper()
	got := bytes.Repeat([]byte{0xee}, len(want))
	n, err := s.ReadAt(t.Context(), got, off)
	if n != len(want) || err != nil {
		t.Errorf("ReadAt(%d bytes, %d) = %d, %v", len(want), off, n, err)
		return false
	}
	if bytes.Equal(got, want) {
		return true
	}
	i := 0
	for got[i] == want[i] {
		i++
	}
	t.Errorf("ReadAt(%d bytes, %d): byte %d is %#02x, want %#02x", len(want), off, i, got[i], want[i])
	return false
}

// pattern returns n bytes that are other ones for each seed, and never zero.
func pattern(n int, seed uint64) []byte {
	r := rand.NewPCG(seed, seed)
	p := make([]byte, 0, n+8)
	for len(p) < n {
		p = binary.LittleEndian.AppendUint64(p, r.Uint64()|0x0101010101010101)
	}
	return p[:n]
}
