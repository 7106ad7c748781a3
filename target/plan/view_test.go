// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/storage"
)

// TestView masks a logical unit from sessions and lets it come to others.
func TestView(t *testing.T) {
	const name, disk = "iqn.2026-11.test:a", "/a.img"
	from := netip.MustParseAddr("192.0.2.7")
	host := func(n string) string { return "iqn.2026-11.test:host-" + n }
	old := time.Now().Add(-time.Hour)
	look := func(*config.LUN, bool) (string, int64, error) { return "id", 1 << 20, nil }
	conf := func(a config.Access) *config.Config {
		c := &config.Config{Targets: []config.Target{{Name: name, LUNs: []config.LUN{{Number: 1, Options: storage.Options{Path: disk}, Access: a}}}}}
		c.SetDefaults()
		return c
	}
	everyone := conf(config.Access{})
	l := everyone.Targets[0].LUNs[0]
	running := func(lastIO time.Time, holders ...string) *Running {
		return &Running{
			Targets: []Target{{Name: name, TID: 1, Settings: everyone.Targets[0].Settings(), LUNs: []LUN{{
				LUN: 1, Backend: "file", Path: disk, Store: "id", Size: 1 << 20, BlockSize: 512, Identity: l.Identity(1, 1),
				Settings: l.Settings(name), LastIO: lastIO, Holders: holders,
			}}}},
			Sessions: []Session{
				{TSIH: 1, Initiator: host("1"), Target: name, From: from, LastIO: lastIO},
				{TSIH: 2, Initiator: host("2"), Target: name, From: from, Account: "two", LastIO: lastIO},
				{TSIH: 3, Initiator: host("3"), Target: name, From: from, Masked: []uint16{1}, LastIO: lastIO},
				{TSIH: 4, Initiator: host("4"), Target: name, LastIO: lastIO}, // from an older process
			},
		}
	}
	two := config.Access{Accounts: []string{"two"}, Initiators: []string{host("3")}}
	for _, tc := range []struct {
		what    string
		running *Running
		access  config.Access
		want    string // in a line of the plan
		refused string
	}{
		{"masked", running(old), two, "- target " + name + " LUN 1: masked from 1 session (" + host("1"), ""},
		{"comes", running(old), two, "+ target " + name + " LUN 1: comes into view of 1 session (" + host("3"), ""},
		{"in use", running(time.Now()), two, "[needs --force: ", host("1") + " at  (TSIH 1) has read or written 0s ago"},
		{"reserved", running(old, host("1")+",i,0x800000000001"), two, "[needs --force: ", "has a reservation or registration"},
		{"reserved by one that stays", running(old, host("2")+",i,0x800000000001"), two, "masked from 1 session", ""},
		{"everyone", running(time.Now()), config.Access{}, "comes into view of 1 session", ""},
	} {
		p := Make(tc.running, conf(tc.access), look)
		if text := strings.Join(p.Lines(), "\n"); !strings.Contains(text, tc.want) {
			t.Errorf("%s: %q is not in the plan:\n%s", tc.what, tc.want, text)
		}
		refused := strings.Join(p.Refused(), "\n")
		if (refused == "") != (tc.refused == "") || !strings.Contains(refused, tc.refused) {
			t.Errorf("%s: refused %q, want %q", tc.what, refused, tc.refused)
		}
	}
	// Who does not see a disk is not asked, and not told.
	hidden := running(time.Now())
	hidden.Sessions = hidden.Sessions[2:3]
	for what, c := range map[string]*config.Config{
		"taken away": {Targets: []config.Target{{Name: name}}},
		"another one": func() *config.Config {
			c := conf(two)
			c.Targets[0].LUNs[0].Serial = "other"
			return c
		}(),
	} {
		c.SetDefaults()
		p := Make(hidden, c, look)
		if p.Check() != nil || p.Empty() || strings.Contains(p.Lines()[0], host("3")) {
			t.Errorf("%s that nobody sees:\n%s", what, strings.Join(p.Lines(), "\n"))
		}
	}
	if p := Make(&Running{Targets: running(old).Targets}, everyone, look); !p.Empty() {
		t.Errorf("without a change: %v", p.Lines())
	}
}

