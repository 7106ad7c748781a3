// SPDX-License-Identifier: Apache-2.0

package reservation

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// model is the reservation state once more, as plainly as the standards' tables
// have it and without regard for order, speed or persistence.
type model struct {
	spc2       string // the holder's name, "" for none
	keys       map[string]uint64
	typ        Type
	holder     string // "" for every registrant
	generation uint32
	aptpl      bool
}

// The world of the model: two initiators with two ISIDs each, two target
// ports. The nexuses of the second target port with the second ISIDs are not
// open.
var (
	modelPorts   = []uint16{1, 2}
	modelNexuses = func() (all []Nexus) {
		for _, name := range []string{"iqn.x", "iqn.y"} {
			for isid := range byte(2) {
				for _, port := range modelPorts {
					all = append(all, Nexus{Initiator: name, ISID: [6]byte{5: isid}, TargetPort: port})
				}
			}
		}
		return all
	}()
	modelOpen = func() (open []Nexus) {
		for _, n := range modelNexuses {
			if n.TargetPort == 1 || n.ISID[5] == 0 {
				open = append(open, n)
			}
		}
		return open
	}()
)

// command is a PERSISTENT RESERVE OUT that the model understands.
type command struct {
	from       Nexus
	action     uint8
	scope      uint8
	typ        Type
	key        uint64
	newKey     uint64
	aptpl      bool
	allPorts   bool
	specPorts  bool
	unregister bool
	port       uint16
	names      []Nexus // for TransportIDs; TargetPort 0 stands for the initiator device
}

// params returns the parameter list.
func (c command) params() []byte {
	var ids [][]byte
	for _, n := range c.names {
		if n.TargetPort == 0 {
			ids = append(ids, deviceID(n.Initiator))
		} else {
			ids = append(ids, portID(n))
		}
	}
	bits := func(b bool, mask uint8) uint8 {
		if b {
			return mask
		}
		return 0
	}
	if c.action == actionRegisterAndMove {
		return moveList(c.key, c.newKey, bits(c.unregister, 0x02)|bits(c.aptpl, 0x01), c.port, ids[0])
	}
	return basicList(c.key, c.newKey, bits(c.specPorts, 0x08)|bits(c.allPorts, 0x04)|bits(c.aptpl, 0x01), ids...)
}

// answer is what the model says about a command.
type answer struct {
	status string // "good", "conflict", or "asc/ascq" in hexadecimal
	told   map[string]uint8
	abort  map[string]bool
}

func (m *model) conflictsSPC2(n string, a Access) bool {
	switch a {
	case PRIn, PROut:
		return true
	case Read, Write, Probe, Reserve:
		return m.spc2 != n
	}
	return false
}

// check says what access conflicts.
func (m *model) check(n string, a Access) bool {
	if m.spc2 != "" {
		return m.conflictsSPC2(n, a)
	}
	registrant := m.keys[n] != 0
	var full, reader bool
	switch m.typ {
	case 0:
		full, reader = true, true
	case WriteExclusive:
		full, reader = n == m.holder, true
	case ExclusiveAccess:
		full = n == m.holder
	case WriteExclusiveRegistrantsOnly, WriteExclusiveAllRegistrants:
		full, reader = registrant, true
	case ExclusiveAccessRegistrantsOnly, ExclusiveAccessAllRegistrants:
		full = registrant
	}
	switch a {
	case Read:
		return !full && !reader
	case Write:
		return !full
	case Reserve, Release:
		return len(m.keys) > 0 && (m.typ == 0 || !full)
	}
	return false
}

func allRegistrants(t Type) bool  { return t == 7 || t == 8 }
func registrantsOnly(t Type) bool { return t == 5 || t == 6 }
func isType(t Type) bool          { return t == 1 || t == 3 || t >= 5 && t <= 8 }
func (m *model) holds(n string) bool {
	if allRegistrants(m.typ) {
		return m.keys[n] != 0
	}
	return m.typ != 0 && m.holder == n
}

