// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/target/plan"
)

// lay puts what tgtadm has changed, as the predecessor tells it, on top of a
// configuration.
func (d *daemon) lay(b *briefing, conf *config.Config) error {
	if b.Running == nil || b.Running.Overlay == nil {
		return nil
	}
	d.overlay = b.Running.Overlay
	if err := d.explicitPortals(conf, d.overlay.Operations); err != nil {
		return err
	}
	for _, err := range d.overlay.Apply(conf) {
		d.log.Warn("no longer fits the configuration", "operation", err)
	}
	return conf.ValidateToPlan(b.Running.NotOpen)
}

// Change implements [control.Daemon]: the operations are planned like every
// reload and carried out by an upgrade.
func (d *daemon) Change(ctx context.Context, ops []overlay.Operation) error {
	if err := d.takeTurn(ctx); err != nil {
		return err
	}
	defer d.endTurn()
	runs := d.Running()
	conf, err := d.options.configuration(runs.Numbers())
	if err != nil {
		return fmt.Errorf("%w: the configuration file: %w", overlay.ErrInvalidRequest, err)
	}
	if err := d.passed(ops); err != nil {
		return err
	}
	if err := d.explicitPortals(conf, append(slices.Clone(ops), runs.Overlay.List()...)); err != nil {
		return err
	}
	// What the file has in it by now goes along. It may not hurt.
	runs.Overlay.Apply(conf)
	if err := plan.Make(runs, conf, target.Look).Check(); err != nil {
		return fmt.Errorf("%w: the configuration file was changed: %w", overlay.ErrInvalidRequest, err)
	}
	next, err := d.overlay.Add(conf, ops, runs.NotOpen)
	if err != nil {
		return err
	}
	if err := d.idle(ops); err != nil {
		return err
	}
	p := plan.Make(runs, conf, target.Look)
	var forced []plan.Part
	if p.Check() != nil {
		forced = takenAway(runs, ops)
		p.Force(forced...)
	}
	if err := p.Check(); err != nil {
		return fmt.Errorf("%w: %w", overlay.ErrInvalidRequest, err)
	}
	runs.Overlay = next
	_, err = d.upgrade(ctx, &briefing{Running: runs, Force: len(forced) > 0, ForceFor: forced})
	return err
}

// takenAway returns what the operations delete or take offline, if they do nothing else: that is
// never meant for something else, and what idle has let pass is done, as tgt does. Nothing else is.
func takenAway(runs *plan.Running, ops []overlay.Operation) []plan.Part {
	var parts []plan.Part
	for _, op := range ops {
		if op.Op != "delete" && !takesOffline(&op) {
			return nil
		}
		for _, t := range runs.Targets {
			switch {
			case op.TID == 0 || t.TID != op.TID:
			case op.Mode == "target":
				parts = append(parts, plan.Part{Target: t.Name})
			case op.Mode == "logicalunit":
				parts = append(parts, plan.Part{Target: t.Name, LUN: new(op.LUN)})
			}
		}
	}
	return parts
}

func takesOffline(op *overlay.Operation) bool {
	want := map[string]overlay.Param{"target": {Name: "state", Value: "offline"}, "logicalunit": {Name: "online", Value: "0"}}[op.Mode]
	return op.Op == "update" && want.Name != "" && !slices.ContainsFunc(op.Params, func(p overlay.Param) bool { return p != want })
}

// idle refuses to delete what tgt would not: a target with sessions, unless that is
// forced, and a logical unit with commands under way.
func (d *daemon) idle(ops []overlay.Operation) error {
	st := d.server.Status()
	names := map[int]string{}
	for _, t := range st.Targets {
		names[t.TID] = t.Name
	}
	for _, op := range ops {
		for _, s := range st.Sessions {
			switch {
			case op.Op != "delete" || op.Force || s.Target == "" || s.Target != names[op.TID]:
			case op.Mode == "target":
				return overlay.ErrTargetActive
			case op.Mode == "logicalunit" && s.Tasks > 0:
				return overlay.ErrLUNActive
			}
		}
	}
	return nil
}

// explicitPortals writes down where a configuration that names no portals listens, for
// operations that add to that or take from it.
func (d *daemon) explicitPortals(conf *config.Config, ops []overlay.Operation) error {
	if len(conf.PortalGroups) > 0 || !slices.ContainsFunc(ops, func(o overlay.Operation) bool { return o.Mode == "portal" }) {
		return nil
	}
	passed, err := d.process.Listeners()
	for _, l := range passed {
		err = errors.Join(err, l.Close())
	}
	if len(passed) == 0 {
		conf.PortalGroups = defaultPortals()
	}
	return err
}

// passed refuses to open or close a portal that is a socket of the service manager's: it
// would be there again, or still be there, with the next start.
func (d *daemon) passed(ops []overlay.Operation) error {
	portals := d.server.Status().Portals
	for _, op := range ops {
		address, err := config.ParsePortal(op.Portal)
		want, parseErr := netip.ParseAddrPort(address)
		if op.Mode != "portal" || err != nil || parseErr != nil {
			continue
		}
		for _, p := range portals {
			if p.Name != "" && p.Address.Port() == want.Port() && (p.Address.Addr() == want.Addr() || p.Address.Addr().IsUnspecified()) {
				return fmt.Errorf("%w: the socket %q, which the service manager has passed, listens for %s: change its ListenStream=, or --listen of upgraded, and restart both",
					overlay.ErrInvalidRequest, p.Name, want)
			}
		}
	}
	return nil
}
