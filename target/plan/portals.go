// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/config"
)

// Portal is a portal of the configuration that is served.
type Portal struct {
	Group    uint16   `json:"group"` // portal group tag
	At       string   `json:"at"`    // config.Portal.At
	Announce []string `json:"announce,omitempty"`
}

// Portals describes the portals of a configuration, never as nil.
func Portals(c *config.Config) []Portal {
	list := []Portal{}
	for _, g := range c.PortalGroups {
		for _, p := range g.Portals {
			list = append(list, Portal{g.Tag, p.At(), p.Announce})
		}
	}
	return list
}

func (p *Portal) String() string { return fmt.Sprintf("%s of group %d", p.At, p.Group) }

// announced says what discovery tells of the portal.
func (p *Portal) announced() string {
	if len(p.Announce) == 0 {
		return "under its own address"
	}
	return "as " + strings.Join(p.Announce, ", ")
}

// portals compares the portals. Where a configuration does not say where the
// running process listens, there is nothing to compare.
func (p *planner) portals(wanted []Portal) {
	if p.running.Portals == nil {
		return
	}
	gone := slices.Clone(p.running.Portals)
	for _, w := range wanted {
		i := slices.IndexFunc(gone, func(was Portal) bool { return was.At == w.At && was.Group == w.Group })
		if i < 0 {
			p.note(Change{Op: "+", Portal: w.String(), What: "announced " + w.announced()})
			continue
		}
		if was := gone[i]; !slices.Equal(was.Announce, w.Announce) {
			p.note(Change{Op: "~", Portal: w.String(), What: fmt.Sprintf("announced %s instead of %s; sessions go on, discovery tells it from now on", w.announced(), was.announced())})
		}
		gone = slices.Delete(gone, i, i+1)
	}
	p.goneGroups = make(map[uint16]bool)
	for _, g := range gone {
		stays := slices.ContainsFunc(wanted, func(w Portal) bool { return w.Group == g.Group })
		p.goneGroups[g.Group] = !stays && (len(wanted) > 0 || g.Group != 1) // without any, group 1 has the default
		p.note(Change{Op: "-", Portal: g.String(), What: "initiators can't log in there any more; sessions of a group without portals are asked to log out"})
	}
}
