// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// A model is a configuration before it is written in one of the three languages.
type model struct {
	language string // "yaml", "conf" or "json"
	lax      bool   // ignore-errors
	targets  []targetModel
}

type targetModel struct {
	name  string
	tid   int      // 0: by order
	hosts []string // initiators that may log in; none: all
	luns  []lunModel
}

type lunModel struct {
	number    int    // 0: by order in a targets.conf, the next free one elsewhere
	file      string // in the world's folder
	size      int64  // bytes, 0: the file's
	create    bool
	readOnly  bool
	blockSize int // 0: the default
	scsiID    string
	serial    string
	vendor    string
	revision  string
	hosts     []string // initiators that see it; none: all
}

// imageSize is that of the smallest image.
const imageSize = 64 << 10

var (
	modelTargets = []string{"iqn.2026-11.test:a", "iqn.2026-11.test:m", "iqn.2026-11.test:z"}
	modelHosts   = []string{"iqn.2026-11.test:host-1", "iqn.2026-11.test:host-2", "iqn.2026-11.test:host-3"}
	modelFiles   = []string{"a.img", "b.img", "c.img", "d.img", "e.img", "new.img"} // the last is missing at first
)

// oneIn draws true once in n times; true is what shrinks away.
func oneIn(t *rapid.T, n int, what string) bool {
	return rapid.IntRange(1, n).Draw(t, what) == n
}

func drawLUN(t *rapid.T) lunModel {
	l := lunModel{file: rapid.SampledFrom(modelFiles).Draw(t, "file")}
	if !oneIn(t, 3, "by order") {
		l.number = rapid.IntRange(1, 5).Draw(t, "number")
	}
	for range rapid.IntRange(0, 2).Draw(t, "settings") {
		rapid.SampledFrom(lunChanges).Draw(t, "setting").make(t, &l)
	}
	return l
}

// A variation is one way in which things can differ, of many; T is what it is made to.
type variation[T any] struct {
	name string
	make func(t *rapid.T, of T)
}

// GoString is what a failed test shows.
func (v variation[T]) GoString() string { return v.name }

// lunChanges are what can be different of a logical unit.
var lunChanges = []variation[*lunModel]{
	{"number", func(t *rapid.T, l *lunModel) { l.number = rapid.IntRange(0, 5).Draw(t, "number") }},
	{"file", func(t *rapid.T, l *lunModel) { l.file = rapid.SampledFrom(modelFiles).Draw(t, "file") }},
	{"size", func(t *rapid.T, l *lunModel) { l.size = imageSize * rapid.Int64Range(0, 5).Draw(t, "size") }},
	{"create", func(t *rapid.T, l *lunModel) { l.create, l.size = true, 4*imageSize }},
	{"read-only", func(_ *rapid.T, l *lunModel) { l.readOnly = !l.readOnly }},
	{"block size", func(t *rapid.T, l *lunModel) { l.blockSize = rapid.SampledFrom([]int{0, 512, 4096}).Draw(t, "bytes") }},
	{"SCSI ID", func(t *rapid.T, l *lunModel) { l.scsiID = rapid.SampledFrom([]string{"", "hosta-lun1"}).Draw(t, "ID") }},
	{"serial", func(t *rapid.T, l *lunModel) { l.serial = rapid.SampledFrom([]string{"", "s1"}).Draw(t, "serial") }},
	{"vendor", func(t *rapid.T, l *lunModel) { l.vendor = rapid.SampledFrom([]string{"", "ACME"}).Draw(t, "vendor") }},
	{"revision", func(t *rapid.T, l *lunModel) { l.revision = rapid.SampledFrom([]string{"", "r7"}).Draw(t, "revision") }},
	{"access", func(t *rapid.T, l *lunModel) { l.hosts = drawHosts(t) }},
}

func drawHosts(t *rapid.T) []string {
	return slices.Clone(modelHosts[:rapid.IntRange(0, len(modelHosts)-1).Draw(t, "hosts")])
}

func drawTarget(t *rapid.T, name string) targetModel {
	target := targetModel{name: name}
	for range rapid.IntRange(0, 3).Draw(t, "LUNs") {
		target.luns = append(target.luns, drawLUN(t))
	}
	if oneIn(t, 6, "access") {
		target.hosts = drawHosts(t)
	}
	return target
}

