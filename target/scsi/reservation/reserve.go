// SPDX-License-Identifier: Apache-2.0

package reservation

import "slices"

// reserve is RESERVE (SPC-4 5.13.9). n is registered and its key right.
func (t *table) reserve(n Nexus, r *request) Result {
	switch {
	case r.scope != scopeLogicalUnit || !r.typ.valid():
		return fail(invalidCDB(2))
	case t.typ == 0:
		t.hold(n, r.typ)
		return Result{}
	case t.holds(n) && t.typ == r.typ:
		return Result{}
	}
	return conflict
}

// hold gives n a persistent reservation.
func (t *table) hold(n Nexus, typ Type) {
	t.release()
	t.typ = typ
	if !typ.allRegistrants() {
		t.holder = n
	}
}

// releaseBy is RELEASE (SPC-4 5.13.11.2.2). n is registered and its key right.
func (t *table) releaseBy(n Nexus, r *request) Result {
	switch {
	case !t.holds(n):
		return Result{} // nothing to release is GOOD too
	case r.scope != scopeLogicalUnit || r.typ != t.typ:
		return fail(invalidRelease())
	}
	shared := t.typ.shared()
	t.release()
	if shared {
		return Result{Attention: t.others(n, ascqReservationsReleased)}
	}
	return Result{}
}

// clear is CLEAR (SPC-4 5.13.11.2.7). n is registered and its key right.
func (t *table) clear(n Nexus) Result {
	told := t.others(n, ascqReservationsPreempted)
	t.release()
	t.regs = nil
	t.generation++
	return Result{Attention: told}
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4 5.13.11.2.4 to 5.13.11.2.6,
// table 72). n is registered and its key right.
func (t *table) preempt(n Nexus, r *request) Result {
	all := t.typ.allRegistrants()
	var lost []Nexus
	var told []Attention
	switch {
	case all && r.newKey == 0, t.typ != 0 && !all && r.newKey == t.holderKey():
		if r.scope != scopeLogicalUnit || !r.typ.valid() {
			return fail(invalidCDB(2))
		}
		before := t.typ
		lost = t.remove(func(g Registration) bool {
			return g.Nexus != n && (all || g.Key == r.newKey)
		})
		t.hold(n, r.typ)
		if r.typ != before {
			told = t.others(n, ascqReservationsReleased)
		}
	case r.newKey == 0:
		return fail(invalidParameter(8))
	default: // SCOPE and TYPE are ignored
		lost = t.remove(func(g Registration) bool { return g.Key == r.newKey })
		if len(lost) == 0 {
			return conflict
		}
		lost = slices.DeleteFunc(lost, func(m Nexus) bool { return m == n })
	}
	t.generation++
	for _, m := range lost {
		told = append(told, Attention{Nexus: m, ASC: ascParametersChanged, ASCQ: ascqRegistrationsPreempted})
	}
	result := Result{Attention: told}
	if r.action == actionPreemptAndAbort {
		result.Abort = lost
	}
	return result
}
