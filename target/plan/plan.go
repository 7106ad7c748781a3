// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
)

// RecentIO is how long after its last read or write a logical unit counts as
// in use.
const RecentIO = time.Minute

// Change is one difference between what runs and what is wanted.
type Change struct {
	Op      string   `json:"op"`     // "+", "~" or "-"
	Target  string   `json:"target"` // empty where it is a portal, a folder or metrics
	Portal  string   `json:"portal,omitempty"`
	Metrics string   `json:"metrics,omitempty"` // where Prometheus can ask
	Folder  string   `json:"folder,omitempty"`  // the state folder, of which something is to be said
	LUN     *uint16  `json:"lun,omitempty"`
	What    string   `json:"what"`              // for people
	Sees    string   `json:"sees,omitempty"`    // what the initiators that are logged in are told
	Refused string   `json:"refused,omitempty"` // why it needs force, and the way out; empty: it does not
	Who     []string `json:"who,omitempty"`     // the sessions that it concerns
}

// Plan is what a new configuration would do. A nil one does nothing.
type Plan struct {
	Changes []Change `json:"changes"`
}

// Looks finds out what a logical unit would open: the ID and the size in bytes
// of its store. fs.ErrNotExist is no error if the file would be created. With fit, it also
// checks whether the store can be opened.
type Looks func(l *config.LUN, fit bool) (id string, size int64, err error)

// Make compares. A nil running is a start: everything is new. What is desired has the
// running overlay in it already.
func Make(running *Running, desired *config.Config, look Looks) *Plan {
	p := &planner{running: running, look: look, lax: desired.IgnoreErrors, now: time.Now(), plan: &Plan{Changes: []Change{}}}
	if running == nil {
		p.running = &Running{}
	}
	if now := p.running.Now; !now.IsZero() {
		p.now = now
	}
	p.index()
	p.portals(Portals(desired))
	p.metrics(MetricsOf(desired))
	wanted := make(map[string]bool)
	for i := range desired.Targets {
		t := &desired.Targets[i]
		wanted[t.Name] = true
		if was := p.targets[t.Name]; was != nil {
			p.compare(was, t)
		} else {
			p.add(t)
		}
	}
	for i := range p.running.Targets {
		if t := &p.running.Targets[i]; !wanted[t.Name] {
			p.remove(t)
		}
	}
	p.state(desired)
	return p.plan
}

// state says that the state folder can't be written. Numbers that are given by order have to be
// kept there, or a restart gives others.
func (p *planner) state(desired *config.Config) {
	if p.running.Unwritable == "" {
		return
	}
	c := Change{Op: "~", Folder: p.running.StateDir, What: "no file can be written there: " + p.running.Unwritable}
	if desired.NewNumbers() {
		c.Refused = c.What + ": the numbers of what is new, which the configuration leaves open, would be others after a restart. " +
			"Make the folder writable, or give the numbers in the configuration"
	}
	p.note(c)
}

// Empty reports whether nothing changes.
func (p *Plan) Empty() bool {
	return p == nil || !slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Folder == "" })
}

// Refused lists the changes that need force, a line each.
func (p *Plan) Refused() []string {
	if p == nil {
		return nil
	}
	var list []string
	for _, c := range p.Changes {
		if c.Refused != "" {
			list = append(list, c.subject()+": "+c.Refused)
		}
	}
	return list
}

// Lines prints the plan, a change a line, with what initiators see of it.
func (p *Plan) Lines() []string {
	list := []string{}
	if p == nil {
		return list
	}
	for _, c := range p.Changes {
		line := c.Op + " " + c.subject()
		if c.What != "" {
			line += ": " + c.What
		}
		if len(c.Who) > 0 && c.Sees != "" {
			line += fmt.Sprintf(" (%s: %s)", some(c.Who), c.Sees)
		}
		if c.Refused != "" {
			line += " [needs --force: " + strings.TrimPrefix(c.Refused, c.What+": ") + "]"
		}
		list = append(list, line)
	}
	return list
}

// RefusedError is a plan that is not carried out.
type RefusedError struct{ Plan *Plan }

func (e *RefusedError) Error() string {
	return "the new configuration would hurt initiators; nothing was changed (--force does it all the same):\n" +
		strings.Join(e.Plan.Refused(), "\n")
}

// Part is a target, or a logical unit of it.
type Part struct {
	Target string  `json:"target"`
	LUN    *uint16 `json:"lun,omitempty"` // nil: the target with all that it has
}

// Has tells whether something is, or is in, the part; lun is nil for a target itself.
func (p Part) Has(target string, lun *uint16) bool {
	return p.Target == target && (p.LUN == nil || lun != nil && *lun == *p.LUN)
}

