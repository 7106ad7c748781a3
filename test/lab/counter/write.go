// SPDX-License-Identifier: Apache-2.0

package counter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Disk is what the counter is written to: the part of a device between Offset
// and Offset+Size, in bytes, both multiples of RecordSize.
type Disk struct {
	Device interface {
		io.ReaderAt
		io.WriterAt
	}
	Offset, Size int64
}

// Writer counts.
type Writer struct {
	Disk Disk
	// File, on a file system of the same device, gets the number about once a
	// second, by way of a new file, fsync and rename. Empty: no file.
	File string
	// Pause is the time between two numbers.
	Pause time.Duration
	// Console gets a line a second, and one for what went wrong.
	Console io.Writer
}

// Lines of the console begin with these.
const (
	LineCount = "CTR"       // CTR NUMBER slowest=MILLISECONDSms
	LineEnd   = "CTR-END"   // CTR-END NUMBER: the writer was asked to end
	LineError = "CTR-ERROR" // CTR-ERROR what: it can't go on
)

// Run counts until ctx ends, the disk is full, or a read or write goes wrong,
// which is an error and a line on the console. What Run finds on the disk is
// not looked at: the slots have to be empty.
func (w *Writer) Run(ctx context.Context) error {
	number, err := w.count(ctx)
	if err == nil {
		err = w.note(number)
	}
	if err != nil {
		fmt.Fprintf(w.Console, "%s %v\n", LineError, err)
		return err
	}
	fmt.Fprintf(w.Console, "%s %d\n", LineEnd, number)
	return nil
}

// count returns the last number that is on the disk.
func (w *Writer) count(ctx context.Context) (uint64, error) {
	var record Record
	for i := range record.Run {
		record.Run[i] = byte(rand.Uint32())
	}
	start := time.Now()
	said, worst := start, time.Duration(0)
	buffer := [2][]byte{aligned(RecordSize), aligned(RecordSize)}
	for ctx.Err() == nil {
		if int64(record.Number+2)*RecordSize > w.Disk.Size {
			return record.Number, fmt.Errorf("no room for another number after %d", record.Number)
		}
		record.Number++
		record.Written = time.Since(start)
		record.encode(buffer[0])
		slowest, err := w.step(record.Number, buffer[0], buffer[1])
		if err != nil {
			return record.Number - 1, fmt.Errorf("number %d: %w", record.Number, err)
		}
		record.Slowest = slowest
		worst = max(worst, slowest)
		if time.Since(said) >= time.Second {
			if err := w.note(record.Number); err != nil {
				return record.Number, err
			}
			fmt.Fprintf(w.Console, "%s %d slowest=%dms\n", LineCount, record.Number, worst.Milliseconds())
			said, worst = time.Now(), 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(w.Pause):
		}
	}
	return record.Number, nil
}

// step writes a number into its slot and the head, and reads both back, and an
// earlier one. It returns how long the slowest of these took.
func (w *Writer) step(number uint64, record, back []byte) (time.Duration, error) {
	var slowest time.Duration
	timed := func(what string, slot uint64, do func([]byte, int64) (int, error), p []byte) error {
		start := time.Now()
		_, err := do(p, w.Disk.at(slot))
		slowest = max(slowest, time.Since(start))
		if err != nil {
			return fmt.Errorf("can't %s slot %d: %w", what, slot, err)
		}
		return nil
	}
	for _, slot := range []uint64{number, 0} {
		if err := timed("write", slot, w.Disk.Device.WriteAt, record); err != nil {
			return slowest, err
		}
	}
	for _, slot := range []uint64{number, 0} {
		if err := timed("read back", slot, w.Disk.Device.ReadAt, back); err != nil {
			return slowest, err
		}
		if !bytes.Equal(record, back) {
			return slowest, fmt.Errorf("slot %d: %s was read back", slot, describe(back))
		}
	}
	earlier := 1 + rand.Uint64N(number)
	if err := timed("read", earlier, w.Disk.Device.ReadAt, back); err != nil {
		return slowest, err
	}
	if r, err := decode(back); err != nil || r.Number != earlier {
		return slowest, fmt.Errorf("slot %d: %s was read", earlier, describe(back))
	}
	return slowest, nil
}

// note puts the number into the file.
func (w *Writer) note(number uint64) error {
	if w.File == "" {
		return nil
	}
	err := replace(w.File, fmt.Appendf(nil, "%d\n", number))
	if err != nil {
		return fmt.Errorf("can't note number %d in the file: %w", number, err)
	}
	return nil
}

func replace(path string, text []byte) (err error) {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d Disk) at(slot uint64) int64 { return d.Offset + int64(slot)*RecordSize }

// describe says what is in a slot.
func describe(p []byte) string {
	r, err := decode(p)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("number %d", r.Number)
}
