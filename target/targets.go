// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// ErrClosed is the answer of a Server that is closed, or whose targets a successor
// serves.
var ErrClosed = errors.New("the server is closed, or a successor has taken over")

// change begins a change of the targets: there is one at a time, and none during a
// hand-over. end ends it.
func (s *Server) change() (end func(), err error) {
	if s == nil {
		return nil, ErrClosed
	}
	s.changes.Lock()
	if s.ctx.Err() != nil || s.retired.Load() {
		s.changes.Unlock()
		return nil, ErrClosed
	}
	return s.changes.Unlock, nil
}

// AddTarget adds a target with the logical units of conf, whose stores it opens, and
// those of units, which are made already, by number; either may be empty. conf has
// its defaults filled in, in a copy, and is checked; with no TID it gets the lowest
// that is free. The Server owns the logical units from then on, but not on an error. A
// hand-over under way is waited for, and so is a target of the same name that is being removed;
// after a hand-over, and after Close, the error is [ErrClosed].
func (s *Server) AddTarget(conf *config.Target, units map[uint16]*scsi.LogicalUnit) error {
	for {
		end, err := s.change()
		if err != nil {
			return err
		}
		full, err := s.complete(conf)
		var before []*removal
		if err == nil {
			before = s.removing(full.Name)
		}
		if err == nil && len(before) == 0 {
			err = s.addTarget(full, units)
		}
		end()
		if err != nil || len(before) == 0 {
			return err
		}
		<-before[0].done
	}
}

// addTarget is AddTarget of a configuration that is complete. The caller has begun the
// change.
func (s *Server) addTarget(conf *config.Target, units map[uint16]*scsi.LogicalUnit) error {
	t, err := s.build(conf, "", func(string, *config.LUN) bool { return false })
	if err == nil {
		err = t.attachAll(units)
	}
	if err == nil && !s.serve(t) {
		err = ErrClosed
	}
	if err != nil {
		return errors.Join(err, t.dissolve(units))
	}
	s.publish()
	return nil
}

// RemoveTarget takes a target away: nobody can log in to it any more, those who are
// logged in are asked to log out and have 5 s for it, and until ctx ends, and then its
// logical units are closed. The error is that there is no such target, that of closing,
// or what a session still waits for; the target is gone all the same then. A hand-over
// under way is waited for, as by AddTarget.
func (s *Server) RemoveTarget(ctx context.Context, name string) error {
	t, end, err := s.findToChange(name)
	if err != nil {
		return err
	}
	r := s.remove(t)
	end()
	return r.finish(ctx)
}

// serve adds a target to those served, unless the Server is closed.
func (s *Server) serve(t *served) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.targets = append(s.targets, t)
	return true
}

// complete returns a copy of a target's configuration that has its defaults and a TID, and
// can be served beside the targets of now, and those that Apply is about to add.
func (s *Server) complete(t *config.Target) (*config.Target, error) {
	if t == nil {
		return nil, errors.New("can't add a target without a configuration, which has its name")
	}
	one := &config.Config{Targets: []config.Target{*t}}
	one.Targets[0].PortalGroups = nil // they may be of portals that the Server gets later
	tids := make(map[int]string)
	for _, o := range s.targetList() {
		tids[o.conf.TID] = o.conf.Name
	}
	for _, o := range s.applying {
		tids[o.TID] = o.Name
	}
	if t.TID == 0 {
		free := 1
		for tids[free] != "" {
			free++
		}
		one.Targets[0].TID = free
	}
	one, err := one.Complete()
	if err != nil {
		return nil, fmt.Errorf("can't add target %q: %w", t.Name, err)
	}
	conf := &one.Targets[0]
	conf.PortalGroups = slices.Clone(t.PortalGroups)
	if s.find(conf.Name) != nil || slices.ContainsFunc(s.applying, func(o *config.Target) bool { return o.Name == conf.Name }) {
		return nil, fmt.Errorf("target %s is there already", conf.Name)
	}
	if other := tids[conf.TID]; other != "" {
		return nil, fmt.Errorf("can't add target %s: %d is the TID of target %s; leave it 0 for a free one", conf.Name, conf.TID, other)
	}
	return conf, nil
}

