// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Apply makes the Server serve the targets of a configuration, nil for none: it removes
// those that are not in it, by whatever way they have come, and adds those that are new,
// and does the same with the logical units of those that stay. It returns the plan, which
// is what it does or would have done.
//
// Nothing is changed by what hurts initiators that are logged in ([plan.RefusedError]),
// unless it is forced, by a new store that can't be opened, and by what only an upgrade can
// change: other settings of a target or a logical unit that stays, a logical unit that
// not everybody sees, limits, and accounts of discovery. Portals are the program's, and are not
// looked at. Other errors come too late for that: what can go on goes on, and they
// are all returned. A hand-over under way is waited for, as by AddTarget, and so is another
// Apply, until ctx ends. Sessions of targets that go have as long to log out as with RemoveTarget;
// other changes go on meanwhile, and Shutdown does not wait for it.
func (s *Server) Apply(ctx context.Context, c *config.Config, force bool) (*plan.Plan, error) {
	if s == nil {
		return nil, ErrClosed
	}
	select {
	case s.applies <- struct{}{}:
		defer func() { <-s.applies }()
	case <-ctx.Done():
		return nil, fmt.Errorf("another configuration is being applied: %w", context.Cause(ctx))
	}
	p, a, err := s.beginToApply(c, force)
	if a == nil {
		return p, err
	}
	errs := append(a.errs, finishAll(ctx, a.removals)...)
	s.awaitRemovals() // that others have begun: of the same names, or with the same disks
	end, err := s.change()
	if err != nil {
		return p, errors.Join(append(errs, err)...)
	}
	defer end()
	s.applying = nil
	return p, errors.Join(append(errs, s.add(a)...)...)
}

// application is a configuration on its way.
type application struct {
	removals []*removal
	targets  []*config.Target // that are new
	units    []newUnitOf
	errs     []error
}

// newUnitOf is a logical unit that a target that stays gets.
type newUnitOf struct {
	target *config.Target
	index  int // among its LUNs
}

// beginToApply does what can be done before initiators have logged out. It returns no
// application if nothing is changed.
func (s *Server) beginToApply(c *config.Config, force bool) (*plan.Plan, *application, error) {
	end, err := s.change()
	if err != nil {
		return nil, nil, err
	}
	defer end()
	c, err = s.numbered(c).Complete()
	if err != nil {
		return nil, nil, err
	}
	running := s.Running()
	running.Portals = plan.Portals(c) // they stay
	p := plan.Make(running, c, Look)
	if err := p.Check(); err != nil && !force {
		return p, nil, err
	}
	if err := errors.Join(s.needsUpgrade(p, c)...); err != nil {
		return p, nil, err
	}
	if err := s.checkStores(c); err != nil {
		return p, nil, err
	}
	a := s.whatIsNew(c)
	s.applying = a.targets
	s.removeAbsent(a, c)
	return p, a, nil
}

// numbered returns a copy of a configuration in which the targets that are served have
// their TIDs, unless it gives them others.
func (s *Server) numbered(c *config.Config) *config.Config {
	if c == nil {
		return nil
	}
	n := *c
	n.Targets = slices.Clone(n.Targets)
	for i := range n.Targets {
		t := &n.Targets[i]
		if was := s.find(t.Name); was != nil && t.TID == 0 {
			t.TID = was.conf.TID
		}
	}
	return &n
}

// needsUpgrade says what a Server that runs can't do.
func (s *Server) needsUpgrade(p *plan.Plan, c *config.Config) (errs []error) {
	if !reflect.DeepEqual(c.Limits, s.conf.Limits) {
		errs = append(errs, errors.New("other limits need an upgrade"))
	}
	if !reflect.DeepEqual(c.Discovery, s.conf.Discovery) {
		errs = append(errs, errors.New("other accounts of discovery need an upgrade"))
	}
	for _, ch := range p.Changes {
		switch {
		case ch.Op == "~":
			at := "target " + ch.Target
			if ch.LUN != nil {
				at += fmt.Sprintf(" LUN %d", *ch.LUN)
			}
			errs = append(errs, fmt.Errorf("%s needs an upgrade: %s", at, ch.What))
		case ch.LUN != nil && s.find(ch.Target) != nil && (restricted(s.find(ch.Target).conf, *ch.LUN) || restricted(targetOf(c, ch.Target), *ch.LUN)):
			errs = append(errs, fmt.Errorf("target %s LUN %d needs an upgrade: not everybody sees it", ch.Target, *ch.LUN))
		}
	}
	return errs
}

