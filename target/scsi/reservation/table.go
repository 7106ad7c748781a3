// SPDX-License-Identifier: Apache-2.0

package reservation

import "slices"

// table is the persistent half of the state: registrations and the persistent
// reservation. The functions that change it work on a copy of their own, so
// that a command that fails half-way has changed nothing.
type table struct {
	regs       []Registration // in the order of registration
	typ        Type           // zero: not reserved
	holder     Nexus          // if typ is set and is not an all registrants type
	generation uint32
	aptpl      bool
}

// clone returns a copy that shares nothing with t.
func (t *table) clone() table {
	c := *t
	c.regs = slices.Clone(t.regs)
	return c
}

// find returns the index of n's registration, or -1.
func (t *table) find(n Nexus) int {
	return slices.IndexFunc(t.regs, func(r Registration) bool { return r.Nexus == n })
}

// holds says whether n is a persistent reservation holder (SPC-4 5.13.10).
func (t *table) holds(n Nexus) bool {
	if t.typ.allRegistrants() {
		return t.find(n) >= 0
	}
	return t.typ != 0 && t.holder == n
}

// holderKey returns the key that READ RESERVATION reports: the holder's, or
// zero if every registered nexus is one.
func (t *table) holderKey() uint64 {
	if i := t.find(t.holder); i >= 0 && !t.typ.allRegistrants() {
		return t.regs[i].Key
	}
	return 0
}

// set registers n with key, or changes the key that it has.
func (t *table) set(n Nexus, key uint64) {
	if i := t.find(n); i >= 0 {
		t.regs[i].Key = key
		return
	}
	t.regs = append(t.regs, Registration{Nexus: n, Key: key})
}

// remove takes away the registrations that drop chooses and returns their
// nexuses. The persistent reservation goes with its last holder (SPC-4
// 5.13.10).
func (t *table) remove(drop func(Registration) bool) []Nexus {
	var lost []Nexus
	t.regs = slices.DeleteFunc(t.regs, func(r Registration) bool {
		if !drop(r) {
			return false
		}
		lost = append(lost, r.Nexus)
		return true
	})
	if t.typ.allRegistrants() && len(t.regs) == 0 ||
		!t.typ.allRegistrants() && slices.Contains(lost, t.holder) {
		t.release()
	}
	return lost
}

// release ends the persistent reservation, if there is one.
func (t *table) release() {
	t.typ, t.holder = 0, Nexus{}
}

// others returns the unit attention ascq of ASC 2Ah for every registered nexus
// but n.
func (t *table) others(n Nexus, ascq uint8) []Attention {
	var all []Attention
	for _, r := range t.regs {
		if r.Nexus != n {
			all = append(all, Attention{Nexus: r.Nexus, ASC: ascParametersChanged, ASCQ: ascq})
		}
	}
	return all
}
