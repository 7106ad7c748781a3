// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The types of gotgt's configuration file (v0.2.2).
type gotgtFile struct {
	Storages []gotgtStorage         `yaml:"storages"`
	Portals  []gotgtPortal          `yaml:"iscsiportals"`
	Targets  map[string]gotgtTarget `yaml:"iscsitargets"`
}

type gotgtStorage struct {
	DeviceID         uint64 `yaml:"deviceID"`
	Path             string `yaml:"path"` // name of the backing store, ":", path
	Online           bool   `yaml:"online"`
	ThinProvisioning bool   `yaml:"thinProvisioning"`
	BlockShift       uint   `yaml:"blockShift"`
}

type gotgtPortal struct {
	ID     uint16 `yaml:"id"`
	Portal string `yaml:"portal"`
}

type gotgtTarget struct {
	TPGTs map[string][]uint64 `yaml:"tpgts"` // by tag: indexes of portals
	LUNs  map[string]uint64   `yaml:"luns"`  // by number: DeviceID of a storage
}

// parseGotgt reads gotgt's JSON. JSON is YAML but for its tabs; that YAML
// allows a comma after the last entry is welcome, since gotgt's own example
// has one.
func parseGotgt(name string, data []byte) (*Config, Errors) {
	r := &reader{file: name, lenient: true, places: places{}}
	var f gotgtFile
	r.read([]byte(strings.ReplaceAll(string(data), "\t", " ")), &f)
	b := &gotgtBuilder{
		builder: builder{cfg: &Config{Files: []string{name}, places: r.places, notes: r.notes}, dir: directory(name), errs: r.errs},
		file:    &f,
		groups:  map[uint16][]uint64{},
	}
	for i, s := range f.Storages {
		if slices.ContainsFunc(f.Storages[:i], func(o gotgtStorage) bool { return o.DeviceID == s.DeviceID }) {
			b.fail(fmt.Sprintf("storages[%d].deviceID", i), fmt.Errorf("device %d is defined already", s.DeviceID))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Targets)) {
		b.target(name, f.Targets[name])
	}
	return b.cfg, b.errs
}

// gotgtBuilder makes a Config out of gotgt's file.
type gotgtBuilder struct {
	builder
	file   *gotgtFile
	groups map[uint16][]uint64 // portals of the portal groups, by tag
}

// alias lets the value at path be found where the file has it.
func (b *gotgtBuilder) alias(path, from string) {
	b.cfg.places[path] = b.cfg.places.find(from)
}

func (b *gotgtBuilder) target(name string, f gotgtTarget) {
	from := "iscsitargets." + name
	at := fmt.Sprintf("targets[%d]", len(b.cfg.Targets))
	b.alias(at, from)
	b.alias(at+".name", from)
	t := Target{Name: name, Pos: b.cfg.Where(from)}
	for _, key := range slices.Sorted(maps.Keys(f.TPGTs)) {
		tag, err := strconv.ParseUint(key, 10, 16)
		if err != nil || tag == 0 {
			b.fail(from+".tpgts."+key, errors.New("is not a number from 1 to 65535"))
			continue
		}
		b.portals(uint16(tag), f.TPGTs[key], from+".tpgts."+key)
		t.PortalGroups = append(t.PortalGroups, uint16(tag))
	}
	for _, key := range slices.Sorted(maps.Keys(f.LUNs)) {
		n, err := parseLUN(key)
		if err != nil {
			b.fail(from+".luns."+key, err)
			continue
		}
		lunAt := fmt.Sprintf("%s.luns[%d]", at, len(t.LUNs))
		b.alias(lunAt, from+".luns."+key)
		t.LUNs = append(t.LUNs, b.device(n, f.LUNs[key], lunAt))
	}
	b.cfg.Targets = append(b.cfg.Targets, t)
}

// portals makes a portal group. In gotgt each target has portal groups of its
// own; here they are common to all, and must be the same.
func (b *gotgtBuilder) portals(tag uint16, indexes []uint64, from string) {
	if known, ok := b.groups[tag]; ok {
		if !slices.Equal(known, indexes) {
			b.fail(from, fmt.Errorf("portal group %d has other portals in another target", tag))
		}
		return
	}
	b.groups[tag] = indexes
	at := fmt.Sprintf("portal-groups[%d]", len(b.cfg.PortalGroups))
	b.alias(at, from)
	g := PortalGroup{Tag: tag}
	for i, index := range indexes {
		if index >= uint64(len(b.file.Portals)) {
			b.fail(fmt.Sprintf("%s[%d]", from, i), fmt.Errorf("there is no portal %d in iscsiportals, counting from 0", index))
			continue
		}
		portal := fmt.Sprintf("%s.portals[%d]", at, len(g.Portals))
		b.alias(portal, fmt.Sprintf("iscsiportals[%d].portal", index))
		addr, err := ParsePortal(b.file.Portals[index].Portal)
		b.fail(portal, err)
		g.Portals = append(g.Portals, Portal{Address: addr})
	}
	b.cfg.PortalGroups = append(b.cfg.PortalGroups, g)
}

// device makes a logical unit, with the identity that gotgt gives it.
func (b *gotgtBuilder) device(number uint16, id uint64, at string) LUN {
	l := LUN{Number: number, Pos: b.cfg.Where(at)}
	i := slices.IndexFunc(b.file.Storages, func(s gotgtStorage) bool { return s.DeviceID == id })
	if i < 0 {
		b.fail(at, fmt.Errorf("there is no device %d in storages", id))
		return l
	}
	from := fmt.Sprintf("storages[%d]", i)
	s := b.file.Storages[i]
	b.alias(at+".path", from+".path")
	b.alias(at+".backend", from+".path")
	b.alias(at+".block-size", from+".blockShift")
	b.alias(at+".naa", from+".deviceID")
	store, path, ok := strings.Cut(s.Path, ":")
	switch {
	case !ok:
		b.fail(at+".path", fmt.Errorf("%q has no backing store's name before a colon, such as file:/disk.img", s.Path))
	case store == "file":
		l.Backend, l.Path = "file", b.path(path)
	default:
		l.Backend, l.Path = "gotgt:"+store, path
	}
	l.Offline = !s.Online
	l.Thin = &s.ThinProvisioning
	if s.BlockShift > 16 {
		b.fail(at+".block-size", fmt.Errorf("%d is neither 9 nor 12", s.BlockShift))
	} else if s.BlockShift != 0 {
		l.BlockSize = 1 << s.BlockShift
	}
	l.Vendor, l.Product, l.Revision = "GOSTOR", "GOTGT", "0.1"
	l.Serial = fmt.Sprintf("gotgt-%d", id)
	l.NAA = fmt.Sprintf("3%015x", id&(1<<60-1))
	l.PhysicalBlockExponent = new(3)
	return l
}