func drawModel(t *rapid.T) *model {
	m := &model{language: rapid.SampledFrom([]string{"yaml", "conf", "json"}).Draw(t, "language")}
	for _, name := range rapid.Permutation(modelTargets).Draw(t, "names")[:rapid.IntRange(1, len(modelTargets)).Draw(t, "targets")] {
		m.targets = append(m.targets, drawTarget(t, name))
	}
	m.mend()
	return m
}

// mend takes away what makes nearly every configuration invalid: numbers and files that
// come twice. Some of the latter stay, by another name of the file.
func (m *model) mend() {
	files := make(map[string]bool)
	for i := range m.targets {
		numbers := make(map[int]bool)
		m.targets[i].luns = slices.DeleteFunc(m.targets[i].luns, func(l lunModel) bool {
			twice := files[l.file] || numbers[l.number]
			files[l.file], numbers[l.number] = true, l.number > 0
			return twice
		})
	}
}

// change returns a copy of the model with a few differences.
func (m *model) change(t *rapid.T) *model {
	n := &model{language: m.language, lax: m.lax}
	for _, target := range m.targets {
		target.luns = slices.Clone(target.luns)
		n.targets = append(n.targets, target)
	}
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		c := rapid.SampledFrom(modelChanges).Draw(t, "change")
		if len(n.targets) > 0 || c.name == "a target more" {
			c.make(t, n)
		}
	}
	n.mend()
	return n
}

// modelChanges are what can be different of a configuration that has targets.
var modelChanges = []variation[*model]{
	{"a setting", changeLUN},
	{"paths exchanged", exchangePaths},
	{"a LUN more", func(t *rapid.T, m *model) {
		target := m.pick(t)
		target.luns = slices.Insert(target.luns, rapid.IntRange(0, len(target.luns)).Draw(t, "place"), drawLUN(t))
	}},
	{"a LUN less", func(t *rapid.T, m *model) {
		if target := m.pick(t); len(target.luns) > 0 {
			i := rapid.IntRange(0, len(target.luns)-1).Draw(t, "LUN")
			target.luns = slices.Delete(target.luns, i, i+1)
		}
	}},
	{"a target more", func(t *rapid.T, m *model) {
		name := rapid.SampledFrom(modelTargets).Draw(t, "name")
		if !slices.ContainsFunc(m.targets, func(o targetModel) bool { return o.name == name }) {
			m.targets = slices.Insert(m.targets, rapid.IntRange(0, len(m.targets)).Draw(t, "place"), drawTarget(t, name))
		}
	}},
	{"a target less", func(t *rapid.T, m *model) {
		i := rapid.IntRange(0, len(m.targets)-1).Draw(t, "target")
		m.targets = slices.Delete(m.targets, i, i+1)
	}},
	{"another name", func(t *rapid.T, m *model) {
		target, name := m.pick(t), rapid.SampledFrom(modelTargets).Draw(t, "name")
		for i := range m.targets {
			if m.targets[i].name == name {
				m.targets[i].name = target.name
			}
		}
		target.name = name
	}},
	{"another order", func(_ *rapid.T, m *model) {
		slices.Reverse(m.targets)
		for _, target := range m.targets {
			slices.Reverse(target.luns)
		}
	}},
	{"another language", func(t *rapid.T, m *model) {
		m.language = rapid.SampledFrom([]string{"yaml", "conf", "json"}).Draw(t, "language")
	}},
	{"ignore-errors", func(_ *rapid.T, m *model) { m.lax = !m.lax }},
	{"access", func(t *rapid.T, m *model) { m.pick(t).hosts = drawHosts(t) }},
	{"a TID", func(t *rapid.T, m *model) {
		target, tid := m.pick(t), rapid.IntRange(0, 4).Draw(t, "TID")
		if !slices.ContainsFunc(m.targets, func(o targetModel) bool { return o.tid == tid }) {
			target.tid = tid
		}
	}},
}

func changeLUN(t *rapid.T, m *model) {
	if target := m.pick(t); len(target.luns) > 0 {
		l := &target.luns[rapid.IntRange(0, len(target.luns)-1).Draw(t, "LUN")]
		rapid.SampledFrom(lunChanges).Draw(t, "setting").make(t, l)
	}
}

func exchangePaths(t *rapid.T, m *model) {
	var all []*lunModel
	for i := range m.targets {
		for j := range m.targets[i].luns {
			all = append(all, &m.targets[i].luns[j])
		}
	}
	if len(all) > 1 {
		a, b := all[rapid.IntRange(0, len(all)-1).Draw(t, "one")], all[rapid.IntRange(0, len(all)-1).Draw(t, "other")]
		a.file, b.file = b.file, a.file
	}
}

