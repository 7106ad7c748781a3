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

	"github.com/gotgtd/gotgtd/internal/contain"
)

// Taker is what takes state over. Its methods are called in the order in
// which they stand here.
type Taker interface {
	// Restore rebuilds everything from the snapshot and its files, which are
	// the taker's from then on. Nothing may run yet, and nothing may refer to data of
	// the snapshot afterwards.
	Restore(s *Snapshot, files []*os.File) error
	// Start goes on with what was restored: this process owns it now.
	Start()
}

// ErrAborted is Take's answer when the predecessor goes on itself. The caller
// must let go of everything and exit.
var ErrAborted = errors.New("the predecessor goes on itself")

// prepareWait bounds how long a successor waits for the predecessor's word.
// It is no deadline of the handoff, only a safeguard against waiting for ever:
// the predecessor kills a successor that it gives up.
const prepareWait = time.Minute

// Take takes over the state of the predecessor at the other end of c. On an
// error nothing was taken and the caller must exit; the predecessor is told
// why. It returns the history of upgrades, this one last.
func Take(ctx context.Context, c *net.UnixConn, t Taker, hello Hello) ([]Report, error) {
	w := wire{c}
	ctx, cancel := context.WithTimeout(ctx, prepareWait)
	defer cancel()
	release := w.bound(ctx)
	defer release()
	at("new.start")
	hello.PID = os.Getpid()
	hello.Features = append(slices.Clip(hello.Features), featureBulk, featureRest)
	hello.Plan = trimPlan(hello.Plan)
	hello.Oldest, hello.Newest = schemas()
	if err := w.send(&message{Kind: kindHello, Hello: &hello}); err != nil {
		return nil, err
	}
	at("new.hello")
	s, files, err := w.receiveSnapshot()
	at("new.received")
	if err != nil {
		return nil, w.fail(fmt.Errorf("can't take over: %w", err))
	}
	// A panic is a fault of this version and no reason to leave the predecessor without one.
	err = contain.Call(func() error { return t.Restore(s, files) })
	s.release()
	defer s.drop()
	if err != nil {
		return nil, w.fail(fmt.Errorf("can't take over: %w", err))
	}
	at("new.restored")
	// If the predecessor has gone, its last word may still be here to read.
	if err := w.send(&message{Kind: kindPrepared}); err != nil && !isGone(err) {
		return nil, err
	}
	at("new.prepared")
	m, _, err := w.expect(kindCommit, kindAbort)
	switch {
	case isGone(err):
		// The predecessor has died, and everything is here: go on.
		return w.serve(t, s, &Report{Time: time.Now(), NewPID: hello.PID, NewVersion: hello.Version, OldVersion: s.Version}), nil
	case err != nil:
		return nil, err
	case m.Kind == kindAbort:
		return nil, ErrAborted
	}
	// From here on this process owns everything, whether TAKEN arrives or not:
	// if it does not, that is because the predecessor has died.
	at("new.committed")
	_ = w.send(&message{Kind: kindTaken})
	at("new.taken")
	if m.Report != nil {
		m.Report.lap("commit", s.paused())
	}
	return w.serve(t, s, m.Report), nil
}

// serve starts the taker, reports the pause, and returns the history.
func (w wire) serve(t Taker, s *Snapshot, r *Report) []Report {
	t.Start()
	if r == nil {
		r = new(Report)
	}
	r.Pause = s.paused()
	if len(r.Phases) > 0 { // else the predecessor has died, and its phases are not known
		r.lap("resume", r.Pause)
	}
	_ = w.send(&message{Kind: kindServing, Report: &Report{Pause: r.Pause}})
	return Remember(s.History, *r)
}

// paused is how long nothing has been served so far.
func (s *Snapshot) paused() time.Duration { return time.Duration(monotonic() - s.Frozen) }

// lap adds the phase that ends at this time of the pause. The predecessor's report was sent before it could
// know that phase.
func (r *Report) lap(name string, paused time.Duration) {
	for _, p := range r.Phases {
		if p.Name != "start" { // which is before the pause
			paused -= p.Duration
		}
	}
	r.Phases = append(r.Phases, Phase{name, max(paused, 0)})
}

// Decline tells the predecessor at the other end of c why this process will
// not even say HELLO.
func Decline(c *net.UnixConn, err error) { _ = wire{c}.fail(err) }

// fail tells the predecessor why this process can't take over.
func (w wire) fail(err error) error {
	what := err.Error()
	_ = w.send(&message{Kind: kindFailed, Error: what[:min(len(what), maxMessage/2)]})
	return err
}