// Force takes back what speaks against the changes to some parts. The rest stays refused.
func (p *Plan) Force(parts ...Part) {
	if p == nil {
		return
	}
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Target != "" && slices.ContainsFunc(parts, func(part Part) bool { return part.Has(c.Target, c.LUN) }) {
			c.Refused = ""
		}
	}
}

// Check returns a [RefusedError] if anything needs force.
func (p *Plan) Check() error {
	if len(p.Refused()) > 0 {
		return &RefusedError{p}
	}
	return nil
}

func (c *Change) subject() string {
	switch {
	case c.Portal != "":
		return "portal " + c.Portal
	case c.Metrics != "":
		return "metrics at " + c.Metrics
	case c.Folder != "":
		return "state folder " + c.Folder
	case c.LUN == nil:
		return "target " + c.Target
	}
	return fmt.Sprintf("target %s LUN %d", c.Target, *c.LUN)
}

// endSession is the command that ends one and keeps its initiator, which would log in
// again at once, out for as long as the change takes.
const endSession = "gotgtd session end TSIH --reject-for 1m"

// maxNamed bounds how many sessions a line names.
const maxNamed = 3

// some names the first of a list.
func some(who []string) string {
	if len(who) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(who[:maxNamed], ", "), len(who)-maxNamed)
	}
	return strings.Join(who, ", ")
}

// planner is a plan in the making.
type planner struct {
	running *Running
	look    Looks
	lax     bool // what can't be opened is no error, but a logical unit that is not ready
	now     time.Time
	plan    *Plan
	targets map[string]*Target
	stores  map[string]string // what runs, by the ID of its store

	goneGroups map[uint16]bool // tags of portal groups that have portals now, and none then
}

func (p *planner) index() {
	p.targets, p.stores = make(map[string]*Target), make(map[string]string)
	for i := range p.running.Targets {
		t := &p.running.Targets[i]
		p.targets[t.Name] = t
		for _, l := range t.LUNs {
			if l.Store != "" {
				p.stores[l.Store] = fmt.Sprintf("target %s LUN %d", t.Name, l.LUN)
			}
		}
	}
}

func (p *planner) note(c Change) { p.plan.Changes = append(p.plan.Changes, c) }

func (p *planner) add(t *config.Target) {
	p.note(Change{Op: "+", Target: t.Name, What: fmt.Sprintf("new, TID %d", t.TID)})
	for i := range t.LUNs {
		p.addLUN(t.Name, &t.LUNs[i], nil)
	}
}

func (p *planner) addLUN(target string, l *config.LUN, who []string) {
	what := strings.TrimSpace(l.Backend + " " + l.Path) // a RAM disk has no path
	if _, size, err := p.look(l, false); err == nil && size > 0 {
		what += ", " + sizeText(size)
	} else if l.Size > 0 {
		what += ", " + sizeText(l.Size)
	}
	p.note(Change{Op: "+", Target: target, LUN: new(l.Number), What: what, Who: who, Sees: "REPORTED LUNS DATA HAS CHANGED"})
}

// remove plans the removal of a target that the configuration no longer has.
func (p *planner) remove(t *Target) {
	c := Change{Op: "-", Target: t.Name, What: fmt.Sprintf("TID %d, %s", t.TID, count(len(t.LUNs), "logical unit"))}
	sessions := p.running.sessions(t.Name)
	c.Who = names(sessions)
	c.Sees = "asked to log out, then the target is gone"
	if users := p.users(t.LUNs, sessions); users != "" {
		c.Refused = "it is in use: " + users + ". Log these sessions out first, or end them (" + endSession + ")"
	}
	p.note(c)
}

func (p *planner) removeLUN(t *Target, l *LUN, sessions []*Session) {
	c := Change{Op: "-", Target: t.Name, LUN: new(l.LUN), What: l.Path, Who: names(sessions), Sees: "REPORTED LUNS DATA HAS CHANGED"}
	if users := p.users([]LUN{*l}, sessions); users != "" {
		c.Refused = "it is in use: " + users + ". Unmount it there and wait for " + RecentIO.String() + ", or log these sessions out first"
	}
	p.note(c)
}

