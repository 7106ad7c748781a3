// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

const modelBlocks = 256

// A model is a disk, and what its blocks should hold.
type model struct {
	*host
	want []byte
}

// extent draws a range, mostly but not always inside the disk.
func (m *model) extent(t *rapid.T) (lba uint64, n int, inside bool) {
	lba = rapid.Uint64Range(0, modelBlocks+1).Draw(t, "lba")
	n = rapid.IntRange(1, 40).Draw(t, "blocks")
	return lba, n, lba+uint64(n) <= modelBlocks
}

// change carries out a command, and changes the model if it is to succeed.
func (m *model) change(inside bool, cdb, out []byte, change func()) {
	if !inside {
		m.host.want("5/21/00", cdb, out, 0)
		return
	}
	m.host.want(good, cdb, out, 0)
	change()
}

func (m *model) at(lba uint64, n int) []byte { return m.want[lba*512:][:n*512] }

func (m *model) check(t *rapid.T) {
	if !bytes.Equal(m.read(0, modelBlocks), m.want) {
		t.Fatalf("the disk holds something else than the model")
	}
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": m.check,
		"write": func(t *rapid.T) {
			lba, n, ok := m.extent(t)
			data := fill(rapid.Byte().Draw(t, "byte"), n)
			m.change(ok, rw16(0x8a, byte(rapid.SampledFrom([]int{0, 8}).Draw(t, "fua")), lba, uint32(n)), data, func() { copy(m.at(lba, n), data) })
		},
		"orwrite": func(t *rapid.T) {
			lba, n, ok := m.extent(t)
			data := fill(rapid.Byte().Draw(t, "byte"), n)
			m.change(ok, rw16(0x8b, 0, lba, uint32(n)), data, func() {
				for i, p := 0, m.at(lba, n); i < len(p); i++ {
					p[i] |= data[i]
				}
			})
		},
		"write same": func(t *rapid.T) {
			lba, n, ok := m.extent(t)
			b := rapid.Byte().Draw(t, "byte") & 1
			flags := byte(rapid.SampledFrom([]int{0, 8}).Draw(t, "unmap"))
			m.change(ok, rw16(0x93, flags, lba, uint32(n)), fill(b, 1), func() { copy(m.at(lba, n), fill(b, n)) })
		},
		"unmap": func(t *rapid.T) {
			lba, n, ok := m.extent(t)
			list := unmapList([2]uint64{lba, uint64(n)})
			m.change(ok, unmapCDB(len(list)), list, func() { clear(m.at(lba, n)) })
		},
		"compare and write": func(t *rapid.T) {
			lba, n, ok := m.extent(t)
			data := fill(rapid.Byte().Draw(t, "byte"), n)
			compare := fill(0, n)
			if ok {
				compare = bytes.Clone(m.at(lba, n))
			}
			if ok && rapid.Bool().Draw(t, "differs") {
				at := rapid.IntRange(0, len(compare)-1).Draw(t, "at")
				compare[at] ^= 0x40
				cdb, out := compareAndWrite(lba, compare, data)
				if got, _ := m.host.want("e/1d/00", cdb, out, 0).info(); int(got) != at {
					t.Fatalf("differs at %d, reported at %d", at, got)
				}
				return
			}
			cdb, out := compareAndWrite(lba, compare, data)
			m.change(ok, cdb, out, func() { copy(m.at(lba, n), data) })
		},
		"verify": func(t *rapid.T) {
			lba, n, ok := m.extent(t)
			data := fill(0, n)
			if ok {
				data = m.at(lba, n)
			}
			m.change(ok, rw16(0x8f, 2, lba, uint32(n)), data, func() {})
		},
		"read": func(t *rapid.T) {
			lba, n, ok := m.extent(t)
			if ok && !bytes.Equal(m.read(lba, n), m.at(lba, n)) {
				t.Fatalf("read something else than the model holds")
			}
		},
	}
}

func TestDiskAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, _ := newHost(t, scsi.LogicalUnitOptions{
			Store: storagetest.NewRAM(modelBlocks * 512), UnitOptions: scsi.UnitOptions{WriteCache: new(rapid.Bool().Draw(t, "cache"))},
		})
		m := &model{host: h, want: make([]byte, modelBlocks*512)}
		t.Repeat(m.actions())
	})
}
