// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/internal/histogram"
)

// A Load drives a logical unit with reads and writes over one or more
// sessions, and measures. In a closed loop (Rate zero) each session keeps Depth
// commands under way: a new one starts when one has ended. In an open loop
// commands are due at fixed times, whatever the target does, and latency
// counts from when a command was due, so that a stall is seen by every command
// that it held up (no coordinated omission).
type Load struct {
	Sessions  []*Session
	LUN       uint64
	First     uint64 // LBA at which the region begins
	Blocks    uint64 // length of the region
	BlockSize int    // bytes

	Bytes       int     // of one command, a multiple of BlockSize
	ReadPercent int     // of commands
	Sequential  bool    // each session goes through its own part in order; else anywhere
	Depth       int     // commands under way for each session; zero: 1
	Rate        float64 // commands per second of all sessions together; zero: closed loop
	Seed        uint64

	Warmup   time.Duration // at the start, not measured
	Duration time.Duration // measured
}

// LoadResult is what a Load measured.
type LoadResult struct {
	Reads, Writes histogram.Histogram // latencies
	Service       histogram.Histogram // from the submission to the end, of both
	Bytes         int64
	Elapsed       time.Duration // of the measurement
}

// Commands returns how many were measured.
func (r *LoadResult) Commands() uint64 { return r.Reads.Count() + r.Writes.Count() }

// IOPS returns commands per second.
func (r *LoadResult) IOPS() float64 { return float64(r.Commands()) / r.Elapsed.Seconds() }

// Run drives the load until Duration is over, ctx ends (which is an error), or
// a command fails. It returns when no command is under way any more.
func (l *Load) Run(ctx context.Context) (*LoadResult, error) {
	if err := l.validate(); err != nil {
		return nil, err
	}
	begin := time.Now().Add(l.Warmup)
	end := begin.Add(l.Duration)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := make([]*loadWorker, len(l.Sessions))
	var running sync.WaitGroup
	for i, s := range l.Sessions {
		w := newLoadWorker(l, s, i, begin, end, cancel)
		workers[i] = w
		running.Go(func() { w.run(ctx) })
	}
	running.Wait()
	result := &LoadResult{Elapsed: l.Duration}
	for _, w := range workers {
		result.Reads.Merge(&w.reads)
		result.Writes.Merge(&w.writes)
		result.Service.Merge(&w.service)
	}
	result.Bytes = int64(result.Commands()) * int64(l.Bytes)
	return result, context.Cause(ctx)
}

func (l *Load) validate() error {
	setDefault(&l.Depth, 1)
	switch {
	case len(l.Sessions) == 0:
		return errors.New("initiator: a load needs a session")
	case l.BlockSize <= 0 || l.Bytes <= 0 || l.Bytes%l.BlockSize != 0:
		return fmt.Errorf("initiator: can't load with commands of %d bytes and blocks of %d", l.Bytes, l.BlockSize)
	case l.Blocks/uint64(len(l.Sessions)) < uint64(l.Bytes/l.BlockSize):
		return fmt.Errorf("initiator: a region of %d blocks is too small", l.Blocks)
	case l.Depth < 1 || l.Depth > MaxTasks/2:
		return fmt.Errorf("initiator: depth %d is not within 1 to %d", l.Depth, MaxTasks/2)
	case l.Duration <= 0 || l.Rate < 0:
		return errors.New("initiator: a load needs a duration, and no negative rate")
	}
	return nil
}

// A loadWorker drives one session.
type loadWorker struct {
	load     *Load
	session  *Session
	begin    time.Time
	interval time.Duration // between due times; 0: closed loop
	fail     context.CancelCauseFunc
	free     chan *loadSlot // slots without a command

	mu                     sync.Mutex // protects what follows
	end                    time.Time
	random                 *rand.Rand
	next                   uint64 // command's place in a sequential walk
	from, places           uint64 // first LBA of this session's part, and the commands that fit
	reads, writes, service histogram.Histogram
}

// A loadSlot is a command with its buffer.
type loadSlot struct {
	worker *loadWorker
	cmd    Command
	buf    []byte
	due    time.Time
	sent   time.Time
	read   bool
}