// tidy ends a reservation that has lost its holder.
func (m *model) tidy() {
	if allRegistrants(m.typ) && len(m.keys) == 0 || m.holder != "" && m.keys[m.holder] == 0 {
		m.typ, m.holder = 0, ""
	}
}

// everyoneBut returns a unit attention for each registrant but n.
func (m *model) everyoneBut(n string, ascq uint8) map[string]uint8 {
	told := map[string]uint8{}
	for k := range m.keys {
		if k != n {
			told[k] = ascq
		}
	}
	return told
}

// out carries out c.
func (m *model) out(c command) answer {
	if m.spc2 != "" {
		return answer{status: "conflict"}
	}
	if c.action > 7 {
		return answer{status: "24/00"}
	}
	if c.action != 0 && c.action != 7 && c.specPorts {
		return answer{status: "26/00"}
	}
	n := c.from.String()
	if c.action == 0 || c.action == 6 {
		return m.registering(c, n)
	}
	if m.keys[n] == 0 || m.keys[n] != c.key {
		return answer{status: "conflict"}
	}
	valid := c.scope == 0 && isType(c.typ)
	switch c.action {
	case 1:
		switch {
		case !valid:
			return answer{status: "24/00"}
		case m.typ != 0 && !(m.holds(n) && m.typ == c.typ):
			return answer{status: "conflict"}
		case m.typ == 0:
			m.take(n, c.typ)
		}
		return answer{status: "good"}
	case 2:
		was := m.typ
		switch {
		case !m.holds(n):
			return answer{status: "good"}
		case c.scope != 0 || c.typ != m.typ:
			return answer{status: "26/04"}
		}
		m.typ, m.holder = 0, ""
		if allRegistrants(was) || registrantsOnly(was) {
			return answer{status: "good", told: m.everyoneBut(n, 0x04)}
		}
		return answer{status: "good"}
	case 3:
		told := m.everyoneBut(n, 0x03)
		m.keys, m.typ, m.holder = map[string]uint64{}, 0, ""
		m.generation++
		return answer{status: "good", told: told}
	case 4, 5:
		return m.preempting(c, n, valid)
	}
	return m.moving(c, n)
}

func (m *model) take(n string, typ Type) {
	m.typ, m.holder = typ, n
	if allRegistrants(typ) {
		m.holder = ""
	}
}

func (m *model) preempting(c command, n string, valid bool) answer {
	old := m.typ
	takes := old != 0 && !allRegistrants(old) && c.newKey == m.keys[m.holder] || allRegistrants(old) && c.newKey == 0
	if takes && !valid {
		return answer{status: "24/00"}
	}
	if !takes && c.newKey == 0 {
		return answer{status: "26/00"}
	}
	told, abort, matched := map[string]uint8{}, map[string]bool{}, takes
	for k, key := range m.keys {
		match := key == c.newKey || c.newKey == 0
		matched = matched || match
		if match && k != n {
			told[k], abort[k] = 0x05, true
		}
	}
	if !matched {
		return answer{status: "conflict"}
	}
	ownGoes := !takes && c.newKey == m.keys[n]
	for k := range abort {
		delete(m.keys, k)
	}
	if ownGoes {
		delete(m.keys, n)
	}
	if takes {
		m.take(n, c.typ)
		if c.typ != old {
			for k := range m.keys {
				if k != n {
					told[k] = 0x04
				}
			}
		}
	}
	m.tidy()
	m.generation++
	if c.action == 4 {
		abort = nil
	}
	return answer{status: "good", told: told, abort: abort}
}

// ports returns the initiator ports that a TransportID names.
func (m *model) ports(id Nexus) map[Nexus]bool {
	named := map[Nexus]bool{}
	if id.TargetPort != 0 {
		named[id.onPort(0)] = true
		return named
	}
	for _, o := range modelOpen {
		if o.Initiator == id.Initiator {
			named[o.onPort(0)] = true
		}
	}
	return named
}

