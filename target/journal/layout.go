// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/descriptor"
)

// The layout of the file, docs/crash.md has it as a table. Whoever changes it so that an older reader
// would misread it counts layoutNumber up; what an older reader must know, and can't see from that, is a feature bit.
const (
	magic         = "gotgtdJN"
	layoutNumber  = 1
	knownFeatures = 0 // bits

	pageSize = 4096

	// The header, in the first page.
	headerLen = 88  // the constant part, and its CRC behind it
	atEpoch   = 128 // word: how many processes have taken the journal

	// The control area.
	atLastSerial = pageSize       // word: of the last region that was opened
	atLastTSIH   = pageSize + 64  // word
	atCommitted  = pageSize + 128 // word: LSN of the last control transaction
	atApplied    = pageSize + 192 // word: LSN of the last one that is applied everywhere
	atRedo       = 2 * pageSize   // two copies
	redoSize     = 8 * pageSize
	redoHead     = 32
	atIndex      = atRedo + 2*redoSize

	maxRegions = 1 << 17 // of a kind
)

// A kind of region.
const (
	ofSession = iota
	ofConnection
	ofUnit
	kinds
)

var (
	kindName   = [kinds]string{"session", "connection", "logical unit"}
	regionSize = [kinds]int64{sessionSize, connectionSize, unitSize}
)

// geometry is how many regions a journal has, and where: it follows from the numbers alone.
type geometry struct {
	regions [kinds]uint32
	index   [kinds]int64 // offset of the words that say which regions are open
	first   [kinds]int64 // offset of the first region
	size    int64
}

func newGeometry(regions [kinds]uint32) (g geometry) {
	g.regions = regions
	at := int64(atIndex)
	for k, n := range regions {
		g.index[k] = at
		at += (int64(n)*8 + pageSize - 1) / pageSize * pageSize
	}
	for k, n := range regions {
		g.first[k] = at
		at += int64(n) * regionSize[k]
	}
	g.size = at
	return g
}

// region is the offset of a region; the first has number 1.
func (g *geometry) region(kind int, n uint32) int64 {
	return g.first[kind] + int64(n-1)*regionSize[kind]
}

// word is the offset of a region's word in the index.
func (g *geometry) word(kind int, n uint32) int64 { return g.index[kind] + int64(n-1)*8 }

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// header is the constant part of the first page.
type header struct {
	boot    [16]byte
	regions [kinds]uint32
	arena   uint64 // inode of the arena's file
	bytes   int64  // size of that
}

func (h *header) encode(p []byte) {
	copy(p, magic)
	le.PutUint32(p[8:], layoutNumber)
	le.PutUint32(p[12:], headerLen)
	le.PutUint64(p[16:], knownFeatures)
	copy(p[24:40], h.boot[:])
	for k, n := range h.regions {
		le.PutUint32(p[40+4*k:], n)
	}
	le.PutUint32(p[52:], pageSize)
	le.PutUint64(p[56:], h.arena)
	le.PutUint64(p[64:], uint64(h.bytes))
	le.PutUint32(p[headerLen:], crc32.Checksum(p[:headerLen], castagnoli))
}

// ErrForeign is the answer to a journal that this process can't read, though nothing is wrong with
// it: it is of another layout, or of another boot.
var ErrForeign = errors.New("the journal is not for this process")

func (h *header) decode(p []byte) error {
	switch {
	case string(p[:len(magic)]) != magic:
		return fmt.Errorf("journal: the file is no journal: it begins with %q", p[:len(magic)])
	case le.Uint32(p[8:]) != layoutNumber:
		return fmt.Errorf("journal: %w: its layout is %d, and %d is known: sessions must log in again", ErrForeign, le.Uint32(p[8:]), layoutNumber)
	case le.Uint32(p[12:]) != headerLen || le.Uint32(p[headerLen:]) != crc32.Checksum(p[:headerLen], castagnoli):
		return errors.New("journal: the header is damaged: its checksum is wrong")
	case le.Uint64(p[16:])&^knownFeatures != 0:
		return fmt.Errorf("journal: %w: it has features %#x, and %#x are known: sessions must log in again", ErrForeign, le.Uint64(p[16:]), knownFeatures)
	case le.Uint32(p[52:]) != pageSize:
		return fmt.Errorf("journal: the header is damaged: pages have %d bytes", le.Uint32(p[52:]))
	}
	copy(h.boot[:], p[24:])
	for k := range h.regions {
		h.regions[k] = le.Uint32(p[40+4*k:])
	}
	h.arena, h.bytes = le.Uint64(p[56:]), int64(le.Uint64(p[64:]))
	return h.check()
}

func (h *header) check() error {
	for k, n := range h.regions {
		if n < 1 || n > maxRegions {
			return fmt.Errorf("journal: it can't have %d regions of kind %s: 1 to %d", n, kindName[k], maxRegions)
		}
	}
	return nil
}

// of describes the process's boot and an arena.
func (h *header) of(arena *os.File) error {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return errors.New("journal: this processor is not little-endian: crash safety is not possible on it")
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("journal: can't tell this boot from others: %w", err)
	}
	text := bytes.ReplaceAll(bytes.TrimSpace(id), []byte("-"), nil)
	if len(text) != 2*len(h.boot) {
		return fmt.Errorf("journal: can't tell this boot from others: its ID is %q", id)
	}
	if _, err := hex.Decode(h.boot[:], text); err != nil {
		return fmt.Errorf("journal: can't tell this boot from others: its ID is %q: %w", id, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(descriptor.Number(arena), &st); err != nil {
		return fmt.Errorf("journal: the file of the arena: %w", err)
	}
	h.arena, h.bytes = st.Ino, st.Size
	return nil
}