// attachAll attaches logical units by their numbers.
func (t *served) attachAll(units map[uint16]*scsi.LogicalUnit) error {
	for _, n := range slices.Sorted(maps.Keys(units)) {
		if err := t.attach(n, units[n]); err != nil {
			return err
		}
	}
	return nil
}

// attach attaches a logical unit, as number 0 in place of the controller that stands there.
func (t *served) attach(n uint16, lu *scsi.LogicalUnit) error {
	if n == 0 && lu != nil && isController(t.device.LogicalUnit(0)) {
		if _, err := t.device.Detach(0); err != nil {
			return err
		}
	}
	err := t.device.Attach(n, lu)
	if err != nil && t.device.LogicalUnit(0) == nil {
		err = errors.Join(err, attachController(t.device, t.log))
	}
	return err
}

// dissolve takes the logical units away from a target that is not served, and closes
// those that are not the caller's.
func (t *served) dissolve(callers map[uint16]*scsi.LogicalUnit) error {
	if t == nil {
		return nil
	}
	var errs []error
	for _, u := range t.device.LogicalUnits() {
		if _, err := t.device.Detach(u.Number); err != nil {
			errs = append(errs, err)
		} else if callers[u.Number] != u.Unit {
			errs = append(errs, u.Unit.Close())
		}
	}
	return errors.Join(errs...)
}

// targetList returns the targets of now.
func (s *Server) targetList() []*served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.targets)
}

func (s *Server) find(name string) *served {
	for _, t := range s.targetList() {
		if strings.EqualFold(t.conf.Name, name) {
			return t
		}
	}
	return nil
}

// findToChange is find for a change.
func (s *Server) findToChange(name string) (t *served, end func(), err error) {
	if end, err = s.change(); err != nil {
		return nil, nil, err
	}
	if t = s.find(name); t == nil {
		end()
		return nil, nil, fmt.Errorf("there is no target %q", name)
	}
	return t, end, nil
}

// LogicalUnit returns logical unit n of a target, nil if there is none. It
// stays the Server's.
func (s *Server) LogicalUnit(target string, n uint16) *scsi.LogicalUnit {
	if s == nil {
		return nil
	}
	if t := s.find(target); t != nil {
		return t.device.LogicalUnit(n)
	}
	return nil
}

// Attach adds a logical unit to a target that is served; initiators learn of
// it. The Server owns lu from then on, but not on an error. A hand-over under way is
// waited for, as by AddTarget.
func (s *Server) Attach(target string, n uint16, lu *scsi.LogicalUnit) error {
	t, end, err := s.findToChange(target)
	if err != nil {
		return err
	}
	defer end()
	return t.attach(n, lu)
}

// Detach takes a logical unit from a target that is served; initiators learn
// of it. It waits for commands under way, after a second no longer for what a store can end,
// and closes the logical unit. The
// error is that of closing, or there was none of that number. A hand-over under way is
// waited for, as by AddTarget.
func (s *Server) Detach(target string, n uint16) error {
	t, end, err := s.findToChange(target)
	if err != nil {
		return err
	}
	defer end()
	return s.detach(t, n)
}

// closePatience is how long a logical unit that is taken away waits for commands under way before
// what they wait for in the store is ended.
const closePatience = time.Second

// detach is Detach in a change that has begun.
func (s *Server) detach(t *served, n uint16) error {
	lu, err := t.device.Detach(n)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := attachController(t.device, t.log); err != nil {
			return err
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- lu.Close() }()
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		s.node.EndCalls(t.device, n)
		return <-closed
	}
}

func isController(lu *scsi.LogicalUnit) bool { return lu != nil && lu.Store() == nil }
