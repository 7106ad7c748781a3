// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// parseTGT reads a targets.conf.
func parseTGT(name string, data []byte, known Numbers) (*Config, Errors) {
	file, r := parseTGTFile(name, data)
	b := &tgtBuilder{
		cfg:   &Config{Files: r.files, notes: r.notes, places: places{"": {pos: Pos{name, 1, 1}}}},
		errs:  r.errs,
		known: known,
		taken: map[int]bool{},
	}
	seen := map[string]Pos{}
	for _, d := range file.directives {
		b.global(d, seen)
	}
	// tgt-admin goes through the targets by name, not in the file's order.
	slices.SortStableFunc(file.targets, func(x, y *tgtTarget) int { return cmp.Compare(x.head.value, y.head.value) })
	for _, t := range file.targets {
		for _, d := range t.directives {
			if n, err := strconv.Atoi(d.value); err == nil && d.name == "controller_tid" {
				b.taken[n] = true
			}
		}
	}
	for _, t := range file.targets {
		b.target(t)
	}
	return b.cfg, b.errs
}

// tgtBuilder makes a Config out of a targets.conf.
type tgtBuilder struct {
	cfg   *Config
	tid   int // of the latest target
	errs  Errors
	known Numbers      // given before
	taken map[int]bool // TIDs that targets have, or that the file gives them
}

// fail reports that a directive is wrong; path is the value that is missing
// from the Config for it, if any.
func (b *tgtBuilder) fail(d tgtDirective, path string, err error) {
	pos := d.valuePos
	if d.value == "" {
		pos = d.pos
	}
	b.errs = append(b.errs, &Error{Pos: pos, Key: d.name, Err: err, path: path})
}

func (b *tgtBuilder) warn(d tgtDirective, format string, args ...any) {
	b.cfg.notes = append(b.cfg.notes, &Error{Pos: d.valuePos, Key: d.name, Err: fmt.Errorf(format, args...)})
}

// set notes that the value at path comes from a directive.
func (b *tgtBuilder) set(path string, d tgtDirective) {
	b.cfg.places[path] = place{d.valuePos, d.name}
}

// once reports whether a directive is the first of its name in its block, and
// refuses it if not.
func (b *tgtBuilder) once(d tgtDirective, seen map[string]Pos) bool {
	if first, twice := seen[d.name]; twice {
		b.fail(d, "", fmt.Errorf("is given already at %s", first))
		return false
	}
	seen[d.name] = d.pos
	return true
}

// global honours or refuses a directive outside of all blocks.
func (b *tgtBuilder) global(d tgtDirective, seen map[string]Pos) {
	apply := globalDirectives[d.name]
	if apply == nil {
		b.unknown(d, "")
	} else if b.once(d, seen) {
		if err := apply(b, d); err != nil {
			b.fail(d, "", err)
		}
	}
}

// unknown refuses a directive that the block it stands in does not have.
func (b *tgtBuilder) unknown(d tgtDirective, block string) {
	where := map[string]bool{}
	spelling := ""
	var names []string
	note := func(name, block string) {
		names = append(names, name)
		where[block] = where[block] || name == d.name
		if strings.EqualFold(name, d.name) {
			spelling = name
		}
	}
	for name := range globalDirectives {
		note(name, "outside of all blocks")
	}
	for name := range targetDirectives {
		note(name, "in a <target> block")
	}
	for name := range storeDirectives {
		note(name, "in a <target> block")
	}
	for name := range lunDirectives {
		note(name, "in a <target>, <backing-store> or <direct-store> block")
	}
	for place, known := range where {
		if known {
			b.fail(tgtDirective{name: d.name, pos: d.pos}, "", fmt.Errorf("can't stand here: it belongs %s", place))
			return
		}
	}
	slices.Sort(names)
	err := fmt.Errorf("unknown directive%s%s", block, didYouMean(d.name, names))
	if spelling != "" {
		err = fmt.Errorf("unknown directive%s: it is spelled %s", block, spelling)
	}
	b.fail(tgtDirective{name: d.name, pos: d.pos}, "", err)
}

