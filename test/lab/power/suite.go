// SPDX-License-Identifier: Apache-2.0

// Package power is the lab's suite of power cuts: gotgtd is in an emulated machine, whose disks
// have caches that lose what was not flushed, and is written to from outside. The machine is killed at
// random moments and switched on again. What was promised has to be there.
package power

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/lab"
)

// The tags of programs that leave something out.
const (
	withoutSync       = "withoutsync"       // fdatasync of the disks' files, and O_DSYNC
	withoutFolderSync = "withoutfoldersync" // fsync of the folder after a rename
)

var faulty = []string{withoutSync, withoutFolderSync}

// Suite is the suite.
var Suite = lab.Suite{
	Name: "power", Title: "power cuts lose nothing that was promised", Run: run,
	Faulty: faulty,
}

const (
	defaultCuts = 40
	shortCuts   = 6
	// controlCuts is how many power cuts a program with a fault may survive.
	controlCuts = 12
)

func run(ctx context.Context, l *lab.Lab) (err error) {
	cuts := l.Cuts
	if cuts == 0 {
		cuts = defaultCuts
		if l.Short {
			cuts = shortCuts
		}
	}
	seed := uint64(time.Now().UnixNano())
	l.Figure("seed", "%d", seed)
	r := &runner{lab: l, random: rand.New(rand.NewPCG(seed, 0)), counts: &counts{of: make(map[string]int)}}
	if r.machine, err = newMachine(l, diskKinds); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.machine.close()) }()
	if err := l.Step(ctx, "the machine boots", r.boot); err != nil {
		return err
	}
	for _, state := range []fileSystem{ext4, xfs} {
		n := cuts / 2
		if state == ext4 {
			n = cuts - n
		}
		r.pass(ctx, state, n)
	}
	if err := l.Step(ctx, "without a flush, writes were lost", r.lostSome); err != nil {
		return err
	}
	if err := l.Step(ctx, "a flush that has failed is not forgotten by the next generations", r.failedFlush); err != nil {
		return err
	}
	r.figures() // of gotgtd alone: the controls' programs lose what was promised
	for _, c := range []struct{ tag, what string }{
		{withoutSync, "the flush of a disk's file"}, {withoutFolderSync, "the flush of the state folder"},
	} {
		r.control(ctx, fmt.Sprintf("control: without %s the comparison fails", c.what), c.tag)
	}
	return nil
}

// runner is what all passes share.
type runner struct {
	lab     *lab.Lab
	machine *machine
	random  *rand.Rand
	counts  *counts
	total   verdict
	cuts    int
	sectors int // that have lost their last write
	times   []time.Duration
}

func (r *runner) boot(ctx context.Context) error {
	return r.machine.boot(ctx, func(ctx context.Context) error {
		for _, name := range []string{"upgraded", "gotgtd", "gotgtd-" + withoutSync, "gotgtd-" + withoutFolderSync} {
			if err := r.machine.put(ctx, r.lab.Program(name), programs+name); err != nil {
				return err
			}
		}
		// What is read once need not be read after each power-on.
		_, err := r.machine.run(ctx, "e2fsck -V; mkfs.xfs -V; xfs_repair -V; sync; for p in "+programs+"*; do $p version || $p --version; done")
		return err
	})
}

// A scene is a pass: disks that begin empty, and what was promised of them since.
type scene struct {
	*runner
	program string // gotgtd's name among the programs
	state   fileSystem

	units       []*unit
	reservation record[reservation]
	held        uint8 // type of the reservation that the registrar has just now
	settings    record[settings]
	identities  map[string]string
	changes     int // of the alias

	session, registrar *initiator.Session
	off                atomic.Bool // sessions and commands may fail: the machine or gotgtd is being killed
}

func (r *runner) scene(program string, state fileSystem) *scene {
	s := &scene{runner: r, program: program, state: state, units: newUnits(r.counts), identities: make(map[string]string)}
	for _, u := range s.units {
		u.off = &s.off
	}
	begin := settings{alias: "none", size: unitSize, extra: noExtra}
	s.settings = record[settings]{begin, begin}
	return s
}

// cutsOfStep is how many cuts a step does, for a step has its time, also on a machine with other work.
const cutsOfStep = 5