// users says who uses logical units that are to be taken away: sessions with
// reads or writes within [RecentIO], and initiators with a reservation.
func (p *planner) users(luns []LUN, sessions []*Session) string {
	if len(sessions) == 0 {
		return ""
	}
	var list []string
	for i := range luns {
		l := &luns[i]
		if len(l.Holders) > 0 {
			var holders []string
			for _, name := range l.Holders {
				holders = append(holders, Printable(name))
			}
			list = append(list, fmt.Sprintf("LUN %d is reserved by, or registered with, %s", l.LUN, some(holders)))
		}
		if p.recent(l.LastIO) {
			busy := slices.DeleteFunc(slices.Clone(sessions), func(s *Session) bool { return !p.recent(s.LastIO) })
			if len(busy) == 0 {
				busy = sessions
			}
			list = append(list, fmt.Sprintf("LUN %d was read or written %s ago, sessions: %s", l.LUN, p.now.Sub(l.LastIO).Round(time.Second), some(names(busy))))
		}
	}
	return strings.Join(list, "; ")
}

func (p *planner) recent(t time.Time) bool { return !t.IsZero() && p.now.Sub(t) < RecentIO }

// compare plans the changes of a target that stays.
func (p *planner) compare(was *Target, t *config.Target) {
	sessions := p.running.sessions(t.Name)
	if was.TID != t.TID {
		p.note(Change{Op: "~", Target: t.Name, What: fmt.Sprintf("TID %d instead of %d", t.TID, was.TID)})
	}
	stay := p.compareLeave(was, t, sessions)
	if d := difference(was.Settings, t.Settings()); d != "" {
		p.note(Change{Op: "~", Target: t.Name, What: d, Who: names(stay), Sees: nextLogin(t, stay)})
	}
	wanted, before := make(map[uint16]bool), make(map[uint16]*LUN)
	for i := range was.LUNs {
		before[was.LUNs[i].LUN] = &was.LUNs[i]
	}
	for i := range t.LUNs {
		l := &t.LUNs[i]
		wanted[l.Number] = true
		if old := before[l.Number]; old != nil {
			seen := seers(sessions, l.Number)
			p.compareLUN(old, l, t.TID, seen, Change{Op: "~", Target: t.Name, LUN: new(l.Number), Who: names(seen)})
			p.compareView(old, l, t.Name, sessions)
		} else {
			p.addLUN(t.Name, l, names(willSee(sessions, l)))
		}
	}
	for i := range was.LUNs {
		if l := &was.LUNs[i]; !wanted[l.LUN] {
			p.removeLUN(was, l, seers(sessions, l.LUN))
		}
	}
}

// compareLUN plans the changes of a logical unit that keeps its number. tid is the number that
// the target is to have, sessions are those that see the logical unit, and at has the fields
// that all of its changes have in common.
func (p *planner) compareLUN(was *LUN, l *config.LUN, tid int, sessions []*Session, at Change) {
	id, size, err := p.look(l, was.Error != "" || p.lax)
	if other := p.another(was, l, id, err, tid); other != "" {
		at.What = other
		at.Sees = "REPORTED LUNS DATA HAS CHANGED and INQUIRY DATA HAS CHANGED; reservations are gone, and what is under way is refused"
		if len(sessions) > 0 {
			at.Refused = other + ": it would put another disk in the place of the one that " + some(at.Who) +
				" uses. Give it a number of its own, or log the sessions out first (" + endSession + ")"
		}
		p.note(at)
		return
	}
	if err != nil && was.Store != "" && was.Error == "" {
		p.lose(at, l, err, sessions)
		return
	}
	if was.Error != "" && l.Backend == "file" { // what a plug-in will do, opening finds out
		p.compareReady(at, l, size, err)
	}
	if err == nil && was.Size > 0 && size > 0 {
		p.compareSize(at, was, size-size%int64(l.BlockSize), sessions)
	}
	at.Who = names(willSee(sessions, l))
	if d := difference(was.Settings, l.Settings(at.Target)); d != "" {
		c := at
		c.What, c.Sees = d, sees(was.Settings, l.Settings(at.Target))
		if users := p.users([]LUN{*was}, sessions); users != "" && l.Offline && was.Settings["offline"] != "true" {
			c.Refused = "it is in use: " + users + ". Unmount it there and wait for " + RecentIO.String() + ", or log these sessions out first"
		}
		p.note(c)
	}
	if was.Path != l.Path {
		at.What, at.Sees = fmt.Sprintf("path %s instead of %s", l.Path, was.Path), "nothing"
		if was.Store != "" {
			at.What += ", the same store"
		}
		p.note(at)
	}
}

