// SPDX-License-Identifier: Apache-2.0

// Command bench compares gotgtd with other targets side by side: equal files on
// one file system, page cache warm, rounds in turn, medians. It measures too how
// a light session fares beside a heavy one, what a thousand sessions cost, and the
// pause of upgrades. docs/performance.md says how to run it and what its figures
// mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// options are the flags.
type options struct {
	quick   bool
	parts   []string
	plan    plan
	only    *regexp.Regexp
	peers   peers
	without []string
	out     string
	dir     string
}

// plan is how much is measured.
type plan struct {
	diskSize     int64         // of each backing file, bytes
	rounds       int           // of a workload that a goal is about, and the light session
	length       time.Duration // of one measurement of such a workload
	moreRounds   int           // of the other workloads
	moreLength   time.Duration
	comparison   time.Duration // in all; the comparison begins no further round after it
	heavies      int           // heavy sessions that the light one is tried with
	upgrades     int           // for the pause
	goalsOnly    bool          // leave the workloads out that no goal is about
	defaultParts []string
}

// The parts of a run, in order.
const (
	partCompare  = "compare"
	partFairness = "fairness"
	partScale    = "scale"
	partPause    = "pause"
)

var (
	wholePlan = plan{diskSize: 1 << 30, rounds: 5, length: 2 * time.Second, moreRounds: 3, moreLength: time.Second,
		comparison: 18 * time.Minute, heavies: len(heavies), upgrades: 500,
		defaultParts: []string{partCompare, partFairness, partScale, partPause}}
	quickPlan = plan{diskSize: 256 << 20, rounds: 3, length: time.Second / 2, moreRounds: 3, moreLength: time.Second / 2,
		comparison: 105 * time.Second, heavies: 1, upgrades: 50, goalsOnly: true,
		defaultParts: []string{partCompare, partFairness, partPause}}
)

