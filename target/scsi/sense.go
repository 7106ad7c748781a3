// SPDX-License-Identifier: Apache-2.0

package scsi

import "encoding/binary"

// The sense keys in use (SPC-4 4.5.6).
const (
	keyNoSense        = 0x0
	keyNotReady       = 0x2
	keyMediumError    = 0x3
	keyHardwareError  = 0x4
	keyIllegalRequest = 0x5
	keyUnitAttention  = 0x6
	keyDataProtect    = 0x7
	keyAbortedCommand = 0xb
	keyMiscompare     = 0xe
)

// Additional sense codes with their qualifiers, ASC<<8 | ASCQ (SPC-4 annex F).
const (
	ascNone                   = 0x0000
	ascManualIntervention     = 0x0403 // LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED
	ascPortUnavailable        = 0x040c // LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE
	ascWriteError             = 0x0c00
	ascUnrecoveredReadError   = 0x1100
	ascParameterListLength    = 0x1a00
	ascMiscompare             = 0x1d00
	ascInvalidOpcode          = 0x2000
	ascLBAOutOfRange          = 0x2100
	ascInvalidFieldInCDB      = 0x2400
	ascUnitNotSupported       = 0x2500
	ascInvalidFieldInParam    = 0x2600
	ascWriteProtected         = 0x2700
	ascSoftwareWriteProtected = 0x2702
	ascSpaceAllocationFailed  = 0x2707
	ascNotReadyToReady        = 0x2800
	ascPowerOnOrReset         = 0x2900
	ascPowerOn                = 0x2901
	ascBusDeviceReset         = 0x2903
	ascModeParametersChanged  = 0x2a01
	ascCapacityChanged        = 0x2a09
	ascSavingNotSupported     = 0x3900
	ascMediumNotPresent       = 0x3a00
	ascInquiryDataChanged     = 0x3f03
	ascReportedLUNsChanged    = 0x3f0e
	ascInternalTargetFailure  = 0x4400
	ascMediumRemovalPrevented = 0x5302
)

// A sense is what sense data says, apart from its format.
type sense struct {
	key  uint8
	code uint16 // ASC<<8 | ASCQ

	hasInfo bool
	info    uint64 // INFORMATION field: an LBA, or an offset for MISCOMPARE

	// Field pointer of an ILLEGAL REQUEST (SPC-4 4.5.2.4.2).
	where fieldIn
	field uint16 // byte of the CDB or of the parameter data
	bit   int8   // leftmost bit of the field in that byte, -1 for the whole byte
}

// fieldIn says what a field pointer points into.
type fieldIn uint8

const (
	noField fieldIn = iota
	inCDB
	inParam
)

// badCDB is INVALID FIELD IN CDB at a byte.
func badCDB(field int) sense { return badCDBBit(field, -1) }

// badCDBBit is INVALID FIELD IN CDB at a bit (7 to 0) of a byte.
func badCDBBit(field int, bit int8) sense {
	return sense{key: keyIllegalRequest, code: ascInvalidFieldInCDB, where: inCDB, field: uint16(field), bit: bit}
}

// badParam is INVALID FIELD IN PARAMETER LIST at a byte.
func badParam(field int) sense {
	return sense{key: keyIllegalRequest, code: ascInvalidFieldInParam, where: inParam, field: uint16(field), bit: -1}
}

// illegal is an ILLEGAL REQUEST without a field pointer.
func illegal(code uint16) sense { return sense{key: keyIllegalRequest, code: code} }

// withInfo adds an INFORMATION field.
func (s sense) withInfo(v uint64) sense {
	s.hasInfo, s.info = true, v
	return s
}

// appendTo encodes s in descriptor or fixed format (SPC-4 4.5.2, 4.5.3).
func (s sense) appendTo(b []byte, descriptor bool) []byte {
	if descriptor {
		return s.appendDescriptor(b)
	}
	return s.appendFixed(b)
}

func (s sense) appendFixed(b []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, 18)...)
	p := b[at:]
	p[0] = 0x70
	if s.hasInfo && s.info <= 0xffffffff {
		p[0] |= 0x80
		binary.BigEndian.PutUint32(p[3:], uint32(s.info))
	}
	p[2] = s.key
	p[7] = 10
	p[12], p[13] = byte(s.code>>8), byte(s.code)
	s.putFieldPointer(p[15:18])
	return b
}

func (s sense) appendDescriptor(b []byte) []byte {
	at := len(b)
	b = append(b, 0x72, s.key, byte(s.code>>8), byte(s.code), 0, 0, 0, 0)
	if s.hasInfo {
		b = append(b, 0x00, 0x0a, 0x80, 0)
		b = binary.BigEndian.AppendUint64(b, s.info)
	}
	if s.where != noField {
		b = append(b, 0x02, 0x06, 0, 0, 0, 0, 0, 0)
		s.putFieldPointer(b[len(b)-4:])
	}
	b[at+7] = byte(len(b) - at - 8)
	return b
}

// putFieldPointer fills the three sense key specific bytes.
func (s sense) putFieldPointer(p []byte) {
	if s.where == noField {
		return
	}
	p[0] = 0x80
	if s.where == inCDB {
		p[0] |= 0x40
	}
	if s.bit >= 0 {
		p[0] |= 0x08 | byte(s.bit)
	}
	binary.BigEndian.PutUint16(p[1:], s.field)
}

// fail ends the command with CHECK CONDITION and s, in the format that the
// logical unit's Control mode page selects.
func (c *Command) fail(s sense) {
	c.dropIn()
	descriptor := c.exec.at != nil && c.exec.at.lu.has(stateDSense)
	c.Sense = s.appendTo(c.senseBuf[:0], descriptor)
	c.Status = CheckCondition
	c.done = true
}