// TestLeave takes a target away from sessions by its access, its state and its portal groups.
func TestLeave(t *testing.T) {
	d := disks{"/a": {"file:1", 1 << 20}}
	conf := func(change func(t *config.Target)) *config.Config {
		c := oneTarget(config.LUN{Number: 1, Options: storage.Options{Path: "/a"}})
		if change != nil {
			change(&c.Targets[0])
		}
		c.SetDefaults()
		return withPortals(c)
	}
	session := func(tsih uint16, initiator string, at time.Time) Session {
		return Session{TSIH: tsih, Initiator: initiator, Target: name, Address: "192.0.2.7:1", From: netip.MustParseAddr("192.0.2.7"), Group: 2, Account: "bob", LastIO: at}
	}
	now, old := time.Now(), time.Now().Add(-time.Hour)
	only := func(a config.Access) func(*config.Target) { return func(t *config.Target) { t.Access = a } }
	other := config.Access{Initiators: []string{"iqn.2026-11.test:other"}}
	busy := []Session{session(1, "iqn.2026-11.test:i", now), session(2, "iqn.2026-11.test:other", now)}
	const dismissed = "~ target " + name + ": 1 session may not stay: access does not admit them any more (iqn.2026-11.test:i at 192.0.2.7:1 (TSIH 1): asked to log out, then ended)"
	for _, tc := range []struct {
		what     string
		change   func(*config.Target)
		sessions []Session
		holder   string
		line     string // the start of a line, empty for none about sessions that leave
		refused  string
	}{
		{"access", only(other), busy, "", dismissed, "iqn.2026-11.test:i at 192.0.2.7:1 (TSIH 1) has read or written 0s ago"},
		{"access of one that is idle", only(other), []Session{session(1, "iqn.2026-11.test:i", old)}, "", dismissed, ""},
		{"access of one that holds", only(other), []Session{session(1, "iqn.2026-11.test:i", old)}, "iqn.2026-11.test:i,i,0x8", dismissed, "(TSIH 1) has a reservation of, or registration with, LUN 1"},
		{"access, another holds", only(other), []Session{session(1, "iqn.2026-11.test:i", old)}, "iqn.2026-11.test:other,i,0x8", dismissed, ""},
		{"an account of the list", only(config.Access{Accounts: []string{"bob"}}), busy, "", "", ""},
		{"another account", only(config.Access{Accounts: []string{"eve"}}), busy, "", "~ target " + name + ": 2 sessions may not stay: access", "(TSIH 2) has read"},
		{"one that leaves already", only(other), []Session{{TSIH: 1, Initiator: "iqn.2026-11.test:i", Target: name, LastIO: now, From: netip.MustParseAddr("192.0.2.7"), Leaving: true}}, "", "", ""},
		{"offline", func(t *config.Target) { t.Offline = true }, busy, "", "~ target " + name + ": 2 sessions may not stay: the target is offline then", "has read"},
		{"its group", func(t *config.Target) { t.PortalGroups = []uint16{1} }, busy, "", "~ target " + name + ": 2 sessions may not stay: portal group 2 does not offer", "has read"},
	} {
		r := serve(conf(nil), d)
		r.Portals = Portals(conf(nil))
		r.Sessions = tc.sessions
		r.Targets[0].LUNs[0].LastIO = tc.sessions[0].LastIO
		if tc.holder != "" {
			r.Targets[0].LUNs[0].Holders = []string{tc.holder}
		}
		p := Make(r, conf(tc.change), d.look)
		text, refused := strings.Join(p.Lines(), "\n"), strings.Join(p.Refused(), "\n")
		if !strings.Contains(text, tc.line) || tc.line == "" && strings.Contains(text, "may not stay") {
			t.Errorf("%s: want %q in the plan:\n%s", tc.what, tc.line, text)
		}
		if (refused == "") != (tc.refused == "") || !strings.Contains(refused, tc.refused) {
			t.Errorf("%s: refused %q, want %q", tc.what, refused, tc.refused)
		}
	}
	// A group that has no portal any more.
	r := serve(conf(nil), d)
	r.Portals, r.Sessions = Portals(conf(nil)), busy
	r.Targets[0].LUNs[0].LastIO = now
	less := conf(nil)
	less.PortalGroups = less.PortalGroups[:1]
	if refused := strings.Join(Make(r, less, d.look).Refused(), "\n"); !strings.Contains(refused, "portal group 2 does not offer the target any more, and it is in use") {
		t.Errorf("a group less: refused %q", refused)
	}
}
