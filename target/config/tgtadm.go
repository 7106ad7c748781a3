// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// SetTgt sets what tgtadm's --name and --value set of a target: the directives of a
// targets.conf with those names.
func (t *Target) SetTgt(name, value string) error {
	def, ok := targetDirectives[name]
	if !ok || strings.Contains(name, "-") || name == "controller_tid" || strings.HasSuffix(name, "user") {
		return fmt.Errorf("unknown parameter %q", name)
	}
	c := &tgtContext{b: looseBuilder(), target: *t}
	if err := def.apply(c, tgtDirective{name: name, value: value}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if c.nops > 0 {
		setNOPTimeout(&c.target.Parameters, c.nops)
	}
	if p := &c.target.Parameters; name == "MaxBurstLength" { // a first burst is never longer (RFC 7143 13.14)
		p.FirstBurstLength = min(p.FirstBurstLength, p.MaxBurstLength)
	}
	*t = c.target
	return nil
}

// SetTgt sets what tgtadm's options of a new logical unit set, and its --params: the
// directives of a targets.conf with those names.
func (l *LUN) SetTgt(name, value string) error {
	def, ok := lunDirectives[name]
	if !ok || name == "lun" {
		return fmt.Errorf("unknown parameter %q", name)
	}
	changed := *l
	c := &tgtLUNContext{b: looseBuilder(), lun: &changed, dir: "/"}
	c.apply(def, tgtDirective{name: name, value: value})
	if len(c.b.errs) > 0 {
		return c.b.errs[0].Err
	}
	*l = changed
	return nil
}

// looseBuilder is a builder for directives that stand in no file.
func looseBuilder() *tgtBuilder {
	return &tgtBuilder{cfg: &Config{places: places{}}}
}

// SetTgtDefaults gives a logical unit of a target with the number tid what it has in
// tgt, as far as nothing else is given: the identity, so that initiators know it again; no
// thin provisioning, or the first fstrim would give back the space of an image that was
// preallocated; physical blocks of 4 KiB; and a medium whose rotation is not told.
func (l *LUN) SetTgtDefaults(tid int) {
	id := scsi.TgtIdentity(tid, l.Number, l.SCSIID)
	orDefault(&l.SCSIID, id.SCSIID)
	orDefault(&l.Serial, id.Serial)
	orDefault(&l.NAA, id.NAA)
	l.TgtIdentification = true
	if l.Thin == nil {
		l.Thin = new(false)
	}
	if l.RotationRate == nil {
		l.RotationRate = new(0)
	}
	if l.PhysicalBlockExponent == nil {
		l.PhysicalBlockExponent = new(3)
		if l.BlockSize == 4096 {
			*l.PhysicalBlockExponent = 0
		}
	}
}

// Bind lets in an address, a network or "ALL", or with isName an initiator's
// name. It reports whether that is new. From then on an empty list is for nobody.
func (a *Access) Bind(s string, isName bool) (bool, error) {
	was := len(a.List())
	if isName && slices.Contains(a.Initiators, strings.ToLower(s)) {
		return false, nil
	}
	next := Access{All: a.All, Nobody: true, Addresses: slices.Clone(a.Addresses), Initiators: slices.Clone(a.Initiators), Accounts: a.Accounts}
	add := next.add
	if isName {
		add = next.addInitiator
	}
	if err := add(s); err != nil {
		return false, err
	}
	if n := len(next.Addresses); n > len(a.Addresses) && slices.Contains(a.Addresses, next.Addresses[n-1]) {
		return false, nil
	}
	if len(next.List()) == was {
		return false, nil
	}
	*a = next
	return true, nil
}

// Unbind takes back what Bind did, and reports whether it was there.
func (a *Access) Unbind(s string, isName bool) bool {
	if !isName && s == "ALL" {
		was := a.All
		a.All, a.Nobody = false, true
		return was
	}
	if isName {
		i := slices.Index(a.Initiators, strings.ToLower(s))
		if i >= 0 {
			a.Initiators, a.Nobody = slices.Delete(slices.Clone(a.Initiators), i, i+1), true
		}
		return i >= 0
	}
	p, err := parsePrefix(s)
	if err != nil {
		return false
	}
	i := slices.Index(a.Addresses, p)
	if i >= 0 {
		a.Addresses, a.Nobody = slices.Delete(slices.Clone(a.Addresses), i, i+1), true
	}
	return i >= 0
}

// AddPortal adds a portal to the first portal group, and reports whether it is new.
func (c *Config) AddPortal(address string) bool {
	for _, g := range c.PortalGroups {
		if slices.ContainsFunc(g.Portals, func(p Portal) bool { return p.Address == address }) {
			return false
		}
	}
	if len(c.PortalGroups) == 0 {
		c.PortalGroups = []PortalGroup{{Tag: 1}}
	}
	g := &c.PortalGroups[0]
	g.Portals = append(g.Portals, Portal{Address: address})
	return true
}

// RemovePortal takes a portal away, and reports whether it was there. A group
// that has none left stays, since targets may name it.
func (c *Config) RemovePortal(address string) bool {
	for i := range c.PortalGroups {
		g := &c.PortalGroups[i]
		if at := slices.IndexFunc(g.Portals, func(p Portal) bool { return p.Address == address }); at >= 0 {
			g.Portals = slices.Delete(g.Portals, at, at+1)
			return true
		}
	}
	return false
}
