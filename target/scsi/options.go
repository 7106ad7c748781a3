// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/gotgtd/gotgtd/internal/check"
)

// UnitOptions are what a logical unit says about itself. The zero value of each is the default.
// The keys are those of a configuration.
type UnitOptions struct {
	// SCSIID is the designator in T10 format of VPD page 83h, at most 36 bytes; Serial is that
	// of page 80h, at most 36 bytes. NAA is the NAA designator of page 83h, 16 or 32
	// hexadecimal digits. They default to values that depend on nothing but the target's
	// name and the LUN; see [DefaultIdentity].
	SCSIID string `yaml:"scsi-id,omitempty"`
	Serial string `yaml:"serial,omitempty"`
	NAA    string `yaml:"naa,omitempty,hex"`

	Vendor   string `yaml:"vendor,omitempty"`   // at most 8 bytes; default "IET"
	Product  string `yaml:"product,omitempty"`  // at most 16 bytes; default "VIRTUAL-DISK"
	Revision string `yaml:"revision,omitempty"` // at most 4 bytes; default "0001"

	// TgtIdentification lays out VPD pages 80h and 83h as tgt does: the serial number at the
	// right of 36 bytes, the T10 designator 36 bytes long with NULs at its end, and after it
	// an NAA designator of the target's number and the LUN.
	TgtIdentification bool `yaml:"tgt-identification,omitempty"`

	Removable       bool `yaml:"removable,omitempty"`        // removable medium, which START STOP UNIT can eject
	Offline         bool `yaml:"offline,omitempty"`          // every command that needs the medium ends with NOT READY
	DescriptorSense bool `yaml:"descriptor-sense,omitempty"` // sense data in descriptor format (D_SENSE) from the start

	// WriteCache lets a write be answered before it is on stable storage (WCE); default true. What an initiator
	// asks for by a flush or FUA it gets either way.
	WriteCache *bool `yaml:"write-cache,omitempty"`

	// Geometry that READ CAPACITY (16) and the Block Limits page report. Zero
	// or nil: what the store says.
	PhysicalBlockExponent      *int   `yaml:"physical-block-exponent,omitempty"`      // 2^n logical blocks are a physical one, 0 to 15
	LowestAlignedLBA           uint16 `yaml:"lowest-aligned-lba,omitempty"`           // 0 to 16383
	OptimalTransferGranularity uint16 `yaml:"optimal-transfer-granularity,omitempty"` // logical blocks; default: that of discards, or 4096 bytes
	OptimalTransferLength      uint32 `yaml:"optimal-transfer-length,omitempty"`      // logical blocks; default 1 MiB

	// RotationRate is the medium's, in rotations a minute (SBC-3 6.6.2): 0 does not tell, 1 is
	// a medium that does not rotate; default 1.
	RotationRate *int `yaml:"rotation-rate,omitempty"`

	// ModePages are mode pages to present beside or in place of the usual.
	ModePages []ModePage `yaml:"mode-pages,omitempty"`
}

// MaxLowestAlignedLBA is what fits into READ CAPACITY (16) data (SBC-3 5.16.2).
const MaxLowestAlignedLBA = 1<<14 - 1

const (
	maxIDLength       = 36 // bytes of SCSIID and Serial: what tgt has
	maxPhysicalBlocks = 15 // as an exponent (SBC-3 5.16.2)

	// Rotation rates that are one (SBC-3 6.6.2).
	minRotation = 0x401
	maxRotation = 0xfffe
)

// SetDefaults fills in what has a default.
func (o *UnitOptions) SetDefaults() {
	if o.WriteCache == nil {
		o.WriteCache = new(true)
	}
	o.Vendor = cmp.Or(o.Vendor, defaultVendor)
	o.Product = cmp.Or(o.Product, "VIRTUAL-DISK")
	o.Revision = cmp.Or(o.Revision, "0001")
}

// Check tells of each option that is impossible.
func (o *UnitOptions) Check(fail check.Fail) {
	o.checkIdentity(fail)
	if e := o.PhysicalBlockExponent; e != nil {
		fail.Range("physical-block-exponent", int64(*e), 0, maxPhysicalBlocks)
	}
	fail.Range("lowest-aligned-lba", int64(o.LowestAlignedLBA), 0, MaxLowestAlignedLBA)
	if r := o.RotationRate; r != nil && *r != 0 && *r != 1 && (*r < minRotation || *r > maxRotation) {
		fail.Errorf("rotation-rate", "%d is none of 0 (not told), 1 (the medium does not rotate), and %d to %d a minute (SBC-3 6.6.2)", *r, minRotation, maxRotation)
	}
	for i, p := range o.ModePages {
		key := fmt.Sprintf("mode-pages[%d]", i)
		p.check(fail, key)
		for _, q := range o.ModePages[:i] {
			if q.Page == p.Page && q.Subpage == p.Subpage {
				fail.Errorf(key, "mode page %02Xh, subpage %02Xh is given twice", p.Page, p.Subpage)
			}
		}
	}
}

// checkIdentity checks fields of printable ASCII of fixed width (SPC-4 4.3.1).
func (o *UnitOptions) checkIdentity(fail check.Fail) {
	for _, f := range []struct {
		key, value string
		width      int
	}{
		{"scsi-id", o.SCSIID, maxIDLength}, {"serial", o.Serial, maxIDLength},
		{"vendor", o.Vendor, 8}, {"product", o.Product, 16}, {"revision", o.Revision, 4},
	} {
		if len(f.value) > f.width {
			fail.Errorf(f.key, "%q has %d characters, more than %d", f.value, len(f.value), f.width)
		}
		if strings.ContainsFunc(f.value, func(r rune) bool { return r < ' ' || r > '~' }) {
			fail.Errorf(f.key, "%q has characters in it that are not printable ASCII", f.value)
		}
	}
	if o.NAA != "" {
		if _, err := ParseNAA(o.NAA); err != nil {
			fail.Errorf("naa", "%w", err)
		}
	}
}

// check checks a mode page's numbers and length: the length byte of a page
// counts what follows it (SPC-4 7.5.7).
func (p ModePage) check(fail check.Fail, key string) {
	fail.Range(key+".page", int64(p.Page), 0, MaxModePage)
	fail.Range(key+".subpage", int64(p.Subpage), 0, MaxModeSubpage)
	if len(p.Data) == 0 || len(p.Data) > 255 {
		fail.Errorf(key+".data", "%q has %d bytes: a mode page has 1 to 255", hex.EncodeToString(p.Data), len(p.Data))
	}
}
