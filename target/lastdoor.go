// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/scsi/reservation"
)

// ReplacedError is a successor's configuration that puts another disk in the
// place of one that a session uses.
type ReplacedError struct {
	Target  string
	LUN     uint16
	Why     string // what tells the disks apart
	Session string // one of those that use it
}

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("target %s LUN %d would be another disk (%s) than the one that %s uses: log that session out first, or force it",
		e.Target, e.LUN, e.Why, e.Session)
}

// InUseError is a successor's configuration that takes a logical unit away which is in
// use.
type InUseError struct {
	Target  string
	LUN     uint16
	Session string // one of those that see it
	Masked  bool   // it is taken away from this session alone
}

func (e *InUseError) Error() string {
	what := "taken away, or offline"
	if e.Masked {
		what = "masked from " + e.Session
	}
	return fmt.Sprintf("target %s LUN %d would be %s, and it has been read or written within %v or is reserved: log %s out first, or force it",
		e.Target, e.LUN, what, plan.RecentIO, e.Session)
}

// DismissedError is a successor's configuration by which a session that uses its target
// may not stay.
type DismissedError struct {
	Target  string
	Why     string // why it may not
	Session string
}

func (e *DismissedError) Error() string {
	return fmt.Sprintf("target %s would ask %s to log out (%s), which has read or written within %v or has a reservation: log it out first, or force it",
		e.Target, e.Session, e.Why, plan.RecentIO)
}

// LostError is a successor that can't open the store of a logical unit that a session
// uses.
type LostError struct {
	Target  string
	LUN     uint16
	Why     string // the error
	Session string // one of those that see it
}

func (e *LostError) Error() string {
	return fmt.Sprintf("target %s LUN %d, which %s uses, would not be ready: %s: mend that, log that session out first, or force it",
		e.Target, e.LUN, e.Session, e.Why)
}

// lastDoor refuses what would put another disk under a session, or take one away that
// is in use or can't be opened any more, or that session's right to it, unless it is forced. A
// plan has looked before anything was opened, but an initiator can log in or begin to read
// meanwhile, and an embedding program makes no plan. The sessions are restored by now, and
// nothing runs.
func (t *taker) lastDoor(sessions []iscsi.SessionInfo, devices map[string]scsi.DeviceState) error {
	if o := &t.server.options; o.Force && len(o.ForceFor) == 0 {
		return nil
	}
	d := newDoor(t.server, sessions, devices)
	return errors.Join(slices.Concat(d.replacements(), d.removals(), d.dismissals(t.leave), d.masks())...)
}

// door has what lastDoor compares.
type door struct {
	server  *Server
	devices map[string]scsi.DeviceState // as they were served
	users   map[string][]user           // by the target, those that have just read or written first
}

// user is a session, which sees already what it will.
type user struct {
	*iscsi.SessionInfo
	masked []uint16 // what it has not seen until now
}

func newDoor(s *Server, sessions []iscsi.SessionInfo, devices map[string]scsi.DeviceState) *door {
	d := &door{s, devices, make(map[string][]user)}
	type nexus struct {
		target, initiator string
		isid              [6]byte
	}
	masked := make(map[nexus][]uint16)
	for name, device := range devices {
		for _, n := range device.Nexuses {
			masked[nexus{name, n.Initiator, n.ISID}] = n.Masked
		}
	}
	for i := range sessions {
		s := &sessions[i]
		if was, ok := masked[nexus{s.Target, s.Initiator, s.ISID}]; ok {
			d.users[s.Target] = append(d.users[s.Target], user{s, was})
		}
	}
	for _, list := range d.users {
		slices.SortStableFunc(list, func(a, b user) int { return b.LastIO.Compare(a.LastIO) })
	}
	return d
}

func (d *door) replacements() (errs []error) {
	for _, st := range d.server.targets {
		for _, r := range st.device.Replaced() {
			if user := d.seer(st.conf.Name, r.Number); user != "" && !d.forced(st.conf.Name, &r.Number) {
				errs = append(errs, &ReplacedError{st.conf.Name, r.Number, r.Why, user})
			}
		}
	}
	return errs
}

