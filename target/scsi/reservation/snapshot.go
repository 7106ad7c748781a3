// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

// Snapshot is the whole reservation state of a logical unit, to be carried to
// another process. Fields are only ever added.
type Snapshot struct {
	// Reserved is the nexus that holds an SPC-2 reservation, nil for none.
	Reserved *Nexus `cbor:"1,keyasint,omitempty"`
	// Registrations are in the order in which they were made.
	Registrations []Registration `cbor:"2,keyasint,omitempty"`
	// Type is the persistent reservation's, zero for none.
	Type Type `cbor:"3,keyasint,omitempty"`
	// Holder is the nexus that holds the persistent reservation: nil if there
	// is none, or if its type makes every registered nexus the holder.
	Holder *Nexus `cbor:"4,keyasint,omitempty"`
	// Generation is PRGENERATION.
	Generation uint32 `cbor:"5,keyasint,omitempty"`
	// APTPL says that registrations and reservation persist through power
	// loss.
	APTPL bool `cbor:"6,keyasint,omitempty"`
	// Unit is [Options.Unit] of the logical unit, in a file alone.
	Unit string `cbor:"7,keyasint,omitempty"`
}

// Registration is a nexus and the reservation key that it has registered.
type Registration struct {
	Nexus Nexus  `cbor:"1,keyasint"`
	Key   uint64 `cbor:"2,keyasint"`
}

// Summary is what people want to know of the reservations of a logical unit. It is made
// without a copy of the registrations, of which there may be [MaxRegistrations].
type Summary struct {
	Reserved      bool   // there is an SPC-2 reservation
	Type          Type   // of the persistent reservation, zero for none
	Holder        string // initiator port that holds either; "" for none, and if every registered one holds it
	Registrations int
}

// validate says what in s contradicts itself or SPC-4.
func (s *Snapshot) validate() error {
	if n := len(s.Registrations); n > MaxRegistrations {
		return fmt.Errorf("%d registrations, more than %d", n, MaxRegistrations)
	}
	seen := make(map[Nexus]bool, len(s.Registrations))
	for _, r := range s.Registrations {
		err := iscsiname.Check(r.Nexus.Initiator)
		switch {
		case err != nil:
			return fmt.Errorf("registration: %w", err)
		case r.Key == 0:
			return fmt.Errorf("registration of %v without a key", r.Nexus)
		case seen[r.Nexus]:
			return fmt.Errorf("two registrations of %v", r.Nexus)
		}
		seen[r.Nexus] = true
	}
	if s.Reserved != nil {
		if err := iscsiname.Check(s.Reserved.Initiator); err != nil {
			return fmt.Errorf("SPC-2 reservation: %w", err)
		}
	}
	if s.Reserved != nil && len(s.Registrations) > 0 {
		return errors.New("an SPC-2 reservation and registrations at once")
	}
	return s.validateHolder(seen)
}

// withoutUnnamed returns s without what belongs to nexuses whose initiator has no iSCSI
// name, and these names. Earlier versions let them log in: what they hold keeps nobody from an upgrade,
// and costs the others nothing.
func (s Snapshot) withoutUnnamed() (_ Snapshot, dropped []string) {
	all, unnamed := len(s.Registrations), func(n *Nexus) bool {
		if n == nil || iscsiname.Check(n.Initiator) == nil {
			return false
		}
		if !slices.Contains(dropped, n.Initiator) {
			dropped = append(dropped, n.Initiator)
		}
		return true
	}
	s.Registrations = slices.DeleteFunc(slices.Clone(s.Registrations), func(r Registration) bool { return unnamed(&r.Nexus) })
	if unnamed(s.Reserved) {
		s.Reserved = nil
	}
	if unnamed(s.Holder) || s.Type.allRegistrants() && len(s.Registrations) == 0 && all > 0 {
		s.Type, s.Holder = 0, nil
	}
	return s, dropped
}

// validateHolder says what is wrong with the persistent reservation.
func (s *Snapshot) validateHolder(registered map[Nexus]bool) error {
	switch {
	case s.Type == 0 && s.Holder == nil:
		return nil
	case !s.Type.valid():
		return fmt.Errorf("persistent reservation held with %v", s.Type)
	case s.Type.allRegistrants() && s.Holder != nil:
		return fmt.Errorf("one holder of a reservation of type %v", s.Type)
	case s.Type.allRegistrants() && len(registered) == 0:
		return fmt.Errorf("no holder of a reservation of type %v", s.Type)
	case s.Type.allRegistrants():
		return nil
	case s.Holder == nil:
		return fmt.Errorf("no holder of a reservation of type %v", s.Type)
	case !registered[*s.Holder]:
		return fmt.Errorf("reservation of %v, which is not registered", *s.Holder)
	}
	return nil
}

// snapshot returns t as a Snapshot that shares nothing with it.
func (t *table) snapshot() Snapshot {
	s := Snapshot{
		Registrations: slices.Clone(t.regs),
		Type:          t.typ,
		Generation:    t.generation,
		APTPL:         t.aptpl,
	}
	if t.typ != 0 && !t.typ.allRegistrants() {
		s.Holder = new(t.holder)
	}
	return s
}

// tableOf returns the persistent part of s, which is valid.
func tableOf(s Snapshot) table {
	t := table{
		regs:       slices.Clone(s.Registrations),
		typ:        s.Type,
		generation: s.Generation,
		aptpl:      s.APTPL,
	}
	if s.Holder != nil {
		t.holder = *s.Holder
	}
	return t
}
