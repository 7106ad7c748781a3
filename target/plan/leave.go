// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
)

// compareLeave is about the sessions of a target that stays and that they may not use
// any more: for them it is as gone. It returns the others.
func (p *planner) compareLeave(was *Target, t *config.Target, sessions []*Session) (stay []*Session) {
	leave := make(map[string][]*Session) // by the reason
	for _, s := range sessions {
		if why := p.dismissal(t, s); why != "" {
			leave[why] = append(leave[why], s)
		} else {
			stay = append(stay, s)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(leave)) {
		goes := leave[why]
		c := Change{Op: "~", Target: t.Name, What: count(len(goes), "session") + " may not stay: " + why, Who: names(goes), Sees: "asked to log out, then ended"}
		if users := p.leavers(was.LUNs, goes); users != "" {
			c.Refused = why + ", and it is in use: " + users + ". Unmount it there and wait for " + RecentIO.String() + ", or end these sessions (" + endSession + ")"
		}
		p.note(c)
	}
	return stay
}

// dismissal says why a session may not stay, as far as a process tells what that takes.
// It is no news for one that was asked to leave before.
func (p *planner) dismissal(t *config.Target, s *Session) string {
	switch {
	case s.Leaving:
	case t.Offline:
		return "the target is offline then"
	case s.Group != 0 && !p.offers(t, s.Group):
		return fmt.Sprintf("portal group %d does not offer the target any more", s.Group)
	case s.From.IsValid() && !t.Access.Allows(s.From, s.Initiator, s.Account):
		return "access does not admit them any more"
	}
	return ""
}

// nextLogin says what sessions that may stay see of other settings of their target.
func nextLogin(t *config.Target, stay []*Session) string {
	lost := 0
	for _, s := range stay {
		known := slices.ContainsFunc(t.Auth.Users, func(a config.Account) bool { return a.User == s.Account })
		if s.Account != "" && len(t.Auth.Users) > 0 && !known {
			lost++
		}
	}
	text := "goes on; new values count at the next login"
	if lost > 0 {
		text += ", which is refused to " + count(lost, "session") + " whose account is gone"
	}
	return text
}

// offers reports whether a portal group will offer a target that it offers now.
func (p *planner) offers(t *config.Target, group uint16) bool {
	if len(t.PortalGroups) > 0 {
		return slices.Contains(t.PortalGroups, group)
	}
	return !p.goneGroups[group]
}

// leavers says which of the sessions use their target: they have read or written
// within [RecentIO], or their initiator has a reservation of one of the logical units.
func (p *planner) leavers(luns []LUN, sessions []*Session) string {
	recent := slices.ContainsFunc(luns, func(l LUN) bool { return p.recent(l.LastIO) }) // of what is still there
	var list []string
	for _, s := range sessions {
		i := slices.IndexFunc(luns, func(l LUN) bool { return l.heldBy(s) })
		switch {
		case i >= 0:
			list = append(list, fmt.Sprintf("%s has a reservation of, or registration with, LUN %d", s, luns[i].LUN))
		case recent && p.recent(s.LastIO):
			list = append(list, fmt.Sprintf("%s has read or written %v ago", s, p.now.Sub(s.LastIO).Round(time.Second)))
		}
	}
	return someOf(list)
}

// heldBy reports whether the session's initiator has a reservation or registration.
func (l *LUN) heldBy(s *Session) bool {
	return slices.ContainsFunc(l.Holders, func(h string) bool { return strings.HasPrefix(h, s.Initiator+",") })
}

// someOf joins the first of a list of reasons.
func someOf(list []string) string {
	if n := len(list) - maxNamed; n > 0 {
		list = append(list[:maxNamed:maxNamed], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(list, "; ")
}