// lose plans that a logical unit becomes not ready, because its store can't be opened any more:
// err says why. It is called only if the configuration ignores errors; otherwise such a
// configuration is refused before there is a plan.
func (p *planner) lose(at Change, l *config.LUN, err error, sessions []*Session) {
	at.What, at.Sees = fmt.Sprintf("it would not be ready: %v", err), "NOT READY, until it can be opened"
	mend := "mend that"
	if errors.Is(err, fs.ErrNotExist) {
		at.What, at.Sees = "there is no file at "+l.Path+" any more, and it would not be ready", "NOT READY, until a file is there"
		mend = "put the file back"
	}
	if len(sessions) > 0 {
		at.Refused = at.What + ", and " + some(at.Who) + " would lose it: " + mend + ", or log the sessions out first (gotgtd session end TSIH)"
	}
	p.note(at)
}

// compareReady plans that a logical unit becomes ready whose store could not be opened before.
// err says why it can't be opened now either.
func (p *planner) compareReady(at Change, l *config.LUN, size int64, err error) {
	switch {
	case err == nil && size >= int64(l.BlockSize):
		at.What = "its backing store can be opened now, " + sizeText(size-size%int64(l.BlockSize))
	case l.Create && !l.ReadOnly && errors.Is(err, fs.ErrNotExist):
		at.What = "its backing store will be made, " + sizeText(l.Size)
	default:
		return
	}
	at.Sees = "NOT READY TO READY CHANGE"
	p.note(at)
}

func (p *planner) compareSize(at Change, was *LUN, size int64, sessions []*Session) {
	at.Sees = "CAPACITY DATA HAS CHANGED"
	switch {
	case size > was.Size:
		at.What = fmt.Sprintf("grows from %s to %s", sizeText(was.Size), sizeText(size))
	case size < was.Size:
		at.What = fmt.Sprintf("shrinks from %s to %s", sizeText(was.Size), sizeText(size))
		if len(sessions) > 0 {
			at.Refused = at.What + ": " + some(at.Who) + " may have data at its end. Log the sessions out first"
		}
	default:
		return
	}
	p.note(at)
}

// another says why an initiator would find another disk at the number of the logical unit was; it
// is empty if the disk stays the same. id is the ID of the store that l would open, and
// looked the error if there is none.
func (p *planner) another(was *LUN, l *config.LUN, id string, looked error, tid int) string {
	var list []string
	now := l.Identity(tid, l.Number)
	for _, f := range []struct{ name, was, now string }{
		{"NAA identifier", was.NAA, now.NAA}, {"SCSI ID", was.SCSIID, now.SCSIID}, {"serial number", was.Serial, now.Serial},
		{"vendor", was.Vendor, now.Vendor}, {"product", was.Product, now.Product},
		{"block size", fmt.Sprint(was.BlockSize), fmt.Sprint(l.BlockSize)},
	} {
		if f.was != f.now {
			list = append(list, fmt.Sprintf("%s %q instead of %q", f.name, f.now, f.was))
		}
	}
	// One that comes or goes beside the other is a setting, not another disk.
	if was.LocalNAA != "" && now.LocalNAA != "" && was.LocalNAA != now.LocalNAA {
		list = append(list, fmt.Sprintf("local NAA identifier %q instead of %q", now.LocalNAA, was.LocalNAA))
	}
	switch {
	case was.Backend != l.Backend:
		list = append(list, fmt.Sprintf("backend %s instead of %s", l.Backend, was.Backend))
	case id == was.Store || was.Store == "":
	case errors.Is(looked, fs.ErrNotExist) && was.Path == l.Path && l.Create && !l.ReadOnly:
		list = append(list, fmt.Sprintf("the file that was served is no longer at %s, and an empty one would be made: put it back, or take the logical unit out", l.Path))
	case id == "" && was.Path == l.Path:
		// What is at the path can't be told: opening it will.
	case was.Path == l.Path && l.Path == "":
		list = append(list, fmt.Sprintf("backend %s has another store now than the one that is served%s: put that back, or give the new one a LUN of its own", l.Backend, p.whose(id)))
	case was.Path == l.Path:
		list = append(list, fmt.Sprintf("another file is at %s than the one that is served%s: put that back, or give the new one a path and a LUN of its own", l.Path, p.whose(id)))
	default:
		list = append(list, fmt.Sprintf("backing store %s instead of %s%s", l.Path, was.Path, p.whose(id)))
	}
	return strings.Join(list, ", ")
}

// whose says where a store is served now.
func (p *planner) whose(id string) string {
	if at := p.stores[id]; at != "" && id != "" {
		return ", now that of " + at
	}
	return ""
}

func names(sessions []*Session) []string {
	var list []string
	for _, s := range sessions {
		list = append(list, s.String())
	}
	return list
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sizeText is a size in the largest unit that divides it.
func sizeText(n int64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{40, "TiB"}, {30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			return fmt.Sprintf("%d %s", n>>u.shift, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
