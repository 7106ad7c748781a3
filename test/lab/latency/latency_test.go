// SPDX-License-Identifier: Apache-2.0

package latency

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLinesComeBack(t *testing.T) {
	at := time.UnixMicro(1700000000123456)
	for _, o := range []Operation{
		{Write: true, Start: at, Took: 1500 * time.Microsecond},
		{Start: at, Took: 2 * time.Second},
		{Start: at, Error: "input/output error"},
	} {
		got, err := Parse(o.String())
		if err != nil {
			t.Errorf("%v: %v", o, err)
		}
		if diff := cmp.Diff(o, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", o, diff)
		}
	}
	if got := (Operation{Error: "one\ntwo"}).String(); strings.Contains(got, "\n") {
		t.Errorf("%q is not one line", got)
	}
	for _, line := range []string{"", "R", "R 1", "X 1 2", "R x 2", "W 1 x", "panic: something"} {
		if o, err := Parse(line); err == nil {
			t.Errorf("%q was read as %v", line, o)
		}
	}
}

func TestSummarize(t *testing.T) {
	var ops []Operation
	for i := range 101 {
		ops = append(ops, Operation{Took: time.Duration(100-i) * time.Millisecond})
	}
	want := Summary{Count: 101, Median: 50 * time.Millisecond, P99: 99 * time.Millisecond, Max: 100 * time.Millisecond}
	if got := Summarize(ops); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := Summarize(nil); got != (Summary{}) {
		t.Errorf("nothing sums up to %+v", got)
	}
}

// disk is a device in memory whose answers a test may change.
type disk struct {
	bytes [16 * BlockSize]byte
	read  func(p []byte, at int64) error
	write func(p []byte, at int64) (done bool, err error)
}

func (d *disk) ReadAt(p []byte, at int64) (int, error) {
	n := copy(p, d.bytes[at:])
	if d.read != nil {
		return n, d.read(p, at)
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, at int64) (int, error) {
	if d.write != nil {
		if done, err := d.write(p, at); done || err != nil {
			return len(p), err
		}
	}
	return copy(d.bytes[at:], p), nil
}

// operations runs a probe on the second half of the disk until it has done n.
func operations(t *testing.T, d *disk, n int) []Operation {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ops []Operation
	p := Probe{Device: d, Offset: 8 * BlockSize, Size: 8 * BlockSize}
	err := p.Run(ctx, func(o Operation) {
		if ops = append(ops, o); len(ops) == n {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

func TestProbe(t *testing.T) {
	d := new(disk)
	reads, writes := 0, 0
	for _, o := range operations(t, d, 400) {
		if o.Error != "" {
			t.Errorf("a disk without fault: %v", o)
		}
		if o.Write {
			writes++
		} else {
			reads++
		}
	}
	if reads < 150 || writes < 150 {
		t.Errorf("%d reads and %d writes", reads, writes)
	}
	for i, b := range d.bytes[:8*BlockSize] {
		if b != 0 {
			t.Fatalf("byte %d before the part was written", i)
		}
	}
}

func TestProbeFindsFaults(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]struct {
		disk disk
		want string
	}{
		// A single one might be written over before it is read.
		"writes that are lost": {
			disk{write: func() func([]byte, int64) (bool, error) {
				n := 0
				return func([]byte, int64) (bool, error) { n++; return n >= 9, nil }
			}()}, "is wrong from byte",
		},
		"another block's contents": {
			disk{read: func(p []byte, at int64) error { fill(p, at/BlockSize, 1); return nil }}, "is wrong from byte",
		},
		"a bit": {
			disk{read: func(p []byte, _ int64) error { p[BlockSize-1] ^= 1; return nil }}, "is wrong from byte 4095",
		},
		"a read error":  {disk{read: func([]byte, int64) error { return broken }}, "broken"},
		"a write error": {disk{write: func([]byte, int64) (bool, error) { return false, broken }}, "broken"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for _, o := range operations(t, &tc.disk, 400) {
				if strings.Contains(o.Error, tc.want) {
					return
				}
			}
			t.Errorf("nothing says %q", tc.want)
		})
	}
}

func TestProbeWantsWholeBlocks(t *testing.T) {
	for _, p := range []Probe{{}, {Size: 100}, {Size: BlockSize, Offset: 1}, {Size: -BlockSize}} {
		p.Device = new(disk)
		if err := p.Run(t.Context(), func(Operation) { t.Error("it runs") }); err == nil {
			t.Errorf("%+v is taken", p)
		}
	}
}
