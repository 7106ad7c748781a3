// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

// PauseLimit is the longest pause of a handoff. open-iscsi sends a NOP-Out after 5 seconds
// of silence, and is the first initiator to notice a longer pause.
const PauseLimit = 4 * time.Second

// servingWait is how long the predecessor waits for the pause to be reported.
const servingWait = time.Second

// Giver is what has state to give. Its methods are called in the order in
// which they stand here; Thaw instead of what would come next when something
// failed after Freeze.
type Giver interface {
	// Needs names the features that a reader of the snapshot must know.
	Needs() []string
	// Freeze stops all sessions. If it fails, they go on.
	Freeze(ctx context.Context) error
	// Snapshot fills in sections and files. The files are sent in that order
	// and stay the giver's.
	Snapshot(s *Snapshot) (files []int, err error)
	// Thaw goes on as before.
	Thaw()
	// Committed says that ownership has moved.
	Committed()
}

// A giver may say before the freeze that there is no room for what it holds: why the snapshot
// can't be taken. follows says that the successor takes data that follows.
type roomy interface{ Room(follows bool) error }

// Report is what an upgrade did. Durations are in nanoseconds.
type Report struct {
	Time        time.Time `cbor:"1,keyasint" json:"time"`
	Generation  int       `cbor:"2,keyasint" json:"generation"` // of the successor
	OldPID      int       `cbor:"3,keyasint" json:"old_pid"`
	NewPID      int       `cbor:"4,keyasint" json:"new_pid"`
	OldVersion  string    `cbor:"5,keyasint" json:"old_version"`
	NewVersion  string    `cbor:"6,keyasint" json:"new_version"`
	Sessions    int       `cbor:"7,keyasint" json:"sessions"`
	Connections int       `cbor:"8,keyasint" json:"connections"`
	Tasks       int       `cbor:"9,keyasint" json:"tasks"`
	Bytes       int64     `cbor:"10,keyasint" json:"bytes"` // of the snapshot

	Pause  time.Duration `cbor:"11,keyasint" json:"pause"` // from the first reader stopped to the last reader started
	Phases []Phase       `cbor:"12,keyasint" json:"phases"`
	Error  string        `cbor:"13,keyasint" json:"error,omitempty"` // why it failed; empty: it did not

	// Plan is what the successor's configuration changes, for people, a line each.
	Plan []string `cbor:"14,keyasint,omitempty" json:"plan,omitempty"`

	// Totals is what all upgrades up to this one have come to, in the last report of a history.
	Totals *UpgradeTotals `cbor:"15,keyasint,omitempty" json:"-"`

	// TakenOver says of an upgrade that has failed that the successor had taken over before it died: there is nobody to go on.
	TakenOver bool `cbor:"16,keyasint,omitempty" json:"taken_over,omitempty"`
}

// HistoryLength is how many reports are kept.
const HistoryLength = 32

// Remember adds a report to a history.
func Remember(history []Report, r Report) []Report {
	all := TotalsOf(history).with(&r)
	r.Totals = &all
	history = append(slices.Clone(history), r)
	if n := len(history); n > 1 {
		history[n-2].Totals = nil
	}
	return history[max(0, len(history)-HistoryLength):]
}

// Phase is a part of an upgrade.
type Phase struct {
	Name     string        `cbor:"1,keyasint" json:"name"`
	Duration time.Duration `cbor:"2,keyasint" json:"duration"`
}

// stopwatch adds phases to a report.
type stopwatch struct {
	r    *Report
	last time.Time
}

func (w *stopwatch) lap(name string) {
	now := time.Now()
	w.r.Phases = append(w.r.Phases, Phase{name, now.Sub(w.last)})
	w.last = now
}

// Options of a handoff.
type Options struct {
	Version string
	// History is the reports of upgrades before, oldest first.
	History []Report
	// Limit is the longest pause; 0: PauseLimit.
	Limit time.Duration
	// Kill ends the successor at once. It is called before the giver thaws.
	Kill func()
}