func (m *model) pick(t *rapid.T) *targetModel {
	return &m.targets[rapid.IntRange(0, len(m.targets)-1).Draw(t, "target")]
}

// numbered returns the logical units with numbers for languages that want all of them.
func (t *targetModel) numbered() []lunModel {
	luns, next := slices.Clone(t.luns), 1
	for i := range luns {
		for ; luns[i].number == 0; next++ {
			if !slices.ContainsFunc(luns, func(l lunModel) bool { return l.number == next }) {
				luns[i].number = next
			}
		}
	}
	return luns
}

// write returns the configuration's text; dir is where the files are.
func (m *model) write(dir string) string {
	switch m.language {
	case "conf":
		return m.writeConf(dir)
	case "json":
		return m.writeJSON(dir)
	}
	return m.writeYAML(dir)
}

func (m *model) writeYAML(dir string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if m.lax {
		line("ignore-errors: true")
	}
	line("targets:")
	for _, t := range m.targets {
		line("  - name: %s", t.name)
		if t.tid > 0 {
			line("    tid: %d", t.tid)
		}
		if len(t.hosts) > 0 {
			line("    access: {initiators: ['%s']}", strings.Join(t.hosts, "', '"))
		}
		if len(t.luns) > 0 {
			line("    luns:")
		}
		for _, l := range t.numbered() {
			line("      - lun: %d\n        path: %s", l.number, filepath.Join(dir, l.file))
			for _, key := range []struct{ name, value string }{
				{"size", sizeOf(l.size)}, {"create", when(l.create && l.size > 0, "true")}, {"read-only", when(l.readOnly, "true")},
				{"block-size", when(l.blockSize > 0, fmt.Sprint(l.blockSize))}, {"scsi-id", l.scsiID}, {"serial", l.serial}, {"vendor", l.vendor},
				{"revision", l.revision},
				{"access", when(len(l.hosts) > 0, "{initiators: ['"+strings.Join(l.hosts, "', '")+"']}")},
			} {
				if key.value != "" {
					line("        %s: %s", key.name, key.value)
				}
			}
		}
	}
	return b.String()
}

func (m *model) writeConf(dir string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if m.lax {
		line("ignore-errors yes")
	}
	for _, t := range m.targets {
		line("<target %s>", t.name)
		if t.tid > 0 {
			line("  controller_tid %d", t.tid)
		}
		for _, h := range t.hosts {
			line("  initiator-name %s", h)
		}
		for _, l := range t.luns {
			line("  <backing-store %s>", filepath.Join(dir, l.file))
			for _, key := range []struct{ name, value string }{
				{"lun", when(l.number > 0, fmt.Sprint(l.number))}, {"readonly", when(l.readOnly, "1")},
				{"block-size", when(l.blockSize > 0, fmt.Sprint(l.blockSize))}, {"scsi_id", l.scsiID}, {"scsi_sn", l.serial}, {"vendor_id", l.vendor},
				{"product_rev", l.revision},
			} {
				if key.value != "" {
					line("    %s %s", key.name, key.value)
				}
			}
			line("  </backing-store>")
		}
		line("</target>")
	}
	return cmp.Or(b.String(), "default-driver iscsi\n")
}

func (m *model) writeJSON(dir string) string {
	var devices, targets []string
	for _, t := range m.targets {
		var luns []string
		for _, l := range t.numbered() {
			id := 1000 + len(devices)
			devices = append(devices, fmt.Sprintf(`{"deviceID": %d, "path": "file:%s", "online": true}`, id, filepath.Join(dir, l.file)))
			luns = append(luns, fmt.Sprintf(`"%d": %d`, l.number, id))
		}
		targets = append(targets, fmt.Sprintf(`"%s": {"tpgts": {"1": [0]}, "luns": {%s}}`, t.name, strings.Join(luns, ", ")))
	}
	return fmt.Sprintf(`{"storages": [%s], "iscsiportals": [{"id": 0, "portal": "127.0.0.1:3260"}], "iscsitargets": {%s}}`,
		strings.Join(devices, ",\n "), strings.Join(targets, ",\n "))
}

func sizeOf(n int64) string { return when(n > 0, fmt.Sprint(n)) }

func when(is bool, text string) string {
	if is {
		return text
	}
	return ""
}
