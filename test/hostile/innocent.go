// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/histogram"
	"github.com/gotgtd/gotgtd/internal/initiator"
)

const (
	innocentBlock  = 512
	innocentBytes  = 4 << 10
	innocentBlocks = 8 << 20 / innocentBlock // the first 8 MiB of the disk are the innocent's own
)

// Innocent is a session of another initiator that does nothing but 4 KiB reads and writes, one at a
// time, and checks what it reads. It belongs to one goroutine.
type Innocent struct {
	session *initiator.Session
	number  uint64            // of the last write
	holds   map[uint64]uint64 // number of the write that a place holds
	at      uint64
	buf     []byte
}

// Figures are what an [Innocent] has seen: how long its commands took.
type Figures struct {
	Reads, Writes histogram.Histogram
	Elapsed       time.Duration
}

// Rate is commands per second.
func (f *Figures) Rate() float64 {
	return float64(f.Reads.Count()+f.Writes.Count()) / f.Elapsed.Seconds()
}

// WriteRate is writes per second of the time that they took.
func (f *Figures) WriteRate() float64 {
	if f.Writes.Count() == 0 {
		return 0
	}
	return 1 / f.Writes.Mean().Seconds()
}

// P99 is the 99th percentile of all commands' latencies.
func (f *Figures) P99() time.Duration { return f.all().Quantile(0.99) }

// Max is the longest latency.
func (f *Figures) Max() time.Duration { return f.all().Max() }

// Add puts what another time of the same session has seen to these.
func (f *Figures) Add(o *Figures) {
	f.Reads.Merge(&o.Reads)
	f.Writes.Merge(&o.Writes)
	f.Elapsed += o.Elapsed
}

func (f *Figures) all() *histogram.Histogram {
	h := f.Reads
	h.Merge(&f.Writes)
	return &h
}

func (f *Figures) String() string {
	all := f.all()
	return fmt.Sprintf("%.0f commands/s, p50 %v, p99 %v, longest %v", f.Rate(), all.Quantile(0.5), all.Quantile(0.99), all.Max())
}

// LogIn logs the innocent in. It ends with the test.
func LogIn(t testing.TB, d *Daemon) *Innocent {
	t.Helper()
	return dialInnocent(t, d, initiator.Options{ImmediateData: true})
}

// LogInSolicited is LogIn of one that sends no data before it is asked for it.
func LogInSolicited(t testing.TB, d *Daemon) *Innocent {
	t.Helper()
	return dialInnocent(t, d, initiator.Options{InitialR2T: true})
}

func dialInnocent(t testing.TB, d *Daemon, o initiator.Options) *Innocent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	o.Address, o.TargetName, o.InitiatorName = d.Portal(), Target, "iqn.2026-11.test:innocent"
	s, err := initiator.Dial(ctx, o)
	if err == nil {
		t.Cleanup(func() { s.Close() })
		err = s.Settle(ctx, initiator.LUN(1))
	}
	if err != nil {
		t.Fatalf("the innocent can't log in: %v", err)
	}
	return &Innocent{session: s, holds: make(map[uint64]uint64), buf: make([]byte, innocentBytes)}
}

// Work reads and writes until ctx ends, which is no error. That no command ends within 20 s is one.
func (i *Innocent) Work(ctx context.Context) (*Figures, error) {
	f := new(Figures)
	begin := time.Now()
	for ctx.Err() == nil {
		if err := i.step(f); err != nil {
			return f, fmt.Errorf("the innocent: %w", err)
		}
	}
	f.Elapsed = time.Since(begin)
	return f, nil
}

// For works for some time, and fails the test if anything is wrong.
func (i *Innocent) For(t testing.TB, d time.Duration) *Figures {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	f, err := i.Work(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Compare has the innocents of two daemons work in turns, so that what else the machine does disturbs both alike.
func Compare(t testing.TB, a, b *Innocent) (fa, fb *Figures) {
	t.Helper()
	fa, fb = new(Figures), new(Figures)
	for range 8 {
		fa.Add(a.For(t, 100*time.Millisecond))
		fb.Add(b.For(t, 100*time.Millisecond))
	}
	return fa, fb
}

// tries is how often an innocent may be measured, at most, for what it has seen to be within a bound: what else the
// machine does does not disturb each of them, and an attack does.
const tries = 3

// While works as long as f runs, and fails the test if anything is wrong.
func (i *Innocent) While(t testing.TB, f func()) *Figures {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	type outcome struct {
		figures *Figures
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		figures, err := i.Work(ctx)
		done <- outcome{figures, err}
	}()
	func() {
		defer cancel()
		f()
	}()
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	return o.figures
}

// step is one write of a place and one read of another.
func (i *Innocent) step(f *Figures) error {
	const per = innocentBytes / innocentBlock
	i.number++
	i.at = (i.at + 7*per) % innocentBlocks
	fill(i.buf, i.at, i.number)
	var cmd initiator.Command
	begin := time.Now()
	if err := i.do(cmd.Write16(initiator.LUN(1), i.at, per, i.buf, 0)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	f.Writes.Record(time.Since(begin))
	i.holds[i.at] = i.number

	read := (i.at * 5) % innocentBlocks / per * per
	number, known := i.holds[read]
	if !known {
		read, number = i.at, i.number
	}
	clear(i.buf)
	var other initiator.Command
	begin = time.Now()
	if err := i.do(other.Read16(initiator.LUN(1), read, per, i.buf, 0)); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	f.Reads.Record(time.Since(begin))
	want := make([]byte, innocentBytes)
	if fill(want, read, number); string(want) != string(i.buf) {
		return fmt.Errorf("LBA %d does not hold what write %d put there", read, number)
	}
	return nil
}

func (i *Innocent) do(cmd *initiator.Command) error {
	const patience = 20 * time.Second
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, errors.New("no answer within 20 s"))
	defer cancel()
	if err := i.session.Do(ctx, cmd); err != nil {
		return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return cmd.Failed()
}

// fill makes bytes that tell place and write.
func fill(b []byte, at, number uint64) {
	v := at*0x9e3779b97f4a7c15 ^ number
	for i := range b {
		v = v*6364136223846793005 + 1442695040888963407
		b[i] = byte(v >> 56)
	}
}
