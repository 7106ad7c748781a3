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
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("target %s LUN %d would be taken away, and it has been read or written within %v or is reserved: log %s out first, or force it",
		e.Target, e.LUN, plan.RecentIO, e.Session)
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
// is in use or can't be opened any more, unless it is forced. A plan has looked before
// anything was opened, but an initiator can log in meanwhile, and an embedding program
// makes no plan.
func (t *taker) lastDoor(state *iscsi.NodeState, devices map[string]scsi.DeviceState) error {
	if t.server.options.Force {
		return nil
	}
	d := door{t.server, state.Sessions, devices}
	return errors.Join(append(d.replacements(), d.removals()...)...)
}

// door is what the last door looks at.
type door struct {
	server   *Server
	sessions []iscsi.SessionState
	devices  map[string]scsi.DeviceState // as they were served
}

func (d *door) replacements() (errs []error) {
	for _, st := range d.server.targets {
		for _, r := range st.device.Replaced() {
			if user := d.seer(st.conf.Name, r.Number); user != "" {
				errs = append(errs, &ReplacedError{st.conf.Name, r.Number, r.Why, user})
			}
		}
	}
	return errs
}

func (d *door) removals() (errs []error) {
	there := make(map[string]*scsi.Device, len(d.server.targets))
	for _, st := range d.server.targets {
		there[st.conf.Name] = st.device
	}
	for _, name := range slices.Sorted(maps.Keys(d.devices)) {
		for _, u := range d.devices[name].Units {
			user := d.seer(name, u.LUN)
			if u.Controller || user == "" {
				continue
			}
			var lu *scsi.LogicalUnit
			if device := there[name]; device != nil {
				lu = device.LogicalUnit(u.LUN)
			}
			switch {
			case isDisk(lu) && !u.Absent && lateReason(lu) != "":
				errs = append(errs, &LostError{name, u.LUN, lateReason(lu), user})
			case !isDisk(lu) && inUse(&u):
				errs = append(errs, &InUseError{name, u.LUN, user})
			}
		}
	}
	return errs
}

// seer names a session that sees a logical unit, empty if there is none.
func (d *door) seer(target string, lun uint16) string {
	for _, n := range d.devices[target].Nexuses {
		if slices.Contains(n.Masked, lun) {
			continue
		}
		i := slices.IndexFunc(d.sessions, func(s iscsi.SessionState) bool {
			return s.Target == target && s.Initiator == n.Initiator && s.ISID == n.ISID
		})
		if i >= 0 {
			return fmt.Sprintf("%s (TSIH %d)", plan.Printable(n.Initiator), d.sessions[i].TSIH)
		}
	}
	return ""
}

func isDisk(lu *scsi.LogicalUnit) bool { return lu != nil && !isController(lu) }

// inUse is what a plan calls so.
func inUse(u *scsi.UnitState) bool {
	recent := u.LastIO > 0 && time.Since(time.Unix(u.LastIO, 0)) < plan.RecentIO
	return recent || u.Reservations.Reserved != nil || len(u.Reservations.Registrations) > 0
}