func (m *model) moving(c command, n string) answer {
	switch {
	case m.typ == 0:
		return answer{status: "24/00"}
	case allRegistrants(m.typ) || m.holder != n:
		return answer{status: "conflict"}
	case c.newKey == 0, c.port != 1 && c.port != 2:
		return answer{status: "26/00"}
	}
	named := m.ports(c.names[0])
	if len(named) != 1 || named[c.from.onPort(0)] {
		return answer{status: "26/00"}
	}
	for p := range named {
		m.holder = p.onPort(c.port).String()
	}
	m.keys[m.holder] = c.newKey
	if c.unregister {
		delete(m.keys, n)
	}
	m.generation++
	m.aptpl = c.aptpl
	return answer{status: "good"}
}

func (m *model) registering(c command, n string) answer {
	own := map[string]bool{n: true}
	targets := []uint16{c.from.TargetPort}
	if c.allPorts {
		targets = modelPorts
	}
	for _, p := range targets {
		own[c.from.onPort(p).String()] = true
	}
	if c.action == 0 {
		if m.keys[n] != c.key {
			return answer{status: "conflict"}
		}
		if c.specPorts && m.keys[n] != 0 {
			return answer{status: "26/00"}
		}
		for k := range own {
			if m.keys[k] != 0 && m.keys[k] != c.key {
				return answer{status: "conflict"}
			}
		}
	}
	if c.newKey == 0 {
		return m.unregistering(c, n, own)
	}
	others := map[string]bool{}
	for _, id := range c.names {
		for p := range m.ports(id) {
			if p == c.from.onPort(0) {
				continue
			}
			for _, t := range targets {
				others[p.onPort(t).String()] = true
			}
		}
	}
	for k := range others {
		if m.keys[k] != 0 {
			return answer{status: "26/00"}
		}
	}
	for k := range others {
		m.keys[k] = c.newKey
	}
	for k := range own {
		m.keys[k] = c.newKey
	}
	m.generation++
	m.aptpl = c.aptpl
	return answer{status: "good"}
}

func (m *model) unregistering(c command, n string, own map[string]bool) answer {
	any := false
	for k := range own {
		any = any || m.keys[k] != 0
		delete(m.keys, k)
	}
	if !any {
		return answer{status: "good"}
	}
	old := m.typ
	m.tidy()
	m.generation++
	m.aptpl = c.aptpl
	if m.typ == 0 && registrantsOnly(old) {
		return answer{status: "good", told: m.everyoneBut(n, 0x04)}
	}
	return answer{status: "good"}
}

// answerOf returns what a Result says, as the model has it.
func answerOf(r Result) answer {
	switch {
	case r.Conflict:
		return answer{status: "conflict"}
	case r.Sense != nil:
		return answer{status: fmt.Sprintf("%02x/%02x", r.Sense.ASC, r.Sense.ASCQ)}
	}
	a := answer{status: "good", told: map[string]uint8{}, abort: map[string]bool{}}
	for _, u := range r.Attention {
		a.told[u.Nexus.String()] = u.ASCQ
	}
	for _, n := range r.Abort {
		a.abort[n.String()] = true
	}
	return a
}

// modelOf returns the state of l, as the model has it.
func modelOf(l *Local) model {
	s := l.Snapshot()
	m := model{keys: map[string]uint64{}, typ: s.Type, generation: s.Generation, aptpl: s.APTPL}
	if s.Reserved != nil {
		m.spc2 = s.Reserved.String()
	}
	if s.Holder != nil {
		m.holder = s.Holder.String()
	}
	for _, r := range s.Registrations {
		m.keys[r.Nexus.String()] = r.Key
	}
	return m
}

