// SPDX-License-Identifier: Apache-2.0

package reservation

import "slices"

// register is REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 5.13.7,
// tables 67 to 69, and 5.13.11.2.3). All of it happens or nothing.
func (t *table) register(n Nexus, r *request, s surroundings) Result {
	i := t.find(n)
	if r.action == actionRegister {
		switch {
		case i < 0 && r.key != 0, i >= 0 && t.regs[i].Key != r.key:
			return conflict
		case i >= 0 && r.specPorts:
			return fail(invalidParameter(20))
		}
	}
	own := []Nexus{n}
	if r.allPorts {
		own = s.onPorts(n)
	}
	if r.action == actionRegister && t.anyOtherKey(own[1:], r.key) {
		return conflict
	}
	if r.newKey == 0 {
		return t.unregister(n, own, r)
	}
	named, sense := t.specified(n, r, s)
	if sense != nil {
		return fail(sense)
	}
	before, all := len(t.regs), append(own, named...)
	for _, m := range all {
		t.set(m, r.newKey)
	}
	if len(t.regs) > before && t.overShare(all, len(named) > 0) {
		return fail(noResources())
	}
	t.aptpl = r.aptpl
	t.generation++
	return Result{}
}

// overShare says whether there are more registrations than there may be, or one of the
// nexuses' initiators has more than its share. others says that an initiator has
// registered others than itself, whose names nobody has proved.
func (t *table) overShare(nexuses []Nexus, others bool) bool {
	if len(t.regs) > MaxRegistrations || others && len(t.regs) > maxWithOthers {
		return true
	}
	of := make(map[string]int)
	for _, g := range t.regs {
		of[g.Nexus.Initiator]++
	}
	return slices.ContainsFunc(nexuses, func(n Nexus) bool { return of[n.Initiator] > maxOfInitiator })
}

// unregister takes the registrations of own away, which are those of n and of
// its initiator port. Without any, REGISTER does nothing but return GOOD.
func (t *table) unregister(n Nexus, own []Nexus, r *request) Result {
	before := t.typ
	lost := t.remove(func(g Registration) bool { return slices.Contains(own, g.Nexus) })
	if len(lost) == 0 {
		return Result{}
	}
	t.aptpl = r.aptpl
	t.generation++
	if t.typ == 0 && before.shared() {
		return Result{Attention: t.others(n, ascqReservationsReleased)}
	}
	return Result{}
}

// anyOtherKey says whether one of the nexuses is registered with another key.
// For ALL_TG_PT: the registration "through each target port" would be a
// conflict there. A port with no registration is not one: it may have been
// added since the others were registered.
func (t *table) anyOtherKey(nexuses []Nexus, key uint64) bool {
	return slices.ContainsFunc(t.regs, func(g Registration) bool {
		return g.Key != key && slices.Contains(nexuses, g.Nexus)
	})
}

// specified returns the nexuses that SPEC_I_PT names, each once; n may be among
// them. One that is registered is an error (SPC-4 table 67, footnote b), as is
// an initiator device of which no port is known.
func (t *table) specified(n Nexus, r *request, s surroundings) ([]Nexus, *Sense) {
	registered := make(map[Nexus]bool, len(t.regs))
	for _, g := range t.regs {
		registered[g.Nexus] = true
	}
	var all []Nexus
	seen, named := make(map[Nexus]bool), make(map[transportID]bool, len(r.ids))
	for _, id := range r.ids {
		if named[id] {
			continue // a list may name an initiator ten thousand times, with a thousand ports to look at for each
		}
		named[id] = true
		ports := id.initiatorPorts(s.open)
		if len(ports) == 0 {
			return nil, invalidParameter(basicListLength + 4)
		}
		for _, p := range ports {
			if seen[p] {
				continue
			}
			seen[p] = true
			targets := []Nexus{p.onPort(n.TargetPort)}
			if r.allPorts {
				targets = s.onPorts(targets[0])
			}
			if slices.ContainsFunc(targets, func(m Nexus) bool { return registered[m] }) {
				return nil, invalidParameter(basicListLength + 4)
			}
			if all = append(all, targets...); len(all) > MaxRegistrations {
				return nil, noResources()
			}
		}
	}
	return all, nil
}

// onPorts returns the nexuses of n's initiator port with every target port,
// n itself first.
func (s surroundings) onPorts(n Nexus) []Nexus {
	all := make([]Nexus, len(s.ports))
	for i, p := range s.ports {
		all[i] = n.onPort(p)
	}
	return all
}

// move is REGISTER AND MOVE (SPC-4 5.13.8). n is registered and its key right.
func (t *table) move(n Nexus, r *request, s surroundings) Result {
	switch {
	case t.typ == 0:
		return fail(invalidCDB(1))
	case t.typ.allRegistrants() || t.holder != n:
		return conflict
	case r.newKey == 0:
		return fail(invalidParameter(8))
	case !slices.Contains(s.ports, r.port):
		return fail(invalidParameter(18))
	}
	ports := r.ids[0].initiatorPorts(s.open)
	if len(ports) != 1 || ports[0].sameInitiatorPort(n) {
		return fail(invalidParameter(basicListLength))
	}
	before := len(t.regs)
	t.holder = ports[0].onPort(r.port)
	t.set(t.holder, r.newKey)
	if r.unregister {
		t.remove(func(g Registration) bool { return g.Nexus == n })
	}
	if len(t.regs) > before && t.overShare([]Nexus{t.holder}, true) {
		return fail(noResources())
	}
	t.aptpl = r.aptpl
	t.generation++
	return Result{}
}
