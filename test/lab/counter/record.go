// SPDX-License-Identifier: Apache-2.0

// Package counter is the work of the lab's Xen guest and its proof: an
// increasing counter written to a disk past every cache, each number once, in a
// record with a checksum, and the check afterwards that none is missing, none is
// damaged and none has come back.
package counter

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// RecordSize is the size of a record on the disk, in bytes. It suits O_DIRECT on
// every block device.
const RecordSize = 4096

// magic begins a record; its end is the layout's version.
const magic = "gotgtd\x00\x01"

// A record is magic, number, run, written and slowest, then bytes that follow
// from the number, then the SHA-256 of all that. Numbers are big-endian.
const (
	numberAt  = len(magic)
	runAt     = numberAt + 8
	writtenAt = runAt + 16
	slowestAt = writtenAt + 8
	fillAt    = slowestAt + 8
	sumAt     = RecordSize - sha256.Size
)

// Record is one number of the counter.
type Record struct {
	// Number counts from 1. Number n is in slot n; slot 0, the head, has the
	// number that was written last and is written anew for each.
	Number uint64
	// Run tells one start of the writer from another.
	Run [16]byte
	// Written is when the record was made, by the writer's monotonic clock,
	// since its start.
	Written time.Duration
	// Slowest is the longest of the reads and writes that the number before
	// this one took, by the same clock.
	Slowest time.Duration
}

// errEmpty is a slot in which nothing has been written.
var errEmpty = errors.New("empty")

// encode writes the record into p, which has RecordSize bytes.
func (r Record) encode(p []byte) {
	copy(p, magic)
	binary.BigEndian.PutUint64(p[numberAt:], r.Number)
	copy(p[runAt:], r.Run[:])
	binary.BigEndian.PutUint64(p[writtenAt:], uint64(r.Written))
	binary.BigEndian.PutUint64(p[slowestAt:], uint64(r.Slowest))
	fill(p[fillAt:sumAt], r.Number)
	sum := sha256.Sum256(p[:sumAt])
	copy(p[sumAt:], sum[:])
}

// decode reads a record. It returns errEmpty if p is all zeros.
func decode(p []byte) (Record, error) {
	var r Record
	if len(p) != RecordSize {
		return r, fmt.Errorf("%d bytes, not a record's %d", len(p), RecordSize)
	}
	if !bytes.HasPrefix(p, []byte(magic)) {
		if zero(p) {
			return r, errEmpty
		}
		return r, fmt.Errorf("no record: it begins with %x", p[:len(magic)])
	}
	if sum := sha256.Sum256(p[:sumAt]); !bytes.Equal(p[sumAt:], sum[:]) {
		return r, fmt.Errorf("wrong checksum in what says to be number %d", binary.BigEndian.Uint64(p[numberAt:]))
	}
	r.Number = binary.BigEndian.Uint64(p[numberAt:])
	copy(r.Run[:], p[runAt:])
	r.Written = time.Duration(binary.BigEndian.Uint64(p[writtenAt:]))
	r.Slowest = time.Duration(binary.BigEndian.Uint64(p[slowestAt:]))
	return r, nil
}

// fill makes bytes that differ from number to number, so that no part of a
// record is like that of another.
func fill(p []byte, seed uint64) {
	x := seed*2 + 1
	for ; len(p) >= 8; p = p[8:] {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.BigEndian.PutUint64(p, x)
	}
}

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// aligned returns n bytes at an address that O_DIRECT takes.
func aligned(n int) []byte {
	p := make([]byte, n+RecordSize)
	off := int(-uintptr(unsafe.Pointer(&p[0])) & (RecordSize - 1))
	return p[off : off+n : off+n]
}
