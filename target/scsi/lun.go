// SPDX-License-Identifier: Apache-2.0

package scsi

import "fmt"

// MaxLUN is the highest logical unit number: what flat space addressing can
// express (SAM-5 4.7.7.3).
const MaxLUN = 0x3fff

// MakeLUN returns number n on the wire: peripheral device addressing below
// 256, flat space addressing above, as initiators expect (SAM-5 4.7.7).
func MakeLUN(n uint16) LUN {
	if n < 256 {
		return LUN(n) << 48
	}
	return LUN(0x4000|n&MaxLUN) << 48
}

// Number returns the logical unit number of l, which may use peripheral
// device or flat space addressing; ok is false for every other form.
func (l LUN) Number() (n uint16, ok bool) {
	if l<<16 != 0 {
		return 0, false
	}
	v := uint16(l >> 48)
	switch v >> 14 {
	case 0: // peripheral device addressing: bus identifier 0 only
		return v, v < 256
	case 1: // flat space addressing
		return v & MaxLUN, true
	}
	return 0, false
}

// String returns the number, or the eight bytes in hexadecimal where l is of
// a form that names no logical unit here.
func (l LUN) String() string {
	if n, ok := l.Number(); ok {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("0x%016x", uint64(l))
}