func newLoadWorker(l *Load, s *Session, i int, begin, end time.Time, fail context.CancelCauseFunc) *loadWorker {
	per := uint64(l.Bytes / l.BlockSize)
	w := &loadWorker{load: l, session: s, begin: begin, end: end, fail: fail, free: make(chan *loadSlot, l.Depth),
		random: rand.New(rand.NewPCG(l.Seed, uint64(i))), from: l.First, places: l.Blocks / per}
	if l.Sequential {
		w.places /= uint64(len(l.Sessions))
		w.from += uint64(i) * w.places * per
	}
	if l.Rate > 0 {
		w.interval = time.Duration(float64(time.Second) * float64(len(l.Sessions)) / l.Rate)
	}
	for range l.Depth {
		slot := &loadSlot{worker: w, buf: make([]byte, l.Bytes)}
		slot.cmd.Data, slot.cmd.Done = slot, loadDone
		w.free <- slot
	}
	return w
}

// run drives the session and waits for its last command.
func (w *loadWorker) run(ctx context.Context) {
	if w.interval > 0 {
		w.openLoop(ctx)
	} else {
		for range w.load.Depth {
			w.launch(<-w.free, time.Now())
		}
		stop := context.AfterFunc(ctx, w.halt)
		defer stop()
	}
	w.drain()
}

// drain waits for the commands under way, and gives the session up when they
// don't end.
func (w *loadWorker) drain() {
	limit := time.NewTimer(time.Until(w.begin) + w.load.Duration + defaultResponseLimit)
	defer limit.Stop()
	for n := 0; n < w.load.Depth; {
		select {
		case <-w.free:
			n++
		case <-limit.C:
			w.session.fail(fmt.Errorf("initiator: commands did not end within %v after the load", defaultResponseLimit))
		}
	}
}

// halt makes a closed loop start nothing more.
func (w *loadWorker) halt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end = time.Time{}
}

// openLoop launches a command at each due time. When all slots are taken the
// command waits, and its latency runs.
func (w *loadWorker) openLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for due, end := w.begin.Add(-w.load.Warmup), w.begin.Add(w.load.Duration); due.Before(end); due = due.Add(w.interval) {
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		select {
		case slot := <-w.free:
			w.launch(slot, due)
		case <-ctx.Done():
			return
		}
	}
}

// launch submits the slot's next command.
func (w *loadWorker) launch(slot *loadSlot, due time.Time) {
	l := w.load
	per := uint64(l.Bytes / l.BlockSize)
	w.mu.Lock()
	slot.read = w.random.IntN(100) < l.ReadPercent
	place := w.next
	if l.Sequential {
		w.next = (w.next + 1) % w.places
	} else {
		place = w.random.Uint64N(w.places)
	}
	w.mu.Unlock()
	lba := w.from + place*per
	if slot.read {
		slot.cmd.Read16(l.LUN, lba, uint32(per), slot.buf, 0)
	} else {
		slot.cmd.Write16(l.LUN, lba, uint32(per), slot.buf, 0)
	}
	slot.due, slot.sent = due, time.Now()
	if err := w.session.Submit(&slot.cmd); err != nil {
		w.fail(err)
		w.free <- slot
	}
}

// loadDone measures a command, and in a closed loop starts the next.
func loadDone(cmd *Command) {
	slot := cmd.Data.(*loadSlot)
	w := slot.worker
	now := time.Now()
	err := cmd.Failed()
	w.mu.Lock()
	if err == nil && !slot.due.Before(w.begin) && (w.interval > 0 || now.Before(w.end)) {
		h := &w.writes
		if slot.read {
			h = &w.reads
		}
		h.Record(now.Sub(slot.due))
		w.service.Record(now.Sub(slot.sent))
	}
	again := err == nil && w.interval == 0 && now.Before(w.end)
	w.mu.Unlock()
	if err != nil {
		w.fail(err)
	}
	if again {
		w.launch(slot, now)
		return
	}
	w.free <- slot
}
