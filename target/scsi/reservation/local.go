// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Local is the [State] of a logical unit that this process alone serves.
type Local struct {
	options Options
	file    *file // nil: APTPL is not supported

	// view is what Check needs, nil while there is nothing to conflict with.
	view atomic.Pointer[view]

	mu       sync.Mutex // protects what follows
	table    table
	reserved *Nexus   // holds an SPC-2 reservation
	dropped  []string // initiators that Options.Dropped was told of
}

var _ State = (*Local)(nil)

// New returns the state of a logical unit, with what o.File holds of it; see
// [State.Damage] for a file that can't be read.
func New(o Options) *Local { return open(o, realDisk) }

// open is New with that disk.
func open(o Options, d disk) *Local {
	l := &Local{options: o}
	if o.File == "" {
		return l
	}
	l.file = &file{path: o.File, disk: d}
	if s := l.file.load(); s.Unit == "" || s.Unit == o.Unit {
		l.table = tableOf(s)
		l.tellDropped(l.file.dropped)
	}
	l.publishLocked()
	return l
}

// tellDropped tells of names that were not told of before.
func (l *Local) tellDropped(initiators []string) {
	initiators = slices.DeleteFunc(slices.Clone(initiators), func(i string) bool { return slices.Contains(l.dropped, i) })
	if len(initiators) > 0 && l.options.Dropped != nil {
		l.dropped = append(l.dropped, initiators...)
		l.options.Dropped(initiators)
	}
}

// Damage implements [State].
func (l *Local) Damage() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.damage
}

// Check implements [State].
func (l *Local) Check(n Nexus, a Access) bool {
	v := l.view.Load()
	return v != nil && v.conflicts(n, a)
}

// Reserve implements [State].
func (l *Local) Reserve(n Nexus) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.view.Load(); v != nil {
		// Nothing to establish: n holds it already, or is a registrant that
		// SPC-4 5.13.3 lets believe so.
		return v.conflicts(n, Reserve)
	}
	l.reserved = &n
	l.publishLocked()
	return false
}

// Release implements [State].
func (l *Local) Release(n Nexus) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(func(holder Nexus) bool { return holder == n })
	v := l.view.Load()
	return v != nil && v.conflicts(n, Release)
}

// NexusLost implements [State].
func (l *Local) NexusLost(n Nexus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(func(holder Nexus) bool { return holder == n })
}

// Reset implements [State].
func (l *Local) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(func(Nexus) bool { return true })
}

// dropLocked ends the SPC-2 reservation, if there is one and its holder is
// meant.
func (l *Local) dropLocked(meant func(holder Nexus) bool) {
	if l.reserved != nil && meant(*l.reserved) {
		l.reserved = nil
		l.publishLocked()
	}
}

// In implements [State].
func (l *Local) In(_ Nexus, cdb []byte) Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved != nil {
		return conflict // SPC-2 5.5.1, for the holder too
	}
	return l.table.in(cdb, l.file != nil)
}

// Out implements [State].
func (l *Local) Out(n Nexus, cdb, params []byte) Result {
	r, sense := decodeOut(cdb, params, l.file != nil)
	s := l.surroundings(n, &r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved != nil {
		return conflict // SPC-2 5.5.1, for the holder too
	}
	if sense != nil {
		return fail(sense)
	}
	next := l.table.clone()
	result := next.apply(n, &r, s)
	if result.Conflict || result.Sense != nil {
		return result
	}
	if err := l.keepLocked(&next); err != nil {
		return Result{Sense: internalFailure(), Err: err}
	}
	l.table = next
	l.publishLocked()
	return result
}

// surroundings asks the options for what r needs, with no lock held.
func (l *Local) surroundings(n Nexus, r *request) surroundings {
	s := surroundings{ports: []uint16{n.TargetPort}}
	if l.options.Ports != nil && (r.allPorts || r.action == actionRegisterAndMove) {
		for _, p := range l.options.Ports() {
			if !slices.Contains(s.ports, p) {
				s.ports = append(s.ports, p)
			}
		}
	}
	byName := func(id transportID) bool { return !id.hasISID }
	if l.options.Nexuses != nil && slices.ContainsFunc(r.ids, byName) {
		s.open = l.options.Nexuses()
	}
	return s
}

// keepLocked writes t to the file if APTPL wants it kept, and removes the file
// if APTPL no longer does.
func (l *Local) keepLocked(t *table) error {
	if l.file == nil {
		return nil
	}
	s := t.snapshot()
	s.Generation = 0 // a power on starts it anew (SPC-4 6.15.2)
	s.Unit = l.options.Unit
	return l.file.save(s)
}

// Forget implements [State].
func (l *Local) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table, l.reserved = table{}, nil
	l.publishLocked()
}

// Keep implements [State].
func (l *Local) Keep() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keepLocked(&l.table)
}

// Generation implements [State].
func (l *Local) Generation() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.generation
}

// Summary implements [State].
func (l *Local) Summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Summary{Type: l.table.typ, Registrations: len(l.table.regs)}
	switch {
	case l.reserved != nil:
		s.Reserved, s.Holder = true, l.reserved.InitiatorPort()
	case s.Type != 0 && !s.Type.allRegistrants():
		s.Holder = l.table.holder.InitiatorPort()
	}
	return s
}

// Snapshot implements [State].
func (l *Local) Snapshot() Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.table.snapshot()
	if l.reserved != nil {
		s.Reserved = new(*l.reserved)
	}
	return s
}

// Restore implements [State].
func (l *Local) Restore(s Snapshot) error {
	s, dropped := s.withoutUnnamed()
	if err := s.validate(); err != nil {
		return fmt.Errorf("can't restore reservations: %w", err)
	}
	if s.APTPL && l.file == nil {
		return errors.New("can't restore reservations: they are to persist through power loss, and there is no file to keep them in")
	}
	next := tableOf(s)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		// The process that s comes from has kept the file up to date since it
		// was loaded here. If it is damaged, s is what counts.
		l.file.load()
	}
	if err := l.keepLocked(&next); err != nil {
		return fmt.Errorf("can't restore reservations: %w", err)
	}
	l.table = next
	l.reserved = nil
	if s.Reserved != nil {
		l.reserved = new(*s.Reserved)
	}
	l.publishLocked()
	l.tellDropped(dropped)
	return nil
}

// publishLocked shows the state to Check.
func (l *Local) publishLocked() {
	if l.reserved == nil && len(l.table.regs) == 0 {
		l.view.Store(nil)
		return
	}
	v := &view{reserved: l.reserved, typ: l.table.typ, holder: l.table.holder}
	v.registered = make(map[Nexus]struct{}, len(l.table.regs))
	for _, r := range l.table.regs {
		v.registered[r.Nexus] = struct{}{}
	}
	l.view.Store(v)
}