// Give hands the giver's state to the successor at the other end of c, and
// completes the report: what the caller knows about the upgrade is in it, and
// began is when the upgrade began. If it returns an error the successor is dead
// and the giver serves as before, unless [Giver.Committed] was called; the
// error says at which step.
func Give(ctx context.Context, c *net.UnixConn, g Giver, o Options, began time.Time, r *Report) error {
	w := wire{c}
	watch := &stopwatch{r: r, last: began}
	hello, err := awaitHello(ctx, w)
	if err == nil {
		r.NewVersion, r.OldVersion, r.NewPID, r.OldPID = hello.Version, o.Version, hello.PID, os.Getpid()
		r.Plan = hello.Plan
		err = hello.Check(g.Needs())
	}
	if r, ok := g.(roomy); ok && err == nil {
		err = r.Room(slices.Contains(hello.Features, featureRest))
	}
	if err != nil {
		return fmt.Errorf("before the freeze: %w", err)
	}
	watch.lap("start")
	at("old.hello")
	limit := o.Limit
	if limit <= 0 {
		limit = PauseLimit
	}
	pause, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the pause reached its limit of %v", limit))
	defer cancel()
	frozen := monotonic()
	if err := g.Freeze(pause); err != nil {
		return fmt.Errorf("freezing: %w", because(pause, err))
	}
	watch.lap("freeze")
	at("old.frozen")
	s := &Snapshot{Schema: Schema, Version: o.Version, Needs: g.Needs(), Frozen: frozen, History: o.History}
	s.apart, s.known = slices.Contains(hello.Features, featureBulk), hello.Features
	s.ctx = pause
	finish, err := prepare(pause, w, g, s, watch)
	if err == nil {
		err = commit(pause, w, o, watch)
	}
	if err != nil {
		_ = finish(false)
	}
	if errors.Is(err, errTakenAndDead) {
		r.TakenOver = true
		g.Committed()
		return err
	}
	if err != nil {
		err = because(pause, err)
		w.abort()
		o.Kill()
		g.Thaw()
		return err
	}
	g.Committed()
	awaitServing(w, watch)
	_ = finish(true) // the successor says what it misses
	watch.lap("rest")
	return nil
}

// because adds to an error why ctx has ended, if it has.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	return err
}

// awaitHello waits for the successor's first word.
func awaitHello(ctx context.Context, w wire) (*Hello, error) {
	release := w.bound(ctx)
	defer release()
	m, _, err := w.expect(kindHello)
	switch {
	case err != nil:
		return nil, because(ctx, err)
	case m.Hello == nil:
		return nil, errors.New("HELLO without contents")
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return m.Hello, nil
}

// errTakenAndDead means that the successor had taken over and did not live to
// serve: nobody may touch the sessions any more.
var errTakenAndDead = errors.New("the successor took over and died")

// prepare brings the successor to the point where it could take over. finish is to be called
// when it has, or has not: it writes what follows, or does not.
func prepare(ctx context.Context, w wire, g Giver, s *Snapshot, watch *stopwatch) (finish func(write bool) error, err error) {
	release := w.bound(ctx)
	defer release()
	finish = func(bool) error { return nil }
	files, err := g.Snapshot(s)
	if err == nil {
		err = s.Err()
	}
	var b []byte
	if err == nil {
		b, err = s.Marshal()
	}
	var rest *os.File
	if err == nil {
		rest, finish, err = s.rest.open()
	}
	if err != nil {
		return finish, fmt.Errorf("taking the snapshot: %w", err)
	}
	watch.r.Bytes = int64(len(b)) + s.bulkSize
	watch.lap("snapshot")
	if err := w.sendSnapshot(s, b, files, rest); err != nil {
		if isGone(err) || errors.Is(err, os.ErrDeadlineExceeded) { // perhaps it has said why
			_, _, err = w.expect(kindPrepared)
		}
		return finish, fmt.Errorf("sending the snapshot: %w", err)
	}
	watch.lap("send")
	at("old.sent")
	if _, _, err := w.expect(kindPrepared); err != nil {
		return finish, fmt.Errorf("after the snapshot was sent: %w", err)
	}
	watch.lap("prepare")
	at("old.prepared")
	return finish, nil
}

// commit moves ownership. Once COMMIT is on its way, whether the successor has
// taken over is known only from TAKEN, which it sends before it touches
// anything, or from its death without that. From then on only the limit of the
// pause is a reason to give up: the sessions would be lost with a successor
// that is killed just after TAKEN.
func commit(ctx context.Context, w wire, o Options, watch *stopwatch) error {
	if ctx.Err() != nil {
		return fmt.Errorf("before COMMIT: %w", context.Cause(ctx))
	}
	limit, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if deadline, ok := ctx.Deadline(); ok {
		limit, cancel = context.WithDeadline(limit, deadline)
	}
	defer cancel()
	release := w.bound(limit)
	err := w.send(&message{Kind: kindCommit, Report: watch.r})
	at("old.committed")
	if err == nil {
		_, _, err = w.expect(kindTaken)
	}
	release()
	if err == nil {
		watch.lap("commit")
		at("old.taken")
		return nil
	}
	o.Kill()
	for {
		m, files, end := w.receive()
		closeAll(files)
		switch {
		case isGone(end):
			return fmt.Errorf("after COMMIT: %w", err)
		case end == nil && m.Kind == kindTaken:
			return fmt.Errorf("%w: after COMMIT: %w", errTakenAndDead, err)
		}
	}
}

// awaitServing completes the report with the pause, if the successor tells
// it in time. Nothing depends on it any more.
func awaitServing(w wire, watch *stopwatch) {
	ctx, cancel := context.WithTimeout(context.Background(), servingWait)
	defer cancel()
	release := w.bound(ctx)
	defer release()
	m, _, err := w.expect(kindServing)
	if err == nil && m.Report != nil {
		watch.r.Pause = m.Report.Pause
	}
	watch.lap("resume")
}
