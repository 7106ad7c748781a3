// SPDX-License-Identifier: Apache-2.0

package reservation

import "fmt"

// Type is a persistent reservation's type, as on the wire (SPC-4 6.15.3.4).
// Zero is none.
type Type uint8

// The types of persistent reservation.
const (
	WriteExclusive                 Type = 1
	ExclusiveAccess                Type = 3
	WriteExclusiveRegistrantsOnly  Type = 5
	ExclusiveAccessRegistrantsOnly Type = 6
	WriteExclusiveAllRegistrants   Type = 7
	ExclusiveAccessAllRegistrants  Type = 8
)

const (
	// typeMask is REPORT CAPABILITIES' PERSISTENT RESERVATION TYPE MASK with
	// the bit of each of the types above.
	typeMask = 0xea01
	// scopeLogicalUnit is the only scope there is, LU_SCOPE.
	scopeLogicalUnit = 0
)

// String returns the type's name as SPC-4 has it.
func (t Type) String() string {
	switch t {
	case 0:
		return "none"
	case WriteExclusive:
		return "Write Exclusive"
	case ExclusiveAccess:
		return "Exclusive Access"
	case WriteExclusiveRegistrantsOnly:
		return "Write Exclusive - Registrants Only"
	case ExclusiveAccessRegistrantsOnly:
		return "Exclusive Access - Registrants Only"
	case WriteExclusiveAllRegistrants:
		return "Write Exclusive - All Registrants"
	case ExclusiveAccessAllRegistrants:
		return "Exclusive Access - All Registrants"
	}
	return fmt.Sprintf("reserved type %Xh", uint8(t))
}

// valid says whether t is one of the six types.
func (t Type) valid() bool {
	switch t {
	case WriteExclusive, ExclusiveAccess,
		WriteExclusiveRegistrantsOnly, ExclusiveAccessRegistrantsOnly,
		WriteExclusiveAllRegistrants, ExclusiveAccessAllRegistrants:
		return true
	}
	return false
}

// allRegistrants says whether every registered nexus holds the reservation.
func (t Type) allRegistrants() bool {
	return t == WriteExclusiveAllRegistrants || t == ExclusiveAccessAllRegistrants
}

// shared says whether every registered nexus may do what the holder may: the
// registrants only and the all registrants types.
func (t Type) shared() bool {
	return t.allRegistrants() ||
		t == WriteExclusiveRegistrantsOnly || t == ExclusiveAccessRegistrantsOnly
}

// readable says whether everybody may read: the write exclusive types.
func (t Type) readable() bool {
	return t == WriteExclusive || t == WriteExclusiveRegistrantsOnly || t == WriteExclusiveAllRegistrants
}
