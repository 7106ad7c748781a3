// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// job is a task. Each of its slices lasts until the test lets it go on.
type job struct {
	unit   Unit
	long   bool
	held   atomic.Bool
	slices int // still to be done
	begun  bool
	first  bool
	run    chan struct{} // one receive for each slice
}

func (j *job) Unit() Unit  { return j.unit }
func (j *job) Begun() bool { return j.begun }
func (j *job) Long() bool  { return j.long }
func (j *job) First() bool { return j.first }
func (j *job) Held() bool  { return j.held.Load() }

// owner is who has a queue.
type owner struct {
	w     *Scheduler[*job]
	queue Queue[*job]

	mu      sync.Mutex // protects the fields below
	running []*job
	done    []*job
}

func (o *owner) Run(j *job, _ time.Time) {
	o.mu.Lock()
	o.running = append(o.running, j)
	o.mu.Unlock()
	<-j.run
	o.mu.Lock()
	o.running = slices.DeleteFunc(o.running, func(r *job) bool { return r == j })
	if j.slices--; j.slices <= 0 {
		o.done = append(o.done, j)
		o.mu.Unlock()
		return
	}
	j.begun = true
	o.mu.Unlock()
	o.w.Add(&o.queue, j)
}

// has reports what runs, and what is done.
func (o *owner) has() (running, done []*job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.running), slices.Clone(o.done)
}

// gate is a Gate.
type gate struct{ atomic.Bool }

func (g *gate) Stopped() bool { return g.Load() }

// bench has a scheduler and owners.
type bench struct {
	*testing.T
	Scheduler[*job]
	gate gate
}

func newBench(t *testing.T, workers int) *bench {
	b := &bench{T: t}
	b.Init(workers, 0, &b.gate)
	t.Cleanup(func() {
		b.Wait()
		if b.Busy() != 0 || len(b.units) != 0 {
			t.Errorf("in the end %d workers run, and %d logical units are counted", b.Busy(), len(b.units))
		}
	})
	return b
}

func (b *bench) owner() *owner {
	o := &owner{w: &b.Scheduler}
	o.queue.Init(o)
	return o
}

// until waits for something that comes soon.
func (b *bench) until(what string, reached func() bool) {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Second); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("it did not come to this: %s", what)
		}
	}
}

// add queues jobs for a logical unit.
func (b *bench) add(o *owner, unit Unit, n int) (list []*job) {
	for range n {
		j := &job{unit: unit, slices: 1, run: make(chan struct{})}
		list = append(list, j)
		b.Add(&o.queue, j)
	}
	return list
}

func finish(list []*job) {
	for _, j := range list {
		close(j.run)
	}
}

var one, two = Unit{new(owner), 1 << 48}, Unit{new(owner), 1 << 48}

// TestStuckUnit has tasks of several owners hang in one logical unit: they have half of the workers,
// and another unit goes on.
func TestStuckUnit(t *testing.T) {
	b := newBench(t, 8)
	var stuck []*job
	for range 3 {
		stuck = append(stuck, b.add(b.owner(), one, 8)...)
	}
	b.until("its share is at work", func() bool { return b.Busy() == 4 })
	o := b.owner()
	other := b.add(o, two, 4)
	b.until("those of the other unit run", func() bool { r, _ := o.has(); return len(r) == 4 })
	if n := b.Busy(); n != 8 {
		t.Errorf("%d workers, want 8", n)
	}
	finish(other)
	b.until("they are done", func() bool { _, d := o.has(); return len(d) == 4 })
	b.until("the share is as it was", func() bool { return b.Busy() == 4 })
	finish(stuck)
}

// TestBusyOwner has one owner queue more than there are workers, for many units.
func TestBusyOwner(t *testing.T) {
	b := newBench(t, 4)
	busy, o := b.owner(), b.owner()
	var all []*job
	for i := range uint64(8) {
		all = append(all, b.add(busy, Unit{LUN: i}, 1)...)
	}
	b.until("its share is at work", func() bool { r, _ := busy.has(); return len(r) == 2 })
	all = append(all, b.add(o, two, 1)...)
	b.until("the other has a worker", func() bool { r, _ := o.has(); return len(r) == 1 })
	if r, _ := busy.has(); len(r) != 2 {
		t.Errorf("the busy one has %d workers, want 2", len(r))
	}
	finish(all)
}

// TestLong has long tasks run one at a time on a unit, slice by slice, while others pass them by.
func TestLong(t *testing.T) {
	b := newBench(t, 8)
	o := b.owner()
	long := []*job{
		{unit: one, long: true, slices: 2, run: make(chan struct{})},
		{unit: one, long: true, slices: 1, run: make(chan struct{})},
	}
	for _, j := range long {
		b.Add(&o.queue, j)
	}
	b.until("the first runs", func() bool { r, _ := o.has(); return slices.Equal(r, long[:1]) })
	short := b.add(o, one, 1)
	finish(short)
	b.until("a short one has passed", func() bool { _, d := o.has(); return slices.Equal(d, short) })
	if r, _ := o.has(); !slices.Equal(r, long[:1]) {
		t.Fatalf("%d tasks run, want the first long one", len(r))
	}
	long[0].run <- struct{}{}
	long[0].run <- struct{}{} // its second slice comes before the other
	b.until("the second runs", func() bool { r, _ := o.has(); return slices.Equal(r, long[1:]) })
	finish(long[1:])
	b.until("all are done", func() bool { _, d := o.has(); return len(d) == 3 })
}

