// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// The vital product data pages in use (SPC-4 7.8, SBC-3 6.6).
const (
	vpdSupportedPages      = 0x00
	vpdSerialNumber        = 0x80
	vpdIdentification      = 0x83
	vpdExtendedInquiry     = 0x86
	vpdBlockLimits         = 0xb0
	vpdBlockCharacter      = 0xb1
	vpdLogicalProvisioning = 0xb2
)

// vitalPages returns the codes of the pages that lu has, in order.
func (lu *LogicalUnit) vitalPages() []byte {
	pages := []byte{vpdSupportedPages, vpdSerialNumber, vpdIdentification, vpdExtendedInquiry}
	if lu.controller {
		return pages
	}
	return append(pages, vpdBlockLimits, vpdBlockCharacter, vpdLogicalProvisioning)
}

// vitalPage returns a vital product data page with its header, nil if there
// is no such page.
func (lu *LogicalUnit) vitalPage(code byte, at *attachment, port uint16) []byte {
	if !slices.Contains(lu.vitalPages(), code) {
		return nil
	}
	b := []byte{lu.peripheral(), code, 0, 0}
	switch code {
	case vpdSupportedPages:
		b = append(b, lu.vitalPages()...)
	case vpdSerialNumber:
		b = append(b, at.serialNumber()...)
	case vpdIdentification:
		b = at.appendDesignators(b, port)
	case vpdExtendedInquiry:
		b = append(b, make([]byte, 60)...)
		b[5] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
		if !lu.controller {
			b[6] = 0x01 // V_SUP: there may be a volatile cache
		}
		b[7] = 0x01 // LUICLR: see takeAttention
	case vpdBlockLimits:
		b = lu.appendBlockLimits(b)
	case vpdBlockCharacter:
		b = append(b, make([]byte, 60)...)
		binary.BigEndian.PutUint16(b[4:], lu.rotationRate())
	case vpdLogicalProvisioning:
		b = append(b, 0, 0, 0, 0)
		if lu.can.Discarder != nil {
			b[5] = 0xe4 // LBPU, LBPWS, LBPWS10, LBPRZ
			b[6] = 0x02 // thin provisioned
		}
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-4))
	return b
}

// Designator fields (SPC-4 7.8.6).
const (
	codeBinary = 0x01
	codeASCII  = 0x02
	codeUTF8   = 0x03

	ofUnit   = 0x00
	ofPort   = 0x90 // PIV, target port
	ofDevice = 0xa0 // PIV, target device

	protocolISCSI = 0x50

	designatorT10          = 0x1
	designatorNAA          = 0x3
	designatorRelativePort = 0x4
	designatorPortGroup    = 0x5
	designatorSCSIName     = 0x8
)

// appendDesignators appends the Device Identification page's designators
// (SPC-4 7.8.6): the logical unit by T10 vendor ID and by NAA, the target port
// that the command came through, and the target device.
func (a *attachment) appendDesignators(b []byte, port uint16) []byte {
	b = a.appendUnitDesignators(b)
	rel := []byte{0, 0, byte(port >> 8), byte(port)}
	b = appendDesignator(b, protocolISCSI|codeBinary, ofPort|designatorRelativePort, rel)
	group := []byte{0, 0, byte(portGroup >> 8), byte(portGroup & 0xff)}
	b = appendDesignator(b, protocolISCSI|codeBinary, ofPort|designatorPortGroup, group)
	if name := a.dev.portName(port); name != "" {
		b = appendDesignator(b, protocolISCSI|codeUTF8, ofPort|designatorSCSIName, scsiName(name))
	}
	return appendDesignator(b, protocolISCSI|codeUTF8, ofDevice|designatorSCSIName, scsiName(a.dev.opts.Name))
}

// appendUnitDesignators appends those of the logical unit.
func (a *attachment) appendUnitDesignators(b []byte) []byte {
	id := []byte(a.identity.SCSIID)
	if a.lu.isTgt() && len(id) < tgtIDLength {
		id = append(id, make([]byte, tgtIDLength-len(id))...)
	}
	b = appendDesignator(b, codeASCII, ofUnit|designatorT10, id)
	if a.lu.isTgt() {
		b = appendDesignator(b, codeBinary, ofUnit|designatorNAA, a.localNAA)
	}
	return appendDesignator(b, codeBinary, ofUnit|designatorNAA, a.naa)
}

// isTgt reports whether pages 80h and 83h are laid out as tgt does.
func (lu *LogicalUnit) isTgt() bool { return lu.opts.TgtIdentification }

// tgtIDLength is how long tgt makes the T10 designator and the serial number.
const tgtIDLength = maxIDLength

// serialNumber returns the PRODUCT SERIAL NUMBER field (SPC-4 7.8.15).
func (a *attachment) serialNumber() []byte {
	if a.lu.isTgt() {
		return fmt.Appendf(nil, "%*s", tgtIDLength, a.identity.Serial)
	}
	return []byte(a.identity.Serial)
}

// rotationRate returns the MEDIUM ROTATION RATE field (SBC-3 6.6.2).
func (lu *LogicalUnit) rotationRate() uint16 {
	if r := lu.opts.RotationRate; r != nil {
		return uint16(*r)
	}
	return 1
}

func appendDesignator(b []byte, code, kind byte, designator []byte) []byte {
	b = append(b, code, kind, 0, byte(len(designator)))
	return append(b, designator...)
}

// scsiName returns a SCSI name string, NUL terminated and padded to a multiple
// of four bytes (SPC-4 7.8.6.11). iSCSI names have at most 223 bytes, so that
// the length fits.
func scsiName(name string) []byte {
	const longest = 251
	if len(name) > longest {
		name = name[:longest]
	}
	b := append([]byte(name), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Limits that the Block Limits page reports, beside MaxTransfer.
const (
	maxCompareBlocks    = 255
	maxWriteSameBytes   = 16 << 20
	maxUnmapBytes       = 512 << 20 // in one command
	maxUnmapDescriptors = 256
)

// appendBlockLimits appends the Block Limits page's body (SBC-3 6.6.3).
func (lu *LogicalUnit) appendBlockLimits(b []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, 60)...)
	p := b[at-4:]           // offsets as in the standard
	p[4] = 0x01             // WSNZ: WRITE SAME of zero blocks is refused
	p[5] = maxCompareBlocks // MAXIMUM COMPARE AND WRITE LENGTH
	be := binary.BigEndian
	granularity := max(uint32(lu.store.Info().Granularity)>>lu.shift, 1)
	transfer := lu.opts.OptimalTransferGranularity
	if transfer == 0 {
		transfer = uint16(min(max(granularity, 4096>>lu.shift), 0xffff))
	}
	optimal := lu.opts.OptimalTransferLength
	if optimal == 0 {
		optimal = 1 << 20 >> lu.shift
	}
	be.PutUint16(p[6:], transfer)
	be.PutUint32(p[8:], MaxTransfer>>lu.shift)
	be.PutUint32(p[12:], min(optimal, MaxTransfer>>lu.shift))
	be.PutUint32(p[16:], MaxTransfer>>lu.shift)
	if lu.can.Discarder != nil {
		be.PutUint32(p[20:], maxUnmapBytes>>lu.shift)
		be.PutUint32(p[24:], maxUnmapDescriptors)
		be.PutUint32(p[28:], granularity)
		be.PutUint32(p[32:], 0x80000000) // UGAVALID, aligned at block 0
	}
	be.PutUint64(p[36:], maxWriteSameBytes>>lu.shift)
	return b
}
