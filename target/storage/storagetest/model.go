// SPDX-License-Identifier: Apache-2.0

package storagetest

import (
	"bytes"
	"context"
	"testing"

	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/storage"
)

// modelSize is how many bytes at a store's end the model has.
const modelSize = 256 << 10

// testModel does random operations on the end of a store and on a byte slice,
// and expects the same of both.
func testModel(t *testing.T, open func() storage.Store) {
	rapid.Check(t, func(t *rapid.T) {
		s := open()
		defer s.Close()
		m := &model{s: s, base: s.Info().Size - modelSize, want: make([]byte, modelSize)}
		if _, err := s.ReadAt(t.Context(), m.want, m.base); err != nil {
			t.Fatalf("ReadAt: %v", err)
		}
		t.Repeat(m.actions())
		check(t, s, m.want, m.base)
	})
}

// model is a store and what its last bytes have to be.
type model struct {
	s    storage.Store
	base int64
	want []byte
}

// actions are the operations that the store has.
func (m *model) actions() map[string]func(*rapid.T) {
	a := map[string]func(*rapid.T){
		"write": func(t *rapid.T) { m.write(t, m.s.WriteAt) },
		"read": func(t *rapid.T) {
			off, n := m.draw(t)
			check(t, m.s, m.want[off:][:n], m.base+off)
		},
		"flush": func(t *rapid.T) {
			if err := m.s.Flush(t.Context()); err != nil {
				t.Errorf("Flush: %v", err)
			}
		},
	}
	if d := storage.Can(m.s).DurableWriter; d != nil {
		a["write durably"] = func(t *rapid.T) { m.write(t, d.WriteDurableAt) }
	}
	if d := storage.Can(m.s).Discarder; d != nil {
		a["discard"] = func(t *rapid.T) { m.zero(t, d.Discard) }
	}
	if z := storage.Can(m.s).Zeroer; z != nil {
		a["zero"] = func(t *rapid.T) { m.zero(t, z.WriteZeroes) }
	}
	if x := storage.Can(m.s).Mapper; x != nil {
		a["map"] = func(t *rapid.T) { m.extent(t, x) }
	}
	return a
}

// draw chooses a range of whole blocks; small ones and ends are likely.
func (m *model) draw(t *rapid.T) (off, n int64) {
	blocks := len(m.want) / block
	n = int64(rapid.IntRange(0, 64).Draw(t, "blocks"))
	off = int64(rapid.IntRange(0, blocks-int(n)).Draw(t, "first"))
	return off * block, n * block
}

func (m *model) write(t *rapid.T, write func(context.Context, []byte, int64) (int, error)) {
	off, n := m.draw(t)
	p := pattern(int(n), rapid.Uint64().Draw(t, "seed"))
	if done, err := write(t.Context(), p, m.base+off); done != len(p) || err != nil {
		t.Fatalf("writing %d bytes at %d: %d, %v", n, off, done, err)
	}
	copy(m.want[off:], p)
}

func (m *model) zero(t *rapid.T, zero func(ctx context.Context, off, n int64) error) {
	off, n := m.draw(t)
	if err := zero(t.Context(), m.base+off, n); err != nil {
		t.Fatalf("zeroing %d bytes at %d: %v", n, off, err)
	}
	clear(m.want[off:][:n])
}

// extent checks that what is not mapped is zero in the model too.
func (m *model) extent(t *rapid.T, x storage.Mapper) {
	off := int64(rapid.IntRange(0, len(m.want)/block-1).Draw(t, "first")) * block
	n, mapped, err := x.Extent(t.Context(), m.base+off)
	if err != nil || n <= 0 || n > int64(len(m.want))-off {
		t.Fatalf("Extent(%d) = %d, %v, %v", off, n, mapped, err)
	}
	if !mapped && !bytes.Equal(m.want[off:][:n], make([]byte, n)) {
		t.Fatalf("Extent(%d) says that %d bytes are not mapped, but there is data", off, n)
	}
}