// TestHeld keeps a task until its initiator reads again.
func TestHeld(t *testing.T) {
	b := newBench(t, 2)
	o := b.owner()
	j := &job{unit: one, slices: 1, run: make(chan struct{})}
	j.held.Store(true)
	b.Add(&o.queue, j)
	b.Kick(&o.queue)
	if b.Busy() != 0 {
		t.Error("a held task runs")
	}
	j.held.Store(false)
	b.Kick(&o.queue)
	finish([]*job{j})
	b.until("it is done", func() bool { _, d := o.has(); return len(d) == 1 })
}

// TestRemove takes a task back before a worker has it, and not afterwards.
func TestRemove(t *testing.T) {
	b := newBench(t, 2) // one for the owner
	o := b.owner()
	list := b.add(o, one, 2)
	b.until("the first runs", func() bool { r, _ := o.has(); return len(r) == 1 })
	if b.Remove(&o.queue, list[0]) {
		t.Error("a task was taken back that runs")
	}
	if !b.Remove(&o.queue, list[1]) {
		t.Error("a task that waits was not taken back")
	}
	finish(list)
	b.Wait()
	if _, done := o.has(); !slices.Equal(done, list[:1]) {
		t.Errorf("%d tasks are done, want the first", len(done))
	}
}

// TestQuiesce brings the workers to a stop between two tasks, and gives up when it is told to.
func TestQuiesce(t *testing.T) {
	b := newBench(t, 2)
	o := b.owner()
	list := b.add(o, one, 2)
	b.until("the first runs", func() bool { r, _ := o.has(); return len(r) == 1 })
	b.gate.Store(true)
	give := make(chan struct{})
	close(give)
	if b.Quiesce(give) {
		t.Error("a worker runs still")
	}
	finish(list)
	if !b.Quiesce(nil) {
		t.Error("gave up")
	}
	if _, done := o.has(); len(done) != 1 {
		t.Errorf("%d tasks are done, want the one that ran", len(done))
	}
	b.gate.Store(false)
	b.Resume()
	b.until("the other is done", func() bool { _, d := o.has(); return len(d) == 2 })
}

// TestFirst has a task that is to be the first get the only worker before those that were queued
// earlier, also beyond the share of its logical unit, and be taken out before it runs.
func TestFirst(t *testing.T) {
	b := newBench(t, 1)
	b.gate.Store(true)
	o, other := b.owner(), b.owner()
	unit := Unit{b, 1}
	waiting := b.add(o, unit, 1)[0]
	first, removed := &job{unit: unit, slices: 1, first: true, run: make(chan struct{})}, &job{unit: unit, first: true}
	b.Add(&other.queue, removed)
	b.Add(&other.queue, first)
	if !b.Remove(&other.queue, removed) || b.Remove(&other.queue, removed) {
		t.Error("a task is not taken out once")
	}
	b.gate.Store(false)
	b.Resume()
	b.until("the first one runs", func() bool { r, _ := other.has(); return slices.Contains(r, first) })
	if r, _ := o.has(); len(r) > 0 {
		t.Error("another one runs too")
	}
	first.run <- struct{}{}
	waiting.run <- struct{}{}
}

// TestTurns gives turns to queues that take different times: they get shares of time, not of
// turns, and neither idleness nor one long wait counts for ever.
func TestTurns(t *testing.T) {
	var w turns[*job]
	quick, slow, late := new(Queue[*job]), new(Queue[*job]), new(Queue[*job])
	took := map[*Queue[*job]]time.Duration{quick: time.Millisecond, slow: 10 * time.Millisecond}
	used := make(map[*Queue[*job]]time.Duration)
	turn := func(count map[*Queue[*job]]int) {
		q := w.next()
		q.usage.used += took[q]
		used[q] += took[q]
		count[q]++
		w.add(q)
	}
	w.add(slow)
	w.add(quick)
	count := make(map[*Queue[*job]]int)
	for range 1100 {
		turn(count)
	}
	if d := used[quick] - used[slow]; d < -took[slow] || d > took[slow] || count[quick] < 9*count[slow] {
		t.Errorf("quick %v in %d turns, slow %v in %d", used[quick], count[quick], used[slow], count[slow])
	}
	took[late] = time.Millisecond
	w.add(late)
	count = make(map[*Queue[*job]]int)
	for range 210 {
		turn(count)
	}
	if d := count[late] - count[quick]; d < -11 || d > 11 {
		t.Errorf("who came late had %d turns, who was there %d", count[late], count[quick])
	}
	// One that hung for a minute goes on before the others have used a minute.
	took[slow] = time.Minute
	for count = make(map[*Queue[*job]]int); count[slow] == 0; {
		turn(count)
	}
	took[slow] = time.Millisecond
	for count = make(map[*Queue[*job]]int); count[slow] == 0; {
		turn(count)
	}
	if n := count[quick] + count[late]; n < 100 || n > 250 {
		t.Errorf("%d turns of others after one that took long", n)
	}
}
