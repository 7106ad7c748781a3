// SPDX-License-Identifier: Apache-2.0

package reservation

import "encoding/binary"

// The service actions of PERSISTENT RESERVE IN (SPC-4 6.15.1).
const (
	actionReadKeys           = 0x00
	actionReadReservation    = 0x01
	actionReportCapabilities = 0x02
	actionReadFullStatus     = 0x03
)

// in carries out PERSISTENT RESERVE IN on t, which it does not change.
func (t *table) in(cdb []byte, aptplCapable bool) Result {
	var data []byte
	switch cdb[1] & 0x1f {
	case actionReadKeys:
		data = t.readKeys()
	case actionReadReservation:
		data = t.readReservation()
	case actionReportCapabilities:
		data = t.reportCapabilities(aptplCapable)
	case actionReadFullStatus:
		data = t.readFullStatus()
	default:
		return fail(invalidCDB(1))
	}
	allocation := int(binary.BigEndian.Uint16(cdb[7:9]))
	return Result{Data: data[:min(len(data), allocation)]}
}

// header begins data with PRGENERATION and a place for ADDITIONAL LENGTH.
func (t *table) header() []byte {
	data := make([]byte, 8)
	binary.BigEndian.PutUint32(data, t.generation)
	return data
}

// finish sets ADDITIONAL LENGTH to what follows it.
func finish(data []byte) []byte {
	binary.BigEndian.PutUint32(data[4:], uint32(len(data)-8))
	return data
}

// readKeys is READ KEYS (SPC-4 6.15.2).
func (t *table) readKeys() []byte {
	data := t.header()
	for _, r := range t.regs {
		data = binary.BigEndian.AppendUint64(data, r.Key)
	}
	return finish(data)
}

// readReservation is READ RESERVATION (SPC-4 6.15.3).
func (t *table) readReservation() []byte {
	data := t.header()
	if t.typ != 0 {
		data = binary.BigEndian.AppendUint64(data, t.holderKey())
		data = append(data, 0, 0, 0, 0, 0, scopeLogicalUnit<<4|byte(t.typ), 0, 0)
	}
	return finish(data)
}

// reportCapabilities is REPORT CAPABILITIES (SPC-4 6.15.4).
func (t *table) reportCapabilities(aptplCapable bool) []byte {
	const (
		crh   = 0x10 // byte 2: RESERVE and RELEASE as SPC-4 5.13.3 has them
		sipC  = 0x08 // SPEC_I_PT
		atpC  = 0x04 // ALL_TG_PT
		ptplC = 0x01 // APTPL

		tmv   = 0x80 // byte 3: the type mask is valid
		allow = 0x10 // 001b: TEST UNIT READY is always allowed, no word of others
		ptplA = 0x01 // the last APTPL bit was one
	)
	data := []byte{0, 8, crh | sipC | atpC, tmv | allow, typeMask >> 8, typeMask & 0xff, 0, 0}
	if aptplCapable {
		data[2] |= ptplC
	}
	if t.aptpl {
		data[3] |= ptplA
	}
	return data
}

// readFullStatus is READ FULL STATUS (SPC-4 6.15.5). Each registration has a
// descriptor of its own, so ALL_TG_PT is always zero in them.
func (t *table) readFullStatus() []byte {
	const holder = 0x01 // R_HOLDER
	data := t.header()
	for _, r := range t.regs {
		data = binary.BigEndian.AppendUint64(data, r.Key)
		if t.holds(r.Nexus) {
			data = append(data, 0, 0, 0, 0, holder, scopeLogicalUnit<<4|byte(t.typ))
		} else {
			data = append(data, 0, 0, 0, 0, 0, 0)
		}
		data = append(data, 0, 0, 0, 0)
		data = binary.BigEndian.AppendUint16(data, r.Nexus.TargetPort)
		at := len(data)
		data = append(data, 0, 0, 0, 0)
		data = appendTransportID(data, r.Nexus)
		binary.BigEndian.PutUint32(data[at:], uint32(len(data)-at-4))
	}
	return finish(data)
}