// target makes a target with its logical units.
func (b *tgtBuilder) target(t *tgtTarget) {
	at := fmt.Sprintf("targets[%d]", len(b.cfg.Targets))
	b.cfg.places[at] = place{t.head.pos, "target"}
	b.set(at+".name", t.head)
	c := &tgtContext{b: b, at: at, target: Target{Name: lowerName(t.head.value), Pos: t.head.pos}}
	c.target.AnyName = checkName(c.target.Name) != nil // tgt takes any
	var shared []tgtDirective                          // for all logical units
	seen := map[string]Pos{}
	for _, d := range t.directives {
		if def, ok := lunDirectives[d.name]; ok {
			if def.repeat == repeatAll || b.once(d, seen) {
				shared = append(shared, d)
			}
		} else {
			c.directive(d, seen)
		}
	}
	if c.nops > 0 {
		setNOPTimeout(&c.target.Parameters, c.nops)
	}
	if c.target.TID == 0 {
		c.target.TID = b.known.tid(c.target.Name, b.taken)
	}
	if c.target.TID == 0 {
		var err error
		b.cfg.newNumbers = true
		if c.target.TID, err = b.known.nextTID(b.tid, b.taken); err != nil {
			b.fail(t.head, at+".tid", err)
		}
	}
	b.tid, b.taken[c.target.TID] = c.target.TID, true
	b.luns(c, t.stores, shared)
	b.cfg.Targets = append(b.cfg.Targets, c.target)
}

// tgtContext is a target in the making.
type tgtContext struct {
	b      *tgtBuilder
	at     string
	target Target
	nops   int // nop_count
}

// directive honours or refuses a directive of the target itself.
func (c *tgtContext) directive(d tgtDirective, seen map[string]Pos) {
	def, ok := targetDirectives[d.name]
	if !ok {
		c.b.unknown(d, " in a <target> block")
		return
	}
	if first, twice := seen[d.name]; twice && def.repeat == repeatFirst {
		c.b.warn(d, "only the first one counts, as in tgt; that is at %s", first)
		return
	}
	if def.repeat != repeatAll && !c.b.once(d, seen) {
		return
	}
	if err := def.apply(c, d); err != nil {
		c.b.fail(d, def.path(c), err)
	}
}

// luns makes the logical units of a target. tgt-admin takes the backing-stores
// first and then the direct-stores, each in the order of their paths; each has
// the number that its block gives it or else the lowest that is free, from 1.
func (b *tgtBuilder) luns(c *tgtContext, stores []*tgtStore, shared []tgtDirective) {
	stores = slices.Clone(stores)
	written := slices.Clone(stores)
	slices.SortStableFunc(stores, func(x, y *tgtStore) int {
		return cmp.Or(cmp.Compare(x.head.name, y.head.name), cmp.Compare(x.head.value, y.head.value))
	})
	numbers, byOrder := b.number(c.target.Name, stores, shared)
	b.cfg.newNumbers = b.cfg.newNumbers || byOrder
	for i, s := range stores {
		l := LUN{Pos: s.head.pos, Number: numbers[i]}
		at := fmt.Sprintf("%s.luns[%d]", c.at, len(c.target.LUNs))
		b.lun(&l, at, s, shared)
		l.SetTgtDefaults(c.target.TID)
		c.target.LUNs = append(c.target.LUNs, l)
	}
	switch {
	case len(stores) == 0: // let what is wrong with the directives show all the same
		unused := &tgtLUNContext{b: b, at: c.at + ".luns", lun: &LUN{}, seen: map[string]Pos{}}
		for _, d := range shared {
			unused.shared(d)
		}
	case byOrder && !slices.Equal(stores, written):
		b.orderNote(c)
	}
}

// orderNote points out that the file's order does not number the logical units.
func (b *tgtBuilder) orderNote(c *tgtContext) {
	var list []string
	for _, l := range c.target.LUNs {
		list = append(list, fmt.Sprintf("%d is %s", l.Number, l.Path))
	}
	d := tgtDirective{name: "target", valuePos: c.target.Pos}
	b.warn(d, "LUNs are numbered by path, backing-stores before direct-stores, as tgt does: %s", strings.Join(list, ", "))
}

// lun fills in a logical unit: what its own block says, then what the target
// says for all, then, for a direct-store, what the device says of itself.
func (b *tgtBuilder) lun(l *LUN, at string, s *tgtStore, shared []tgtDirective) {
	b.cfg.places[at] = place{s.head.pos, s.head.name}
	for _, key := range []string{".path", ".lun"} {
		b.set(at+key, s.head)
	}
	c := &tgtLUNContext{b: b, at: at, lun: l, seen: map[string]Pos{}, dir: directory(s.head.pos.File)}
	l.Path = absolute(c.dir, s.head.value)
	for _, d := range s.directives {
		c.directive(d)
	}
	for _, d := range shared {
		c.shared(d)
	}
	if s.head.name == "direct-store" {
		c.inherit(s.head)
	}
}

// path is what the logical unit of a block opens.
func (s *tgtStore) path() string {
	path, dir := s.head.value, directory(s.head.pos.File)
	for _, d := range s.directives {
		if d.name == "path" {
			path = d.value
		}
	}
	return absolute(dir, path)
}

func parseLUN(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n > maxLUN {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", s, maxLUN)
	}
	return uint16(n), nil
}
