// SPDX-License-Identifier: Apache-2.0

package reservation

// view is what decides about conflicts, fixed at one moment. There is one only
// while there is an SPC-2 reservation or a registration, never both.
type view struct {
	reserved   *Nexus // holds an SPC-2 reservation
	typ        Type   // of the persistent reservation, zero for none
	holder     Nexus
	registered map[Nexus]struct{}
}

// conflicts says whether access a from n ends in RESERVATION CONFLICT.
func (v *view) conflicts(n Nexus, a Access) bool {
	if v.reserved != nil {
		return v.conflictsSPC2(n, a)
	}
	switch a {
	case Always, Probe, PRIn, PROut:
		return false
	case Reserve, Release:
		// SPC-2 5.5.1: a conflict while any nexus is registered. SPC-4 5.13.3
		// (CRH): GOOD, with no effect, for those who have full access anyway.
		return !v.full(n)
	case Read:
		return v.typ != 0 && !v.typ.readable() && !v.full(n)
	default: // Write
		return v.typ != 0 && !v.full(n)
	}
}

// conflictsSPC2 is conflicts while there is an SPC-2 reservation (SPC-2 5.5.1).
func (v *view) conflictsSPC2(n Nexus, a Access) bool {
	switch a {
	case PRIn, PROut:
		return true
	case Always, Release:
		return false
	}
	return *v.reserved != n
}

// full says whether n may do everything under the persistent reservation: it
// holds it, or is registered and the type shares it (SPC-4 5.13.1).
func (v *view) full(n Nexus) bool {
	_, registered := v.registered[n]
	return registered && (v.typ.shared() || v.holder == n)
}
