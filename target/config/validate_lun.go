// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// optionName is what the name of a backend's option may be.
var optionName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)

func (v *validator) luns(t *Target, at string) {
	numbers := map[uint16]string{}
	for i := range t.LUNs {
		l, at := &t.LUNs[i], fmt.Sprintf("%s.luns[%d]", at, i)
		if first, twice := numbers[l.Number]; twice {
			v.fail(at+".lun", "LUN %d is defined already at %s", l.Number, v.before(first))
		} else if first, twice := v.naas[l.NAA]; twice {
			v.sameNAA(namedLUN{t, l, at}, first)
		}
		numbers[l.Number], v.naas[l.NAA] = at+".lun", namedLUN{t, l, at}
		v.lun(l, at)
		v.access(l.Access, t, at+".access")
		v.store(t, l, at)
	}
}

// namedLUN is a logical unit that others are compared with.
type namedLUN struct {
	target *Target
	lun    *LUN
	at     string // canonical path
}

// sameNAA is two logical units that initiators would take for one disk: they write to one
// what is meant for the other. tgt makes NAA identifiers of the hexadecimal digits of a
// SCSI ID alone and serves both. In two targets that may have gone well, if no initiator
// uses both, and is let pass; an initiator of one target has both.
func (v *validator) sameNAA(l, first namedLUN) {
	isTgt := func(l *LUN) bool { return l.TgtIdentification && l.NAA == scsi.TgtNAA(l.SCSIID) }
	if !isTgt(l.lun) || !isTgt(first.lun) {
		v.fail(l.at+".naa", "%s is the identifier of the logical unit at %s already", l.lun.NAA, v.before(first.at+".naa"))
		return
	}
	path := l.at + ".scsi-id"
	what := fmt.Sprintf("%q has the hexadecimal digits of %q at %s, of which tgt makes the NAA identifier, %s for both",
		l.lun.SCSIID, first.lun.SCSIID, v.before(first.at+".scsi-id"), l.lun.NAA)
	if l.target == first.target {
		v.fail(path, "%s: initiators take them for one disk (multipath joins them), and write to one what is meant for the other. "+
			"Give one of them a scsi_id with other digits; its initiators know it by another name then", what)
		return
	}
	v.warn(path, "%s: an initiator that logs in to both targets takes them for one disk, with tgt as well. Give one of them a scsi_id with other digits, "+
		"unless no initiator ever uses both", what)
}

func (v *validator) lun(l *LUN, at string) {
	v.inRange(at+".lun", int64(l.Number))
	l.BlockOptions.Check(v.at(at))
	if l.IO != "" {
		v.oneOf(at+".io", l.IO, []string{"sync"})
	}
	if l.Sync && l.WriteCache != nil && *l.WriteCache {
		v.fail(at+".write-cache", "can't be on together with sync")
	}
	l.UnitOptions.Check(v.at(at))
}

// store checks what holds the blocks.
func (v *validator) store(t *Target, l *LUN, at string) {
	d, name, ok := v.system.find(l.Backend)
	if !ok {
		v.fail(at+".backend", "%q is none of %s", l.Backend, strings.Join(storage.Drivers(), ", "))
		return
	}
	v.settings(l, d.Needs|d.Takes, at)
	if l.Backend == "file" {
		v.file(t, l, at)
		return
	}
	v.driver(t, l, d, name, at)
}

// settings checks that the logical unit has none that mean nothing to its store.
func (v *validator) settings(l *LUN, takes storage.Setting, at string) {
	if takes&storage.SettingPath == 0 && l.Path != "" {
		v.fail(at+".path", "backend %s has no path", l.Backend)
	}
	if takes&storage.SettingSize == 0 && l.Size != 0 {
		v.fail(at+".size", "backend %s has a size of its own", l.Backend)
	}
	if takes&storage.SettingFile == 0 && (l.Create || l.Direct || l.AllowInUse || l.IO != "" || l.Preallocate || l.Format != "") {
		v.fail(at, "create, direct, io, allow-in-use, preallocate and format have no meaning for backend %s", l.Backend)
	}
	if takes&storage.SettingSync == 0 && l.Sync {
		v.fail(at+".sync", "has no meaning for backend %s", l.Backend)
	}
	if takes&storage.SettingOptions == 0 && len(l.Parameters) > 0 {
		v.fail(at+".options", "backend %s has no options", l.Backend)
	}
	for name := range l.Parameters {
		if !optionName.MatchString(name) {
			v.fail(at+".options", "%q is no option's name", name)
		}
	}
}

// driver checks a store of a driver: it has what it needs, and no other logical unit has
// the same; without a name and a path, each store is one of its own.
func (v *validator) driver(t *Target, l *LUN, d storage.Driver, name, at string) {
	if d.Needs&storage.SettingSize != 0 || d.Takes&storage.SettingSize != 0 && l.Size != 0 {
		v.size(l, at)
	}
	if d.Needs&storage.SettingPath != 0 && !v.path(l, at) {
		return
	}
	if d.Check != nil {
		if err := d.Check(name, l.Options); err != nil {
			v.unavailable(t, l, at+".backend", err)
			return
		}
	}
	if name == "" && l.Path == "" {
		return
	}
	id := store{path: l.Backend + ":" + l.Path}
	if d.File != nil {
		if file := d.File(name, l.Path); file != "" {
			var err error
			if id, err = v.system.identify(&LUN{Options: storage.Options{Path: file}}); err != nil {
				v.unavailable(t, l, at+".path", err)
				return
			}
		}
	}
	v.unique(id, l, at)
}

// path checks that there is one.
func (v *validator) path(l *LUN, at string) bool {
	switch {
	case l.Path == "":
		v.missing(at + ".path")
	case strings.ContainsRune(l.Path, 0):
		v.fail(at+".path", "%q has a NUL in it", l.Path)
	default:
		return true
	}
	return false
}

// size checks a size that something is to be made with.
func (v *validator) size(l *LUN, at string) {
	switch {
	case l.Size == 0 && l.Backend == "file":
		v.fail(at+".size", "is missing: create needs to know how large the file is made")
	case l.Size == 0:
		v.missing(at + ".size")
	case l.Size < 0 || l.Size > maxSize:
		v.fail(at+".size", "%d bytes is not a possible size", l.Size)
	case l.Whole(l.Size) != l.Size:
		v.fail(at+".size", "%d bytes is not a multiple of the block size, %d", l.Size, l.BlockSize)
	}
}