// pass does n power cuts.
func (r *runner) pass(ctx context.Context, state fileSystem, n int) {
	s := r.scene("gotgtd", state)
	defer s.logout()
	for first := 0; first < n; first += cutsOfStep {
		end := min(first+cutsOfStep, n)
		name := fmt.Sprintf("cuts %d to %d, the state folder on %s", first+1, end, state.name)
		err := r.lab.Step(ctx, name, func(ctx context.Context) error {
			for i := first; i < end; i++ {
				if err := s.cycle(ctx, i == 0); err != nil {
					return fmt.Errorf("before cut %d: %w%s", i+1, err, s.tail(ctx))
				}
			}
			if end < n {
				return nil
			}
			return s.last(ctx)
		})
		if err != nil {
			return
		}
	}
}

// control does power cuts until the comparison fails, which it has to: the program leaves something out.
func (r *runner) control(ctx context.Context, name, tag string) {
	s := r.scene("gotgtd-"+tag, ext4)
	defer s.logout()
	r.lab.Step(ctx, name, func(ctx context.Context) error {
		for i := range controlCuts {
			err := s.cycle(ctx, i == 0)
			if errors.As(err, new(*brokenPromise)) {
				r.lab.Printf("%s: before cut %d: %v", tag, i+1, err)
				return nil
			}
			if err != nil {
				return err
			}
		}
		switch err := s.last(ctx); {
		case errors.As(err, new(*brokenPromise)):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("%d power cuts, and nothing that was promised is lost: the check finds nothing", controlCuts)
	})
}

// A brokenPromise is what the suite looks for.
type brokenPromise struct{ err error }

func (e *brokenPromise) Error() string { return "a promise is broken: " + e.err.Error() }
func (e *brokenPromise) Unwrap() error { return e.err }

// cycle is from one power cut to the next.
func (s *scene) cycle(ctx context.Context, first bool) error {
	start := time.Now()
	if !first && s.random.IntN(4) == 0 {
		if err := s.interrupt(ctx); err != nil {
			return err
		}
	}
	if err := s.up(ctx, first); err != nil {
		return err
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	s.logout()
	s.cuts++
	s.times = append(s.times, time.Since(start))
	s.lab.Printf("cut %d after %.1f s, %d commands in all", s.cuts, time.Since(start).Seconds(), s.counts.sum())
	s.lab.Mark("power cut")
	return nil
}

// last looks at what the last cut has left.
func (s *scene) last(ctx context.Context) error {
	err := s.up(ctx, false)
	s.logout()
	s.machine.kill()
	return err
}

// up switches the machine on, has gotgtd start, and compares everything with what was promised.
func (s *scene) up(ctx context.Context, first bool) error {
	s.off.Store(false)
	if first {
		for _, d := range s.machine.disks {
			if err := d.erase(); err != nil {
				return err
			}
		}
	}
	if err := s.machine.on(ctx); err != nil {
		return err
	}
	if first {
		if err := s.makeDisks(ctx); err != nil {
			return err
		}
	} else if err := errors.Join(s.checkDisks(ctx), s.checkFolder(ctx)); err != nil {
		return err
	}
	if err := s.serve(ctx); err != nil {
		return err
	}
	if err := s.compare(ctx, true); err != nil {
		return err
	}
	return s.complaints(ctx)
}

// interrupt switches the machine on, and off again while gotgtd starts.
func (s *scene) interrupt(ctx context.Context) error {
	if err := s.machine.on(ctx); err != nil {
		return err
	}
	if err := errors.Join(s.checkDisks(ctx), s.start(ctx)); err != nil {
		return err
	}
	time.Sleep(time.Duration(s.random.IntN(int(3 * time.Second))))
	s.cut()
	s.lab.Mark("power cut while gotgtd starts")
	return nil
}

// cut is a power cut after which the disks have none, some or all of what was not flushed.
func (s *scene) cut() {
	s.sectors += s.machine.cut(s.random, []int{0, 20, 50, 80, 100}[s.random.IntN(5)])
}

// compare compares all with what was promised: after a power cut, or else after gotgtd was killed.
func (s *scene) compare(ctx context.Context, cut bool) error {
	if err := errors.Join(s.checkReservation(ctx), s.checkConfiguration(ctx)); err != nil {
		return &brokenPromise{err}
	}
	var all verdict
	for _, u := range s.units {
		v, err := u.readAll(ctx, cut)
		if err != nil {
			return err
		}
		all.add(v)
	}
	if cut {
		s.total.add(all)
	}
	if all.failed > 0 {
		return &brokenPromise{fmt.Errorf("%d of %d blocks are not as promised:\n%s", all.failed, all.blocks, strings.Join(all.failures, "\n"))}
	}
	return nil
}

// What happens to gotgtd under load.
const (
	nothing = iota
	upgrade
	kill
	kinds
)

// load writes until the power is cut, which it is at a random moment.
func (s *scene) load(ctx context.Context) error {
	event := s.random.IntN(2 * kinds)
	if event == upgrade || event == kill {
		if err := s.work(ctx, func() error { return s.disturb(ctx, event) }, event == kill); err != nil {
			return err
		}
	}
	if event == kill {
		s.off.Store(false)
		if err := s.login(ctx); err != nil {
			return err
		}
		if err := s.compare(ctx, false); err != nil {
			return err
		}
	}
	return s.work(ctx, func() error {
		s.off.Store(true)
		s.cut()
		s.endSessions() // nobody has told them
		return nil
	}, true)
}

// disturb upgrades or kills gotgtd.
func (s *scene) disturb(ctx context.Context, event int) error {
	if event == upgrade {
		_, err := s.upgrading(ctx, programs+"upgraded reload --control "+superviser)
		s.lab.Mark("upgrade under load")
		return err
	}
	s.off.Store(true)
	_, err := s.machine.run(ctx, "pkill -9 -f '^"+programs+s.program+" serve'")
	s.lab.Mark("kill of gotgtd")
	return err
}

// work has all kinds of commands sent, does end after some of them, and waits until they have
// ended: by themselves if the sessions end with that.
func (s *scene) work(ctx context.Context, end func() error, sessionsEnd bool) error {
	group, ctx := errgroup.WithContext(ctx)
	working, stop := context.WithCancel(ctx)
	defer stop()
	for _, u := range s.units {
		for _, w := range u.split(s.random) {
			group.Go(func() error { return w.work(working) })
		}
	}
	seeds := [2]uint64{s.random.Uint64(), s.random.Uint64()}
	group.Go(func() error { return s.reserve(working, rand.New(rand.NewPCG(seeds[0], 1))) })
	group.Go(func() error { return s.configure(working, rand.New(rand.NewPCG(seeds[1], 2))) })
	pause := s.pause()
	group.Go(func() error {
		defer stop()
		pause(working)
		if ctx.Err() != nil { // something has failed: the machine is left as it is, for tail
			return context.Cause(ctx)
		}
		if err := end(); err != nil || !sessionsEnd {
			return err
		}
		for _, session := range []*initiator.Session{s.session, s.registrar} {
			select {
			case <-session.Done():
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return group.Wait()
}

// pause draws a moment: after so many commands, in half of the cases one more change of the
// configuration, and a bit.
func (s *scene) pause() func(ctx context.Context) {
	commands, bit := 20+s.random.IntN(250), time.Duration(s.random.IntN(int(300*time.Millisecond)))
	before, changes := s.counts.sum(), s.counts.count(changesOfConfiguration)+s.random.IntN(2)
	return func(ctx context.Context) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for s.counts.sum() < before+commands || s.counts.count(changesOfConfiguration) < changes {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		time.Sleep(bit)
	}
}

func (c *counts) count(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[kind]
}

func (c *counts) sum() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.of {
		n += k
	}
	return n
}

// lostSome is the control of the disks: they do lose what was not flushed.
func (r *runner) lostSome(context.Context) error {
	if r.total.lost == 0 || r.sectors == 0 {
		return fmt.Errorf("of %d blocks that might have held several things none has lost an acknowledged write, and the disks have lost %d sectors: nothing is shown",
			r.total.unsure, r.sectors)
	}
	return nil
}

// figures adds what was done to the report.
func (r *runner) figures() {
	r.lab.Figure("power cuts", "%d", r.cuts)
	r.lab.Figure("blocks compared", "%d", r.total.blocks)
	r.lab.Figure("blocks that were written to since the last flush", "%d", r.total.unsure)
	r.lab.Figure("of these, blocks that lost an acknowledged write", "%d", r.total.lost)
	r.lab.Figure("sectors lost by the disks", "%d", r.sectors)
	for _, kind := range slices.Sorted(maps.Keys(r.counts.of)) {
		r.lab.Figure("acknowledged: "+kind, "%d", r.counts.of[kind])
	}
	if len(r.times) > 0 {
		slices.Sort(r.times)
		r.lab.Figure("time from cut to cut, median", "%.1f s", r.times[len(r.times)/2].Seconds())
	}
}

// tail is what the machine has to say when something has failed.
func (s *scene) tail(ctx context.Context) string {
	console := s.machine.console()
	text := "\n--- console\n" + console[max(0, len(console)-2000):]
	if log, err := s.machine.run(ctx, "grep -v msg=.serving "+logFile+" | tail -n 30"); err == nil {
		text += "\n--- gotgtd\n" + log
	}
	return text
}
