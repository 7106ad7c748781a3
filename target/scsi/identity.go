// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// defaultVendor is tgt's, which initiators' rules know.
const defaultVendor = "IET"

// DefaultIdentity is what initiators tell a disk by to which nothing else is given. It is made of
// what names it for good, its target and its LUN. The TID is no part of it, for that changes
// when another target comes or goes.
func DefaultIdentity(target string, lun uint16) Identity {
	return DigestIdentity(fmt.Sprintf("%s,lun,%d", target, lun))
}

// DigestIdentity makes an identity of 16 hexadecimal digits out of a name.
func DigestIdentity(name string) Identity {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:8])
	return Identity{SCSIID: fmt.Sprintf("%-8s%s", defaultVendor, id), Serial: id, NAA: "3" + id[1:]}
}

// TgtIdentity is what tgt tells a disk by: it is made of the numbers of its target and
// the LUN. Of the SCSI ID, "" for the usual one, comes the NAA designator.
func TgtIdentity(tid int, lun uint16, scsiID string) Identity {
	id := cmp.Or(scsiID, fmt.Sprintf("%-8s%04x%04x", defaultVendor, tid, lun))
	return Identity{SCSIID: id, Serial: fmt.Sprintf("beaf%d%d", tid, lun), NAA: TgtNAA(id), LocalNAA: hex.EncodeToString(tgtLocalNAA(tid, lun))}
}

// TgtNAA is the NAA 6 designator that tgt makes of a SCSI ID: the last 31 of its
// characters, the hexadecimal digits among them, and 0 for every other one. Of
// "IET     00010001" it is 60000000000000000e00000000010001.
func TgtNAA(scsiID string) string {
	digits := []byte("6" + strings.Repeat("0", 31))
	for i, at := len(scsiID)-1, len(digits)-1; i >= 0 && at > 0; i, at = i-1, at-1 {
		if c := scsiID[i] | 0x20; scsiID[i] >= '0' && scsiID[i] <= '9' || c >= 'a' && c <= 'f' {
			digits[at] = c
		}
	}
	return string(digits)
}

// tgtLocalNAA is the second NAA designator that tgt has, locally assigned: 28 bits of
// the target's number and 32 bits of the LUN.
func tgtLocalNAA(tid int, lun uint16) []byte {
	return binary.BigEndian.AppendUint64(nil, 3<<60|uint64(tid)&(1<<28-1)<<32|uint64(lun))
}

// controllerIdentity is that of a controller: tgt's, but for an NAA designator (SPC-4 7.8.6.6.4)
// of the target's name, which tgt has none of.
func controllerIdentity(target string, tid int, lun uint16) Identity {
	id := TgtIdentity(tid, lun, "")
	sum := sha256.Sum256(binary.BigEndian.AppendUint16([]byte(target+"\x00"), lun))
	sum[0] = 0x30 | sum[0]&0x0f
	id.NAA = hex.EncodeToString(sum[:8])
	if tid == 0 { // no number that tells the device from others
		id.SCSIID, id.Serial = fmt.Sprintf("%-8s%s", defaultVendor, id.NAA), id.NAA
	}
	return id
}

// identity is that of a logical unit under its number on a device.
func (d *Device) identity(n uint16, lu *LogicalUnit) Identity {
	id := DefaultIdentity(d.opts.Name, n)
	if lu.controller {
		id = controllerIdentity(d.opts.Name, d.opts.TID, n)
	}
	given := lu.opts.Identity(d.opts.TID, n)
	given.SCSIID, given.Serial, given.NAA = cmp.Or(given.SCSIID, id.SCSIID), cmp.Or(given.Serial, id.Serial), cmp.Or(given.NAA, id.NAA)
	return given
}

// Identity is what the options say of it, of the LUN of a target with the number tid.
func (o *UnitOptions) Identity(tid int, lun uint16) Identity {
	id := Identity{SCSIID: o.SCSIID, Serial: o.Serial, NAA: strings.ToLower(o.NAA), Vendor: o.Vendor, Product: o.Product}
	if o.TgtIdentification {
		id.LocalNAA = hex.EncodeToString(tgtLocalNAA(tid, lun))
	}
	return id
}

// ParseNAA returns the 8 or 16 bytes of an NAA identifier given in hexadecimal:
// 16 digits, or 32 when the first of them is 6 (SPC-4 7.8.6.6).
func ParseNAA(s string) ([]byte, error) {
	if s == "" || !strings.Contains("2356", s[:1]) {
		return nil, errors.New("an NAA identifier begins with 2, 3, 5 or 6")
	}
	digits := 16
	if s[0] == '6' {
		digits = 32
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(s) != digits {
		return nil, fmt.Errorf("an NAA identifier that begins with %c has %d hexadecimal digits", s[0], digits)
	}
	return b, nil
}