func (d *door) removals() (errs []error) {
	there := d.server.byName()
	for _, name := range slices.Sorted(maps.Keys(d.devices)) {
		for _, u := range d.devices[name].Units {
			user := d.seer(name, u.LUN)
			if u.Controller || user == "" || d.forced(name, &u.LUN) {
				continue
			}
			var lu *scsi.LogicalUnit
			if st := there[name]; st != nil {
				lu = st.device.LogicalUnit(u.LUN)
			}
			switch {
			case isDisk(lu) && !u.Absent && lateReason(lu) != "":
				errs = append(errs, &LostError{name, u.LUN, lateReason(lu), user})
			case (!isDisk(lu) || goesOffline(lu, &u)) && inUse(&u):
				errs = append(errs, &InUseError{name, u.LUN, user, false})
			}
		}
	}
	return errs
}

// forced tells whether a target, or a logical unit of it, is among what force is meant for.
func (d *door) forced(target string, lun *uint16) bool {
	o := &d.server.options
	return o.Force && slices.ContainsFunc(o.ForceFor, func(p plan.Part) bool { return p.Has(target, lun) })
}

// dismissals are of sessions that may not stay, and use their target.
func (d *door) dismissals(leave []dismissed) (errs []error) {
	there := d.server.byName()
	for _, s := range leave {
		if there[s.Target] == nil || s.Leaving || d.forced(s.Target, nil) { // removals tells of the first, and the second is no news
			continue
		}
		used := func(u scsi.UnitState) bool { return usedBy(&u, s.SessionInfo) }
		if slices.ContainsFunc(d.devices[s.Target].Units, used) {
			errs = append(errs, &DismissedError{s.Target, s.why, sessionName(s.SessionInfo)})
		}
	}
	return errs
}

// masks are of logical units that a session uses and does not see from now on.
func (d *door) masks() (errs []error) {
	for name, users := range d.users {
		for _, s := range users {
			if slices.Equal(s.Masked, s.masked) {
				continue
			}
			for _, u := range d.devices[name].Units {
				goes := !u.Controller && slices.Contains(s.Masked, u.LUN) && !slices.Contains(s.masked, u.LUN)
				if goes && !d.forced(name, &u.LUN) && usedBy(&u, s.SessionInfo) {
					errs = append(errs, &InUseError{name, u.LUN, sessionName(s.SessionInfo), true})
				}
			}
		}
	}
	return errs
}

// seer names a session that has seen a logical unit, empty if there is none: one that has
// read or written last, if there are several.
func (d *door) seer(target string, lun uint16) string {
	for _, s := range d.users[target] {
		if !slices.Contains(s.masked, lun) {
			return sessionName(s.SessionInfo)
		}
	}
	return ""
}

func sessionName(s *iscsi.SessionInfo) string {
	return fmt.Sprintf("%s (TSIH %d)", plan.Printable(s.Initiator), s.TSIH)
}

func isDisk(lu *scsi.LogicalUnit) bool { return lu != nil && !isController(lu) }

// goesOffline reports whether a disk is taken offline. A process that does not tell what it has
// of mode pages does not tell that either.
func goesOffline(lu *scsi.LogicalUnit, was *scsi.UnitState) bool {
	return !lu.Info().Online && !was.Offline && !was.Ejected && !was.Absent && len(was.ModePages) > 0
}

// inUse is what a plan calls so.
func inUse(u *scsi.UnitState) bool {
	return isRecent(u.LastUse()) || u.Reservations.Reserved != nil || len(u.Reservations.Registrations) > 0
}

// usedBy reports whether a session uses a logical unit: it has read or written lately, as the
// logical unit was, or its initiator has a reservation or registration.
func usedBy(u *scsi.UnitState, s *iscsi.SessionInfo) bool {
	r := &u.Reservations
	return isRecent(s.LastIO) && isRecent(u.LastUse()) || r.Reserved != nil && r.Reserved.Initiator == s.Initiator ||
		slices.ContainsFunc(r.Registrations, func(r reservation.Registration) bool { return r.Nexus.Initiator == s.Initiator })
}

func isRecent(t time.Time) bool { return !t.IsZero() && time.Since(t) < plan.RecentIO }
