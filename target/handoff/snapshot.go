// SPDX-License-Identifier: Apache-2.0

// Package handoff moves the state of a daemon to its successor over a
// SOCK_SEQPACKET socket: who says what when, the format of the snapshot, and
// the passing of file descriptors. What the state means is the business of
// those who give and take it.
//
//	predecessor                                  successor
//	    │                                            │ opens, builds, checks
//	    │ ◄──────────────── HELLO ────────────────── │
//	 freezes                                         │
//	    │ ───── FILES (any number), SNAPSHOT ──────► │ rebuilds
//	    │ ◄─────────────── PREPARED ──────────────── │
//	    │ ──────────────── COMMIT ─────────────────► │ owns everything now
//	    │ ◄──────────────── TAKEN ────────────────── │ serves
//	    │ ◄─────────────── SERVING ───────────────── │
//	  exits
//
// Until the predecessor has sent COMMIT it owns everything: whatever goes
// wrong before, the successor is killed and the predecessor thaws. Once the
// successor has answered PREPARED it waits for one of three things: COMMIT, or
// the end of the socket, which means that the predecessor has died, and in
// both cases it owns everything; or ABORT, and it exits. A predecessor that
// gives up kills its successor before it thaws, so never do both serve.
package handoff

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// Schema is the number of the snapshot schema written here. It goes up when a
// reader of the one before could not make sense of it; fields that may be
// ignored are added without that.
const Schema = 1

// Snapshot is the whole state of a frozen daemon, but for its files.
type Snapshot struct {
	Schema   int                        `cbor:"1,keyasint"`
	Version  string                     `cbor:"2,keyasint"` // of the program that wrote it
	Needs    []string                   `cbor:"3,keyasint"` // features that the reader must know
	Frozen   int64                      `cbor:"4,keyasint"` // CLOCK_MONOTONIC when the first reader stopped, nanoseconds
	Sections map[string]cbor.RawMessage `cbor:"5,keyasint"` // each package's own state, by its name
	Files    []File                     `cbor:"6,keyasint"` // what the files that travel along are, in their order
	History  []Report                   `cbor:"7,keyasint"` // upgrades and failures before, oldest first

	// Data behind the snapshot, by section, in the order of its places. A state that
	// [Snapshot.Get] reads refers to it until the end of [Taker.Restore].
	Extents map[string][]Extent `cbor:"8,keyasint,omitempty"`

	apart    bool     // whether the reader looks behind the snapshot
	bulk     [][]byte // what the writer puts there
	bulkSize int64    // of all of bulk, bytes
	mapped   []byte   // what the reader has found there, part of memory
	memory   []byte   // the memfd, mapped

	ctx context.Context // the writer's: ends with the time that there is
	rest
}

// File says what a passed file descriptor is.
type File struct {
	Kind string `cbor:"1,keyasint"`
	Name string `cbor:"2,keyasint"`
}

// Err says why the pause is over for who takes the snapshot, nil while there is time. To be asked
// between steps: copying and encoding heed no deadline of themselves.
func (s *Snapshot) Err() error {
	if s.ctx == nil || s.ctx.Err() == nil {
		return nil
	}
	return context.Cause(s.ctx)
}

// Context returns the context of who takes the snapshot: it ends with the time that there is.
func (s *Snapshot) Context() context.Context {
	if s.ctx == nil {
		return context.Background()
	}
	return s.ctx
}

// Put adds a package's state. If it has much data in it, the snapshot refers to that until
// it is sent, and the state is without it.
func (s *Snapshot) Put(section string, state any) error {
	var b bytes.Buffer
	if d, ok := state.(bulky); ok {
		// A buffer that grows by and by is copied again and again, each time to memory
		// that the kernel has to provide first, while initiators wait.
		b.Grow(s.takeBulk(section, d) + smallParts)
	}
	if err := encoding.MarshalToBuffer(state, &b); err != nil {
		return fmt.Errorf("can't encode section %q: %w", section, err)
	}
	if s.Sections == nil {
		s.Sections = make(map[string]cbor.RawMessage)
	}
	s.Sections[section] = b.Bytes()
	return nil
}

// Get reads a package's state into what state points to. A section that is not
// there leaves it as it is.
func (s *Snapshot) Get(section string, state any) error {
	b, ok := s.Sections[section]
	if !ok {
		return nil
	}
	if err := decoding.Unmarshal(b, state); err != nil {
		return fmt.Errorf("can't decode section %q: %w", section, err)
	}
	return s.giveBulk(section, state)
}

