// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/storage"
)

// lacksOne: a logical unit is not ready.
func (w *world) lacksOne(r *plan.Running) bool {
	return slices.ContainsFunc(r.Targets, func(t plan.Target) bool {
		return slices.ContainsFunc(t.LUNs, func(l plan.LUN) bool { return l.Error != "" })
	})
}

// checkUses holds what is taken away in a plan against what the hosts know: it is
// refused exactly if somebody uses it.
func (w *world) checkUses(told *plan.Running, p *plan.Plan) {
	for _, c := range p.Changes {
		if c.Op != "-" && !strings.Contains(c.What, "may not stay") {
			continue
		}
		used := false
		for _, h := range w.hosts {
			for lun, d := range h.disks {
				if h.target == c.Target && (c.LUN == nil || *c.LUN == lun) && slices.ContainsFunc(c.Who, func(who string) bool { return strings.HasPrefix(who, h.name+" ") }) {
					used = used || d.used
				}
			}
		}
		if used && c.Refused == "" {
			w.t.Fatalf("it is in use, and nobody minds: %+v", c)
		}
		if c.Refused != "" && !w.mayBeUsed(told, &c) {
			w.t.Fatalf("nobody uses it: %+v", c)
		}
	}
}

// mayBeUsed: there are sessions, and one of the logical units has been used by
// whomever, or is registered with.
func (w *world) mayBeUsed(told *plan.Running, c *plan.Change) bool {
	for _, t := range told.Targets {
		for _, l := range t.LUNs {
			if t.Name == c.Target && (c.LUN == nil || *c.LUN == l.LUN) && (time.Since(l.LastIO) < plan.RecentIO || len(l.Holders) > 0) {
				return len(c.Who) > 0
			}
		}
	}
	return false
}

// checkChanged holds a plan against what the daemon says of itself before and after:
// it is about everything that is different, and about nothing else.
func (w *world) checkChanged(told *plan.Running, p *plan.Plan) {
	differ := make(map[string]bool)
	was, now := servedParts(told), servedParts(w.daemon.Running())
	for key := range was {
		if was[key] != now[key] {
			differ[key] = true
		}
	}
	for key := range now {
		if _, ok := was[key]; !ok {
			differ[key] = true
		}
	}
	said := make(map[string]bool)
	gone := make(map[string]bool)
	for _, c := range p.Changes {
		key := c.Target
		if c.Portal != "" {
			key = "portal " + c.Portal
		} else if c.LUN != nil {
			key += fmt.Sprintf(" LUN %d", *c.LUN)
		} else if c.Op == "-" {
			gone[c.Target] = true
		}
		said[key] = true
		if !differ[key] && !strings.Contains(c.What, "view") && !strings.Contains(c.What, "masked from") {
			w.t.Fatalf("the plan has a change that is none: %+v", c)
		}
	}
	for key := range differ {
		name, _, _ := strings.Cut(key, " ")
		if !said[key] && !gone[name] {
			w.t.Fatalf("%s is %s and was %s, and the plan does not say so", key, now[key], was[key])
		}
	}
	for _, t := range w.daemon.Running().Targets {
		for _, l := range t.LUNs {
			if id, _, err := storage.Identify(l.Path); l.Error == "" && (err != nil || id != l.Store) {
				w.t.Fatalf("%s LUN %d is %s, and at its path %s is %s: %v", t.Name, l.LUN, l.Store, l.Path, id, err)
			}
		}
	}
}

// servedParts is what runs, but for what changes by itself.
func servedParts(r *plan.Running) map[string]string {
	parts := make(map[string]string)
	for _, p := range r.Portals {
		parts["portal "+p.String()] = fmt.Sprint(p.Announce)
	}
	for _, t := range r.Targets {
		parts[t.Name] = fmt.Sprint(t.TID, t.Settings)
		for _, l := range t.LUNs {
			l.LastIO, l.Holders = time.Time{}, nil
			l.Error = when(l.Error != "", "not ready")
			parts[fmt.Sprintf("%s LUN %d", t.Name, l.LUN)] = fmt.Sprintf("%+v", l)
		}
	}
	return parts
}
