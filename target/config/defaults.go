// SPDX-License-Identifier: Apache-2.0

package config

import (
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/scsi"
)

// SetDefaults replaces each zero value by its default, as the fields'
// documentation gives it. What has no default, such as a path, it leaves for
// [Config.Validate]. Done twice, it changes nothing.
func (c *Config) SetDefaults() { c.setDefaults(nil) }

// setDefaults is SetDefaults with the numbers that were given before.
func (c *Config) setDefaults(known Numbers) {
	c.Limits.SetDefaults()
	setDefault(&c.Discovery.Algorithms, CHAPAlgorithms)
	taken := map[int]bool{}
	for i := range c.Targets {
		t := &c.Targets[i]
		t.Name = lowerName(t.Name)
		taken[t.TID] = true
	}
	for i := range c.Targets {
		if t := &c.Targets[i]; t.TID == 0 {
			t.TID = known.tid(t.Name, taken)
			taken[t.TID] = true
		}
	}
	gone := make(map[int]bool, len(known))
	for _, n := range known {
		gone[n.TID] = true
	}
	tid := 1
	for i := range c.Targets {
		t := &c.Targets[i]
		if t.TID == 0 {
			if tid = freeTID(tid, taken, gone); tid > MaxTID { // the numbers of what is gone are free then
				tid, gone = freeTID(1, taken, nil), nil
			}
			t.TID, taken[tid], c.newNumbers = tid, true, true
		}
		t.SetDefaults()
	}
}

// lowerName is the one form of an iSCSI name in which names are compared (RFC 7143
// 4.2.7.1).
func lowerName(name string) string { return strings.ToLower(name) }

// Complete returns a copy of c that has its defaults and has passed [Config.Validate],
// for a process that opens the backing stores next: what is wrong with these is no
// error here. A nil c is an empty configuration.
func (c *Config) Complete() (*Config, error) {
	full := new(Config)
	if c != nil {
		*full = *c
	}
	full.Targets = slices.Clone(full.Targets)
	for i := range full.Targets {
		full.Targets[i].LUNs = slices.Clone(full.Targets[i].LUNs)
	}
	full.SetDefaults()
	if errs := full.validate(validation{starting: true}).available(); len(errs) > 0 {
		return nil, errs.sorted(full.Files)
	}
	return full, nil
}

// SetDefaults replaces each zero value by its default, as [Config.SetDefaults] does, but
// for the TID: which one is free the other targets say.
func (t *Target) SetDefaults() {
	t.Name = lowerName(t.Name)
	t.Access.setDefaults()
	setDefault(&t.Auth.Algorithms, CHAPAlgorithms)
	t.Parameters.SetDefaults()
	for i := range t.LUNs {
		t.LUNs[i].setDefaults(t.Name)
	}
}

func (l *LUN) setDefaults(target string) {
	l.Access.setDefaults()
	orDefault(&l.Backend, "file")
	l.BlockOptions.SetDefaults()
	if l.WriteCache == nil {
		l.WriteCache = new(!l.Sync)
	}
	l.UnitOptions.SetDefaults()
	if l.Preallocate && l.Thin == nil {
		l.Thin = new(false) // UNMAP would give the space back
	}
	id := scsi.DefaultIdentity(target, l.Number)
	orDefault(&l.Serial, id.Serial)
	orDefault(&l.SCSIID, id.SCSIID)
	orDefault(&l.NAA, id.NAA)
}

func orDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

func setDefault(p *[]string, value []string) {
	if len(*p) == 0 {
		*p = slices.Clone(value)
	}
}