var (
	encoding = must(cbor.CoreDetEncOptions().UserBufferEncMode())
	// The limits are above anything that a daemon can hold: 65,535 sessions
	// and the tasks of each. Text need not be UTF-8: names, aliases and keys come from
	// initiators, paths from the file system, and the encoder writes them as they are.
	decoding = must(cbor.DecOptions{
		MaxArrayElements: 1 << 24, MaxMapPairs: 1 << 20, MaxNestedLevels: 32, UTF8: cbor.UTF8DecodeInvalid,
		TagsMd: cbor.TagsForbidden, // none are written, and with wrong content one could be read and not be written
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options above are wrong
	}
	return v
}

// An encoded snapshot begins with a header of 24 bytes: magic, schema (4
// bytes, big endian), CRC-32C of the body (4 bytes), length of the body (8 bytes).
const (
	magic     = "gotgtdSS"
	headerLen = len(magic) + 4 + 4 + 8

	// About how many bytes of an encoded snapshot are not sections.
	smallParts  = 32 << 10
	roomForFile = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Marshal encodes the snapshot. Sections may be many megabytes, and initiators
// wait: they are copied once.
func (s *Snapshot) Marshal() ([]byte, error) {
	size := headerLen + smallParts + len(s.Files)*roomForFile
	for _, b := range s.Sections {
		size += len(b)
	}
	buf := bytes.NewBuffer(make([]byte, headerLen, size))
	if err := encoding.MarshalToBuffer(s, buf); err != nil {
		return nil, fmt.Errorf("can't encode the snapshot: %w", err)
	}
	b := buf.Bytes()
	body := b[headerLen:]
	h := append(b[:0], magic...)
	h = binary.BigEndian.AppendUint32(h, uint32(s.Schema))
	h = binary.BigEndian.AppendUint32(h, crc32.Checksum(body, castagnoli))
	binary.BigEndian.AppendUint64(h, uint64(len(body)))
	return b, nil
}

// Unmarshal checks and decodes a snapshot. Nothing in it is looked at before
// magic, schema, length and checksum are right.
func Unmarshal(b []byte) (*Snapshot, error) {
	if len(b) < headerLen || string(b[:len(magic)]) != magic {
		return nil, errors.New("not a snapshot")
	}
	h, body := b[len(magic):headerLen], b[headerLen:]
	if schema := binary.BigEndian.Uint32(h); schema < 1 || schema > Schema {
		return nil, fmt.Errorf("snapshot schema %d is unknown here, the newest known is %d", schema, Schema)
	}
	if n := binary.BigEndian.Uint64(h[8:]); n != uint64(len(body)) {
		return nil, fmt.Errorf("snapshot of %d bytes, its header says %d", len(body), n)
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(h[4:]) {
		return nil, errors.New("snapshot is damaged: wrong checksum")
	}
	s := new(Snapshot)
	if err := decoding.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("can't decode the snapshot: %w", err)
	}
	return s, nil
}

// Hello is what a successor says first.
type Hello struct {
	Version  string   `cbor:"1,keyasint"`
	PID      int      `cbor:"2,keyasint"`
	Oldest   int      `cbor:"3,keyasint"` // snapshot schemas that it reads
	Newest   int      `cbor:"4,keyasint"`
	Features []string `cbor:"5,keyasint"`
	Plan     []string `cbor:"6,keyasint,omitempty"` // what it changes, for people, a line each
}

// maxPlan bounds Hello.Plan in bytes, so that it fits into a message.
const maxPlan = maxMessage / 4

// trimPlan leaves out what is too much of a plan, and says so.
func trimPlan(plan []string) []string {
	size := 0
	for i, line := range plan {
		if size += len(line) + 4; size > maxPlan {
			return append(plan[:i:i], fmt.Sprintf("... and %d changes more", len(plan)-i))
		}
	}
	return plan
}

// Check reports why the successor could not read a snapshot of this schema
// with these needs.
func (h *Hello) Check(needs []string) error {
	if Schema < h.Oldest || Schema > h.Newest {
		return fmt.Errorf("version %s reads snapshot schemas %d to %d, this one writes %d", h.Version, h.Oldest, h.Newest, Schema)
	}
	for _, n := range needs {
		if !slices.Contains(h.Features, n) {
			return fmt.Errorf("version %s lacks the feature %q, which the present state needs", h.Version, n)
		}
	}
	return nil
}