// targetOf returns the target of a complete configuration, nil if it has none of that name.
func targetOf(c *config.Config, name string) *config.Target {
	i := slices.IndexFunc(c.Targets, func(t config.Target) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return &c.Targets[i]
}

// restricted tells whether a target has a logical unit of that number which not everybody sees.
func restricted(t *config.Target, n uint16) bool {
	return t != nil && slices.ContainsFunc(t.LUNs, func(l config.LUN) bool { return l.Number == n && !l.Access.Everyone() })
}

// isNew tells whether a logical unit is to be added.
func (s *Server) isNew(target string, n uint16) bool {
	lu := s.LogicalUnit(target, n)
	return lu == nil || isController(lu)
}

// checkStores returns what speaks against opening the stores that are new. They may be
// locked by this process still, so what their locks say opening finds out.
func (s *Server) checkStores(c *config.Config) error {
	var errs []error
	for i := range c.Targets {
		t := &c.Targets[i]
		for j := range t.LUNs {
			l := &t.LUNs[j]
			d, name, ok := storage.FindDriver(l.Backend)
			if !ok || d.Check == nil || !s.isNew(t.Name, l.Number) {
				continue
			}
			o := l.Options
			o.InheritLock = true
			if err := d.Check(name, o); err != nil {
				errs = append(errs, l.Pos.Errorf("target %s LUN %d: %w", t.Name, l.Number, err))
			}
		}
	}
	return errors.Join(errs...)
}

// whatIsNew lists what a configuration adds.
func (s *Server) whatIsNew(c *config.Config) *application {
	a := &application{}
	for i := range c.Targets {
		t := &c.Targets[i]
		if s.find(t.Name) == nil {
			a.targets = append(a.targets, t)
			continue
		}
		for j := range t.LUNs {
			if s.isNew(t.Name, t.LUNs[j].Number) {
				a.units = append(a.units, newUnitOf{t, j})
			}
		}
	}
	return a
}

// removeAbsent removes what the configuration has not. Targets are on their way out then. Those
// that stay have the configuration.
func (s *Server) removeAbsent(a *application, c *config.Config) {
	for _, t := range s.targetList() {
		conf := targetOf(c, t.conf.Name)
		if conf == nil {
			a.removals = append(a.removals, s.remove(t))
			continue
		}
		s.reconfigure(t, conf)
		for _, u := range t.device.LogicalUnits() {
			kept := slices.ContainsFunc(conf.LUNs, func(l config.LUN) bool { return l.Number == u.Number })
			if kept || isController(u.Unit) {
				continue
			}
			if err := s.detach(t, u.Number); err != nil {
				a.errs = append(a.errs, fmt.Errorf("target %s LUN %d: %w", t.conf.Name, u.Number, err))
			}
		}
	}
}

// add adds what is new. A target that somebody has removed meanwhile gets nothing.
func (s *Server) add(a *application) (errs []error) {
	for _, u := range a.units {
		t := s.find(u.target.Name)
		if t == nil || t.conf != u.target {
			continue
		}
		if err := s.attach(t, u.index, false); err != nil {
			l := &u.target.LUNs[u.index]
			errs = append(errs, l.Pos.Errorf("target %s LUN %d: %w", u.target.Name, l.Number, err))
		}
	}
	for _, t := range a.targets {
		errs = append(errs, s.addTarget(t, nil))
	}
	return errs
}

// reconfigure gives a target a configuration that differs in its logical units alone. What
// others have of it at the moment stays as it is.
func (s *Server) reconfigure(t *served, conf *config.Target) {
	next := *t
	next.conf = conf
	s.mu.Lock()
	defer s.mu.Unlock()
	s.targets = slices.Clone(s.targets)
	if i := slices.Index(s.targets, t); i >= 0 {
		s.targets[i] = &next
	}
}
