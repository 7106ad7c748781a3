// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
)

// compareView plans what a change of the access list does: the logical unit appears for some
// sessions and disappears for others. To the latter it is as if it were removed.
func (p *planner) compareView(was *LUN, l *config.LUN, target string, sessions []*Session) {
	var comes, goes []*Session
	for _, s := range sessions {
		if !s.From.IsValid() {
			continue // the process that runs is of a version without access lists
		}
		_, hidden := slices.BinarySearch(s.Masked, l.Number)
		switch will := l.Access.Allows(s.From, s.Initiator, s.Account); {
		case will && hidden:
			comes = append(comes, s)
		case !will && !hidden:
			goes = append(goes, s)
		}
	}
	const told = "REPORTED LUNS DATA HAS CHANGED"
	if len(comes) > 0 {
		p.note(Change{Op: "+", Target: target, LUN: new(l.Number), What: "comes into view of " + count(len(comes), "session"), Who: names(comes), Sees: told})
	}
	if len(goes) == 0 {
		return
	}
	c := Change{Op: "-", Target: target, LUN: new(l.Number), What: "masked from " + count(len(goes), "session"), Who: names(goes), Sees: told}
	if users := p.viewers(was, goes); users != "" {
		c.Refused = "it is in use: " + users + ". Unmount it there and wait for " + RecentIO.String() + ", or end these sessions (" + endSession + ")"
	}
	p.note(c)
}

// seers are the sessions that a logical unit is not masked from.
func seers(sessions []*Session, lun uint16) []*Session {
	return slices.DeleteFunc(slices.Clone(sessions), func(s *Session) bool {
		_, hidden := slices.BinarySearch(s.Masked, lun)
		return hidden
	})
}

// willSee are the sessions that a logical unit will not be masked from, as far as
// they tell what access lists ask for.
func willSee(sessions []*Session, l *config.LUN) []*Session {
	return slices.DeleteFunc(slices.Clone(sessions), func(s *Session) bool {
		return s.From.IsValid() && !l.Access.Allows(s.From, s.Initiator, s.Account)
	})
}

// viewers says which of the sessions use a logical unit: they have read or written
// within [RecentIO], as it was, or their initiator has a reservation of it.
func (p *planner) viewers(l *LUN, sessions []*Session) string {
	var list []string
	for _, s := range sessions {
		switch {
		case l.heldBy(s):
			list = append(list, s.String()+" has a reservation or registration")
		case p.recent(l.LastIO) && p.recent(s.LastIO):
			list = append(list, fmt.Sprintf("%s has read or written %v ago", s, p.now.Sub(s.LastIO).Round(time.Second)))
		}
	}
	return someOf(list)
}