func main() {
	var o options
	only := flag.String("only", "", "compare only the workloads whose name and client match this `REGEXP`")
	flag.BoolVar(&o.quick, "quick", false, "only the workloads that goals are about, fewer and shorter rounds, no scale")
	parts := flag.String("parts", "", "the `PARTS` to run, separated by commas: compare, fairness, scale, pause (default all)")
	rounds := flag.Int("rounds", 0, "rounds of each workload (default 5 or 3, with -quick 3)")
	length := flag.Duration("length", 0, "length of one measurement (default 2s or 1s, with -quick 500ms; iscsi-perf measures whole seconds)")
	flag.Var(&o.peers, "peer", "a further running target, `NAME=iscsi://HOST:PORT/TARGET/LUN`; may be repeated. Its disk is overwritten")
	without := flag.String("without", "", "leave these `PEERS` out, separated by commas: tgt, istgt, gotgt")
	flag.StringVar(&o.out, "o", filepath.Join("build", "bench", time.Now().Format("2006-01-02")+".json"), "write the results to this `FILE`, and charts beside it")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "a `FOLDER` for the backing files, which decides about their file system")
	table := flag.String("table", "", "run nothing; print the tables of the results in this `FILE` as Markdown")
	flag.Parse()
	ctx, stop := untilUnwanted()
	defer stop()
	var err error
	if *table != "" {
		err = printTables(os.Stdout, *table)
	} else if err = o.complete(*only, *parts, *without, *rounds, *length); err == nil {
		err = run(ctx, &o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// untilUnwanted returns a context that ends when the run is told to, or when
// nobody is left to read what it prints: it cleans up then too.
func untilUnwanted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	// Whoever asks for SIGPIPE is not killed by it, nor does a process started from here
	// ignore it. It tells nothing: it comes from sockets too.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			out := []unix.PollFd{{Fd: int32(os.Stdout.Fd())}}
			if n, _ := unix.Poll(out, 200); n > 0 && out[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				cancel(errors.New("nobody reads the output any more"))
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-watched
		stop()
	}
}

// complete fills in what depends on other flags.
func (o *options) complete(only, parts, without string, rounds int, length time.Duration) (err error) {
	if o.only, err = regexp.Compile(only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if rounds < 0 || length < 0 {
		return fmt.Errorf("-rounds and -length must be positive")
	}
	o.plan = wholePlan
	if o.quick {
		o.plan = quickPlan
	}
	if rounds > 0 {
		o.plan.rounds, o.plan.moreRounds = rounds, rounds
	}
	if length > 0 {
		o.plan.length, o.plan.moreLength = length, length
	}
	o.without = strings.Split(without, ",")
	o.parts = o.plan.defaultParts
	if parts != "" {
		o.parts = strings.Split(parts, ",")
	}
	for _, p := range o.parts {
		if !slices.Contains(wholePlan.defaultParts, p) {
			return fmt.Errorf("-parts: there is no part %q", p)
		}
	}
	return nil
}

func run(ctx context.Context, o *options) error {
	begin := time.Now()
	dir, err := os.MkdirTemp(o.dir, "gotgtd-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := startAll(ctx, dir, o)
	defer l.stop()
	if err != nil {
		return err
	}
	r := &report{Date: begin, Machine: thisMachine(ctx, dir, l.targets), Missing: l.missing}
	for _, t := range l.targets {
		r.Targets = append(r.Targets, t.name)
	}
	var failed []error
	for _, part := range o.parts {
		fmt.Printf("\n== %s, %s after the start\n", part, time.Since(r.Date).Round(time.Second))
		switch part {
		case partCompare:
			err = r.compare(ctx, o, l)
		case partFairness:
			r.Fairness, err = measureFairness(ctx, o, l.targets, dir)
		case partScale:
			r.Scale, err = measureScale(ctx, o, l, dir)
		case partPause:
			r.Pause, err = measurePauses(ctx, l, &o.plan, dir)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil { // the other parts' results are worth having
			err = fmt.Errorf("%s: %w", part, err)
			failed = append(failed, err)
			r.Missing = append(r.Missing, err.Error())
		}
	}
	r.Took = time.Since(r.Date)
	if err := r.draw(strings.TrimSuffix(o.out, ".json")); err != nil {
		return err
	}
	if err := writeJSON(o.out, r); err != nil {
		return err
	}
	fmt.Printf("\n== Results, also in %s\n\n", o.out)
	return errors.Join(append(failed, r.writeTables(os.Stdout))...)
}

// roundsOf returns how often and how long a workload is measured.
func (p *plan) roundsOf(w *workload) *rounds {
	if w.goal {
		return &rounds{Count: p.rounds, Length: p.length}
	}
	return &rounds{Count: p.moreRounds, Length: p.moreLength}
}

// measured is the length of all rounds.
func (r *rounds) measured() time.Duration { return time.Duration(r.Count) * r.Length }

// compare runs the workloads, each in its share of the time.
func (r *report) compare(ctx context.Context, o *options, l *lineup) error {
	var chosen []workload
	for _, w := range workloads() {
		if (w.goal || !o.plan.goalsOnly) && o.only.MatchString(w.name+" ("+w.client+")") {
			chosen = append(chosen, w)
		}
	}
	end := time.Now().Add(o.plan.comparison)
	left := time.Duration(0) // what all that are to come measure, for one target
	for i := range chosen {
		left += o.plan.roundsOf(&chosen[i]).measured()
	}
	for i := range chosen {
		w := &chosen[i]
		rs := o.plan.roundsOf(w)
		rs.limit = time.Duration(float64(time.Until(end)) * float64(rs.measured()) / float64(left))
		left -= rs.measured()
		if w.client == clientPerf {
			rs.Length = max(time.Second, rs.Length.Truncate(time.Second)) // it knows no others
		}
		res, err := rs.compare(ctx, w, l.targets)
		if err != nil {
			return err
		}
		r.Results = append(r.Results, res)
		printResult(os.Stdout, res, r.Targets)
		r.Missing = append(r.Missing, res.missing(r.Targets)...)
	}
	r.Goals = judge(r.Results, r.Targets)
	return nil
}