// drawCommand makes a command up, often one that the state m lets do something.
func drawCommand(t *rapid.T, m *model) command {
	key := rapid.Uint64Range(0, 3)
	c := command{
		from:       rapid.SampledFrom(modelNexuses).Draw(t, "from"),
		action:     rapid.Uint8Range(0, 8).Draw(t, "action"),
		typ:        Type(rapid.Uint8Range(0, 9).Draw(t, "type")),
		key:        key.Draw(t, "key"),
		newKey:     key.Draw(t, "new key"),
		aptpl:      rapid.Bool().Draw(t, "aptpl"),
		allPorts:   rapid.Bool().Draw(t, "all ports"),
		unregister: rapid.Bool().Draw(t, "unregister"),
		port:       rapid.Uint16Range(1, 3).Draw(t, "port"),
		specPorts:  rapid.IntRange(0, 3).Draw(t, "specify") == 0,
	}
	if rapid.IntRange(0, 9).Draw(t, "other scope") == 0 {
		c.scope = 1
	}
	if rapid.IntRange(0, 3).Draw(t, "right") > 0 {
		c.key = m.keys[c.from.String()]
		if m.typ != 0 && c.action == actionRelease {
			c.typ = m.typ
		}
	}
	names := 0
	if c.action == actionRegisterAndMove {
		names = 1
	} else if c.specPorts {
		names = rapid.IntRange(0, 2).Draw(t, "names")
	}
	for range names {
		n := rapid.SampledFrom(modelNexuses).Draw(t, "name")
		if rapid.Bool().Draw(t, "device") {
			n.TargetPort = 0
		}
		c.names = append(c.names, n)
	}
	return c
}

// TestAgainstModel does the same to a Local and to the model and compares all
// that shows. The Local goes through files and snapshots on its way.
func TestAgainstModel(t *testing.T) {
	options := Options{
		Ports:   func() []uint16 { return modelPorts },
		Nexuses: func() []Nexus { return modelOpen },
	}
	rapid.Check(t, func(t *rapid.T) {
		options.File = "state"
		disk := &memoryDisk{files: map[string][]byte{}}
		reopen := func() *Local {
			return whole(t, open(options, disk.disk()))
		}
		l := reopen()
		m := model{keys: map[string]uint64{}}
		nexus := rapid.SampledFrom(modelNexuses)
		out := func(t *rapid.T) {
			c := drawCommand(t, &m)
			params := c.params()
			got := answerOf(l.Out(c.from, outCDB(c.action, c.scope<<4|uint8(c.typ), len(params)), params))
			want := m.out(c)
			if d := cmp.Diff(want, got, cmp.AllowUnexported(answer{}), cmpopts.EquateEmpty()); d != "" {
				t.Fatalf("%+v (-want +got):\n%s", c, d)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"out": out, "out more": out, "out and more": out,
			"reserve": func(t *rapid.T) {
				n := nexus.Draw(t, "nexus")
				conflicts := m.check(n.String(), Reserve)
				if m.spc2 == "" && len(m.keys) == 0 {
					m.spc2 = n.String()
				}
				if got := l.Reserve(n); got != conflicts {
					t.Fatalf("RESERVE conflicts: %t", got)
				}
			},
			"release": func(t *rapid.T) {
				n := nexus.Draw(t, "nexus")
				conflicts := m.check(n.String(), Release)
				if m.spc2 == n.String() {
					m.spc2 = ""
				}
				if got := l.Release(n); got != conflicts {
					t.Fatalf("RELEASE conflicts: %t", got)
				}
			},
			"lose": func(t *rapid.T) {
				n := nexus.Draw(t, "nexus")
				if m.spc2 == n.String() {
					m.spc2 = ""
				}
				l.NexusLost(n)
			},
			"reset": func(*rapid.T) { l.Reset(); m.spc2 = "" },
			"hand over": func(t *rapid.T) {
				next := reopen()
				if err := next.Restore(l.Snapshot()); err != nil {
					t.Fatal(err)
				}
				l = next
			},
			"lose power": func(*rapid.T) {
				l = reopen()
				m.spc2, m.generation = "", 0
				if !m.aptpl {
					m = model{keys: map[string]uint64{}}
				}
			},
			"": func(t *rapid.T) {
				if d := cmp.Diff(m, modelOf(l), cmp.AllowUnexported(model{})); d != "" {
					t.Fatalf("state (-want +got):\n%s", d)
				}
				for _, n := range modelNexuses {
					for a := Write; a <= Release; a++ {
						if got := l.Check(n, a); got != m.check(n.String(), a) {
							t.Fatalf("Check(%v, %d) = %t", n, a, got)
						}
					}
				}
			},
		})
	})
}
