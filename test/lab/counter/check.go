// SPDX-License-Identifier: Apache-2.0

package counter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// maxProblems bounds the list of what is wrong with a disk.
const maxProblems = 20

// Check reads the part of a device between offset and offset+size, in bytes,
// and returns the records on it in their order. It is an error if a number is
// missing, damaged, in another's place or of another run than the first, or if
// the head is not the last number. A disk without any number is an error too.
func Check(device io.ReaderAt, offset, size int64) ([]Record, error) {
	var (
		records  []Record
		problems []error
		empty    uint64 // the first empty slot after the records
		slots    = slotReader{device: device, offset: offset, size: size, buffer: aligned(readSlots * RecordSize)}
	)
	wrong := func(format string, args ...any) {
		if len(problems) < maxProblems {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	for slot := uint64(1); int64(slot+1)*RecordSize <= size; slot++ {
		r, err := slots.read(slot)
		if errors.Is(err, errEmpty) {
			if empty == 0 {
				empty = slot
			}
			continue
		}
		if empty != 0 {
			wrong("slots %d to %d are empty, and slot %d is not: a gap", empty, slot-1, slot)
			empty = 0
		}
		switch {
		case err != nil:
			wrong("slot %d: %w", slot, err)
			continue
		case r.Number != slot:
			wrong("slot %d has number %d", slot, r.Number)
		case len(records) > 0 && r.Run != records[0].Run:
			wrong("number %d is of run %x, the first one of %x", r.Number, r.Run, records[0].Run)
		}
		records = append(records, r)
	}
	if len(records) == 0 {
		wrong("there is no number on the disk")
		return nil, errors.Join(problems...)
	}
	last := records[len(records)-1].Number
	if head, err := slots.read(0); err != nil {
		wrong("the head: %w", err)
	} else if head.Number != last {
		wrong("the head has number %d, the last one is %d", head.Number, last)
	}
	return records, errors.Join(problems...)
}

// readSlots is how many slots Check reads at once: a read is slow in an emulated machine,
// whatever its size.
const readSlots = 256

// slotReader reads slots, in whole groups of them.
type slotReader struct {
	device       io.ReaderAt
	offset, size int64
	buffer       []byte // room for a group
	group        []byte // the part of buffer that has the last group
	first        uint64 // its first slot
}

func (s *slotReader) read(slot uint64) (Record, error) {
	if at := int64(slot-s.first) * RecordSize; s.group == nil || slot < s.first || at >= int64(len(s.group)) {
		s.first = slot - slot%readSlots
		start := int64(s.first) * RecordSize
		s.group = s.buffer[:min(int64(len(s.buffer)), (s.size-start)/RecordSize*RecordSize)]
		n, err := s.device.ReadAt(s.group, s.offset+start)
		s.group = s.group[:n/RecordSize*RecordSize]
		if int64(slot-s.first)*RecordSize >= int64(len(s.group)) {
			return Record{}, fmt.Errorf("can't read: %w", err)
		}
	}
	at := (slot - s.first) * RecordSize
	return decode(s.group[at:][:RecordSize])
}

// Arrival is a number that has come to the disk.
type Arrival struct {
	Number uint64
	At     time.Time // when it was seen there
}

// followEvery is how often Follow looks, and so how exact its times are.
const followEvery = 5 * time.Millisecond

// Follow watches the disk from outside, where a target keeps it, and passes each
// number to seen as it arrives, until ctx ends. A read that fails is an error.
// What it sees is not proof: Check is.
func Follow(ctx context.Context, device io.ReaderAt, offset, size int64, seen func(Arrival)) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	p := make([]byte, RecordSize)
	for slot := uint64(1); int64(slot+1)*RecordSize <= size; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for int64(slot+1)*RecordSize <= size {
			if n, err := device.ReadAt(p, offset+int64(slot)*RecordSize); n < len(p) {
				return fmt.Errorf("can't read slot %d: %w", slot, err)
			}
			// A record under way decodes wrongly now and rightly in a moment.
			if _, err := decode(p); err != nil {
				break
			}
			seen(Arrival{Number: slot, At: time.Now()})
			slot++
		}
	}
	return nil
}
