// SPDX-License-Identifier: Apache-2.0

package counter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a disk in memory, which can be made to lie.
type memory struct {
	mu    sync.Mutex // protects what follows
	bytes []byte
	// write and read, if there, decide about each request; done is whether
	// they have done it themselves.
	write, read func(p []byte, off int64) (done bool, err error)
}

func newMemory(slots int) *memory { return &memory{bytes: make([]byte, slots*RecordSize)} }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.read != nil {
		if done, err := m.read(p, off); done || err != nil {
			return len(p), err
		}
	}
	n := copy(p, m.bytes[min(off, int64(len(m.bytes))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.write != nil {
		if done, err := m.write(p, off); done || err != nil {
			return len(p), err
		}
	}
	return copy(m.bytes[off:], p), nil
}

func (m *memory) put(slot int, r Record) { r.encode(m.bytes[slot*RecordSize:][:RecordSize]) }

func (m *memory) size() int64 { return int64(len(m.bytes)) }

// stopAfter is a console that ends the writer after so many lines.
type stopAfter struct {
	bytes.Buffer
	lines int
	stop  context.CancelFunc
}

func (s *stopAfter) Write(p []byte) (int, error) {
	if s.lines--; s.lines == 0 {
		s.stop()
	}
	return s.Buffer.Write(p)
}

func TestRecordRoundTrip(t *testing.T) {
	want := Record{Number: 7, Run: [16]byte{1, 15: 2}, Written: 3 * time.Second, Slowest: time.Millisecond}
	p := aligned(RecordSize)
	want.encode(p)
	if got, err := decode(p); err != nil || got != want {
		t.Errorf("decode = %+v, %v, want %+v", got, err, want)
	}
	for i := range p {
		p[i] ^= 1
		if _, err := decode(p); err == nil {
			t.Fatalf("byte %d is wrong, and decode does not say so", i)
		}
		p[i] ^= 1
	}
	if _, err := decode(make([]byte, RecordSize)); !errors.Is(err, errEmpty) {
		t.Errorf("decode of zeros = %v, want %v", err, errEmpty)
	}
	if _, err := decode(p[1:]); err == nil {
		t.Error("decode takes a record that is too short")
	}
}

func TestWriterCountsUntilItIsStopped(t *testing.T) {
	dir := t.TempDir()
	m := newMemory(100_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	console := &stopAfter{lines: 1, stop: cancel}
	w := Writer{
		Disk: Disk{Device: m, Offset: 2 * RecordSize, Size: m.size() - 2*RecordSize},
		File: filepath.Join(dir, "count"), Pause: time.Millisecond, Console: console,
	}
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	records, err := Check(m, w.Disk.Offset, w.Disk.Size)
	if err != nil {
		t.Fatal(err)
	}
	last := records[len(records)-1]
	if int(last.Number) != len(records) || records[0].Number != 1 {
		t.Errorf("%d records, from %d to %d", len(records), records[0].Number, last.Number)
	}
	if last.Slowest <= 0 || last.Written <= 0 {
		t.Errorf("the last record has no times: %+v", last)
	}
	text, err := os.ReadFile(w.File)
	if want := fmt.Sprintf("%d\n", last.Number); err != nil || string(text) != want {
		t.Errorf("the file has %q, %v, want %q", text, err, want)
	}
	if want := fmt.Sprintf("%s %d\n", LineEnd, last.Number); !strings.HasPrefix(console.String(), LineCount+" ") ||
		!strings.HasSuffix(console.String(), want) {
		t.Errorf("the console says %q", console.String())
	}
}

func TestWriterSaysWhatGoesWrong(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name string
		m    *memory
		want string
	}{
		{"the disk is full", newMemory(9), "no room for another number after 8"},
		{"a write fails", &memory{write: func([]byte, int64) (bool, error) { return false, broken }}, "number 1: can't write slot 1: broken"},
		{"a read fails", &memory{read: func([]byte, int64) (bool, error) { return false, broken }}, "number 1: can't read back slot 1: broken"},
		{"a write is lost", &memory{write: func(_ []byte, off int64) (bool, error) { return off == 3*RecordSize, nil }}, "number 3: slot 3: empty was read back"},
		{"the head is stale", &memory{write: func(p []byte, off int64) (bool, error) {
			r, err := decode(p)
			return off == 0 && r.Number == 4, err
		}}, "number 4: slot 0: number 3 was read back"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.m.bytes == nil {
				tc.m.bytes = make([]byte, 20*RecordSize)
			}
			var console bytes.Buffer
			w := Writer{Disk: Disk{Device: tc.m, Size: tc.m.size()}, Console: &console}
			err := w.Run(t.Context())
			if err == nil || err.Error() != tc.want {
				t.Errorf("Run = %v, want %q", err, tc.want)
			}
			if want := LineError + " " + tc.want + "\n"; console.String() != want {
				t.Errorf("the console says %q, want %q", console.String(), want)
			}
		})
	}
}

func TestCheckFindsEveryFault(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(m *memory)
		want  string // empty: nothing is wrong
	}{
		{"nothing", func(*memory) {}, ""},
		{"a number is missing", func(m *memory) { clear(m.bytes[3*RecordSize : 4*RecordSize]) }, "slots 3 to 3 are empty, and slot 4 is not: a gap"},
		{"the first numbers are missing", func(m *memory) { clear(m.bytes[RecordSize : 3*RecordSize]) }, "slots 1 to 2 are empty, and slot 3 is not: a gap"},
		{"a bit is wrong", func(m *memory) { m.bytes[2*RecordSize+100] ^= 4 }, "slot 2: wrong checksum in what says to be number 2"},
		{"half a record is old", func(m *memory) { clear(m.bytes[5*RecordSize+512 : 6*RecordSize]) }, "slot 5: wrong checksum"},
		{"something else is there", func(m *memory) { copy(m.bytes[RecordSize:], "ext4") }, "slot 1: no record: it begins with 65787434"},
		{"a record is in another's place", func(m *memory) { m.put(4, Record{Number: 5}) }, "slot 4 has number 5"},
		{"the guest has started anew", func(m *memory) { m.put(5, Record{Number: 5, Run: [16]byte{9}}) }, "number 5 is of run 09"},
		{"an older head has come back", func(m *memory) { m.put(0, Record{Number: 4}) }, "the head has number 4, the last one is 5"},
		{"the head is missing", func(m *memory) { clear(m.bytes[:RecordSize]) }, "the head: empty"},
		{"nothing was written", func(m *memory) { clear(m.bytes) }, "there is no number on the disk"},
		{"the device ends early", func(m *memory) { m.bytes = m.bytes[:7*RecordSize] }, "slots 6 to 6 are empty, and slot 7 is not: a gap\nslot 7: can't read: EOF\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMemory(10)
			for n := range 5 {
				m.put(n+1, Record{Number: uint64(n + 1)})
			}
			m.put(0, Record{Number: 5})
			size := m.size()
			tc.spoil(m)
			records, err := Check(m, 0, size)
			switch {
			case tc.want == "" && (err != nil || len(records) != 5):
				t.Errorf("Check = %d records, %v", len(records), err)
			case tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want)):
				t.Errorf("Check = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestFollowSeesEachNumberOnce(t *testing.T) {
	m := newMemory(50)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	written := make(chan error, 1)
	go func() {
		w := Writer{Disk: Disk{Device: m, Size: m.size()}, Pause: time.Millisecond, Console: io.Discard}
		written <- w.Run(ctx)
	}()
	var last uint64
	err := Follow(ctx, m, 0, m.size(), func(a Arrival) {
		if a.Number != last+1 || a.At.IsZero() {
			t.Errorf("after %d came %+v", last, a)
		}
		last = a.Number
	})
	if err != nil || last != 49 {
		t.Errorf("Follow = %v, the last number was %d, want 49", err, last)
	}
	if err := <-written; err == nil {
		t.Error("the writer did not say that the disk is full")
	}

	// Asked to end, it ends.
	cancel()
	if err := Follow(ctx, newMemory(2), 0, 2*RecordSize, func(Arrival) {}); err != nil {
		t.Error(err)
	}
}
