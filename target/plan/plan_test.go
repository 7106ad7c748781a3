// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// disks is a file system: by path, what is there.
type disks map[string]stored

type stored struct {
	id   string
	size int64
}

func (d disks) look(l *config.LUN, fit bool) (string, int64, error) {
	s, ok := d[l.Path]
	switch {
	case !ok:
		return "", 0, fs.ErrNotExist
	case fit && l.Size > 0 && l.Size < s.size:
		return "", 0, errors.New("would shrink")
	}
	if l.Backend == "file" && !l.ReadOnly { // as a driver says what opening will make of it
		return s.id, max(s.size, l.Size), nil
	}
	return s.id, s.size, nil
}

// serve is what a process that serves a configuration would say of itself.
func serve(c *config.Config, d disks) *Running {
	r := &Running{}
	for i := range c.Targets {
		t := &c.Targets[i]
		rt := Target{Name: t.Name, TID: t.TID, Settings: t.Settings()}
		for _, l := range t.LUNs {
			s := d[l.Path]
			rt.LUNs = append(rt.LUNs, LUN{
				LUN: l.Number, Backend: l.Backend, Path: l.Path, Store: s.id, Size: s.size, BlockSize: l.BlockSize,
				Identity: l.Identity(t.TID, l.Number), Settings: l.Settings(t.Name),
			})
		}
		r.Targets = append(r.Targets, rt)
	}
	return r
}

const (
	name  = "iqn.2026-11.test:t"
	other = "iqn.2026-11.test:u"
)

func oneTarget(luns ...config.LUN) *config.Config {
	c := &config.Config{Targets: []config.Target{{Name: name, LUNs: luns}}}
	c.SetDefaults()
	return c
}

// withMetrics says where the metrics of a configuration are.
func withMetrics(c *config.Config, listen, file string) *config.Config {
	c.Metrics = config.Metrics{Listen: listen, WebConfig: file}
	return c
}

// withPortals gives a configuration portals.
func withPortals(c *config.Config) *config.Config {
	c.PortalGroups = []config.PortalGroup{
		{Tag: 1, Portals: []config.Portal{{Address: "192.0.2.1:3260", Announce: []string{"b:3260", "c:3260"}}, {Socket: "x"}}},
		{Tag: 2, Portals: []config.Portal{{Address: "192.0.2.1:0"}, {Address: "192.0.2.2:3260", Announce: []string{"d:3260"}}}},
	}
	return c
}

// accounts gives the target accounts, names and secrets in turn.
func accounts(c *config.Config, list ...string) *config.Config {
	for i := 0; i < len(list); i += 2 {
		c.Targets[0].Auth.Users = append(c.Targets[0].Auth.Users, config.Account{User: list[i], Secret: config.Secret(list[i+1])})
	}
	return c
}

func TestPlan(t *testing.T) {
	d := disks{"/a": {"file:1", 64 << 20}, "/b": {"file:2", 64 << 20}, "/link": {"file:1", 64 << 20}, "/small": {"file:1", 1 << 20}}
	a := config.LUN{Number: 1, Options: storage.Options{Path: "/a"}}
	b := config.LUN{Number: 2, Options: storage.Options{Path: "/b"}}
	missing := config.LUN{Number: 1, Options: storage.Options{Path: "/gone", Size: 64 << 20}}
	gone := func(r *Running) { r.Targets[0].LUNs[0].Path = "/gone" }
	lax := func(c *config.Config) *config.Config { c.IgnoreErrors = true; return c }
	notOpen := func(r *Running) {
		l := &r.Targets[0].LUNs[1]
		l.Store, l.Size, l.Error = "", 0, "no such file"
	}
	user := Session{TSIH: 3, Initiator: "iqn.2026-11.test:i", Target: name, Address: "192.0.2.1:40000"}
	with := func(l config.LUN, change func(l *config.LUN)) config.LUN { change(&l); return l }
	for _, c := range []struct {
		what    string
		change  func(r *Running)
		desired *config.Config
		lines   []string // parts of the lines, one each
		refused []string // parts of the refusals, when the session is there; none without it
	}{
		{"nothing", nil, oneTarget(a, b), nil, nil},
		{"portals", func(r *Running) {
			r.Portals = []Portal{{1, "192.0.2.1:3260", nil}, {1, "socket x", []string{"a:3260"}}, {2, "192.0.2.1:0", nil}, {2, "192.0.2.1:0", nil}, {3, "192.0.2.3:3260", nil}}
		}, withPortals(oneTarget(a, b)), []string{
			"~ portal 192.0.2.1:3260 of group 1: announced as b:3260, c:3260 instead of under its own address", "~ portal socket x of group 1: announced under its own address instead of as a:3260",
			"+ portal 192.0.2.2:3260 of group 2: announced as d:3260", "- portal 192.0.2.1:0 of group 2: ", "- portal 192.0.2.3:3260 of group 3: ",
		}, nil},
		{"metrics come", func(r *Running) { r.Metrics = &Metrics{} }, withMetrics(oneTarget(a, b), "127.0.0.1:9889", ""), []string{
			"+ metrics at 127.0.0.1:9889: without TLS and passwords",
		}, nil},
		{"metrics elsewhere", func(r *Running) { r.Metrics = &Metrics{Listen: "127.0.0.1:9889"} }, withMetrics(oneTarget(a, b), "unix:/run/m.sock", "/etc/web.yaml"), []string{
			"- metrics at 127.0.0.1:9889: Prometheus can't scrape there any more, nor is the page there",
			"+ metrics at unix:/run/m.sock: as /etc/web.yaml says",
		}, nil},
		{"metrics with another file", func(r *Running) { r.Metrics = &Metrics{Listen: "127.0.0.1:9889", WebConfig: "/etc/web.yaml"} }, withMetrics(oneTarget(a, b), "127.0.0.1:9889", ""), []string{
			"~ metrics at 127.0.0.1:9889: without TLS and passwords, not as /etc/web.yaml says any more",
		}, nil},
		{"metrics go", func(r *Running) { r.Metrics = &Metrics{Listen: "127.0.0.1:9889"} }, oneTarget(a, b), []string{
			"- metrics at 127.0.0.1:9889: Prometheus can't scrape there any more, nor is the page there",
		}, nil},
		{"the same metrics", func(r *Running) { r.Metrics = &Metrics{Listen: "127.0.0.1:9889"} }, withMetrics(oneTarget(a, b), "127.0.0.1:9889", ""), nil, nil},
		{"metrics of a process that does not tell", nil, withMetrics(oneTarget(a, b), "127.0.0.1:9889", ""), nil, nil},
		{"portals of a process that does not tell", nil, withPortals(oneTarget(a, b)), nil, nil},
		{"a disk more", nil, oneTarget(a, b, config.LUN{Number: 3, Options: storage.Options{Path: "/a"}}), []string{"+ target " + name + " LUN 3: file /a, 64 MiB"}, nil},
		{"exchanged", nil, oneTarget(with(a, func(l *config.LUN) { l.Path = "/b" }), with(b, func(l *config.LUN) { l.Path = "/a" })),
			[]string{"LUN 1: backing store /b instead of /a, now that of target " + name + " LUN 2", "LUN 2: "}, []string{"LUN 1: ", "LUN 2: "}},
		{"another name of the file", nil, oneTarget(with(a, func(l *config.LUN) { l.Path = "/link" }), b), []string{"the same store"}, nil},
		{"shrinks", nil, oneTarget(with(a, func(l *config.LUN) { l.Path = "/small" }), b), []string{"shrinks from 64 MiB to 1 MiB", "the same store"}, []string{"shrinks"}},
		{"grows", nil, oneTarget(with(a, func(l *config.LUN) { l.Size = 128 << 20 }), b), []string{"grows from 64 MiB to 128 MiB"}, nil},
		{"serial number", nil, oneTarget(with(a, func(l *config.LUN) { l.Serial = "new" }), b), []string{`serial number "new" instead of`}, []string{"serial number"}},
		{"block size", nil, oneTarget(with(a, func(l *config.LUN) { l.BlockSize = 4096 }), b), []string{"block size"}, []string{"block size"}},
		{"file away that would be made anew", func(r *Running) { r.Targets[0].LUNs[0].Path, r.Targets[0].LUNs[0].Store = "/gone", "file:9" },
			oneTarget(with(a, func(l *config.LUN) { l.Path, l.Create = "/gone", true }), b), []string{"no longer at /gone, and an empty one would be made"}, []string{"no longer at /gone"}},
		{"another file at the path", func(r *Running) { r.Targets[0].LUNs[0].Store = "file:9" }, oneTarget(a, b), []string{"another file is at /a"}, []string{"another file is at /a"}},
		{"file gone", gone, oneTarget(missing, b), []string{"there is no file at /gone any more, and it would not be ready"}, []string{"there is no file at /gone"}},
		{"can't be opened any more", nil, lax(oneTarget(a, with(b, func(l *config.LUN) { l.Size = 1 << 20 }))), []string{"LUN 2: it would not be ready: would shrink"}, []string{"LUN 2: it would not be ready"}},
		{"can be opened now", notOpen, oneTarget(a, b), []string{"LUN 2: its backing store can be opened now, 64 MiB"}, nil},
		{"will be made now", func(r *Running) { notOpen(r); r.Targets[0].LUNs[1].Path = "/gone" }, oneTarget(a, config.LUN{Number: 2, Options: storage.Options{Path: "/gone", Size: 1 << 20, Create: true}}),
			[]string{"LUN 2: its backing store will be made, 1 MiB"}, nil},
		{"an empty one will be made now", func(r *Running) {
			notOpen(r)
			r.Targets[0].LUNs[1].Path, r.Targets[0].LUNs[1].Store = "/gone", "file:9"
		}, oneTarget(a, config.LUN{Number: 2, Options: storage.Options{Path: "/gone", Size: 1 << 20, Create: true}}),
			[]string{"LUN 2: the file that was served is no longer at /gone, and an empty one would be made"}, []string{"an empty one would be made"}},
		{"nothing is made to be read alone", func(r *Running) {
			notOpen(r)
			r.Targets[0].LUNs[1].Path, r.Targets[0].LUNs[1].Store = "/gone", "file:9"
			r.Targets[0].LUNs[1].Settings["read-only"] = "true"
		}, oneTarget(a, config.LUN{Number: 2, Options: storage.Options{Path: "/gone", Size: 1 << 20, Create: true, BlockOptions: storage.BlockOptions{ReadOnly: true}}}), nil, nil},
		{"still can't be opened", func(r *Running) { notOpen(r); r.Targets[0].LUNs[1].Path = "/gone" }, oneTarget(a, config.LUN{Number: 2, Options: storage.Options{Path: "/gone"}}), nil, nil},
		{"another one can be opened now", func(r *Running) { notOpen(r); r.Targets[0].LUNs[1].Store = "file:9" }, oneTarget(a, b), []string{"another file is at /b"}, []string{"another file is at /b"}},
		{"idle disk less", nil, oneTarget(a), []string{"- target " + name + " LUN 2: /b"}, nil},
		{"busy disk less", func(r *Running) { r.Targets[0].LUNs[1].LastIO = time.Now() }, oneTarget(a), []string{"- target " + name + " LUN 2"}, []string{"LUN 2 was read or written"}},
		{"disk less that was busy", func(r *Running) { r.Targets[0].LUNs[1].LastIO = time.Now().Add(-2 * RecentIO) }, oneTarget(a), []string{"- target"}, nil},
		{"reserved disk less", func(r *Running) { r.Targets[0].LUNs[1].Holders = []string{"iqn.x,i,0x1"} }, oneTarget(a), []string{"- target"}, []string{"reserved by"}},
		{"idle target less", nil, &config.Config{}, []string{"- target " + name + ": TID 1, 2 logical units"}, nil},
		{"busy target less", func(r *Running) { r.Targets[0].LUNs[1].LastIO = time.Now() }, &config.Config{}, []string{"- target " + name}, []string{"LUN 2 was read"}},
		{"settings", nil, oneTarget(with(a, func(l *config.LUN) { l.ReadOnly = true }), b), []string{"read-only true"}, nil},
		{"account", nil, accounts(oneTarget(a, b), "u", "very secret thing"), []string{"~ target " + name + ": account u is new"}, nil},
		{"account gone", func(r *Running) {
			r.Targets[0].Settings = accounts(oneTarget(a, b), "u", "very secret thing").Targets[0].Settings()
		}, oneTarget(a, b), []string{"~ target " + name + ": account u is gone"}, nil},
		{"first account gone", func(r *Running) {
			r.Targets[0].Settings = accounts(oneTarget(a, b), "u", "very secret thing", "v", "very secret thing too").Targets[0].Settings()
		}, accounts(oneTarget(a, b), "v", "very secret thing too"), []string{"~ target " + name + ": account u is gone"}, nil},
		{"secret", func(r *Running) {
			r.Targets[0].Settings = accounts(oneTarget(a, b), "u", "very secret thing").Targets[0].Settings()
		}, accounts(oneTarget(a, b), "u", "very secret thing too"), []string{"~ target " + name + ": secret of u changes"}, nil},
		{"disk in use offline", func(r *Running) { r.Targets[0].LUNs[1].LastIO = time.Now() }, oneTarget(a, with(b, func(l *config.LUN) { l.Offline = true })), []string{"offline true"}, []string{"LUN 2: it is in use: LUN 2 was read or written"}},
		{"idle disk offline", nil, oneTarget(a, with(b, func(l *config.LUN) { l.Offline = true })), []string{"offline true"}, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, sessions := range [][]Session{nil, {user}} {
				r := serve(oneTarget(a, b), d)
				r.Sessions = sessions
				if c.change != nil {
					c.change(r)
				}
				p := Make(r, c.desired, d.look)
				matches(t, "lines", p.Lines(), c.lines)
				if sessions == nil {
					matches(t, "refusals without a session", p.Refused(), nil)
				} else {
					matches(t, "refusals", p.Refused(), c.refused)
				}
				if strings.Contains(strings.Join(p.Lines(), ""), "very secret thing") {
					t.Error("the plan has a secret in it")
				}
			}
		})
	}
}

// TestPlanToTgt is an upgrade from a gotgtd that told less of what tgt tells to one that
// tells all of it: the plan says what the sessions will see, and lets it pass. Another TID is
// another identifier then, and is refused.
func TestPlanToTgt(t *testing.T) {
	d := disks{"/a": {"file:1", 64 << 20}}
	tgt := func(tid int, change func(l *config.LUN)) *config.Config {
		l := config.LUN{Number: 1, Options: storage.Options{Path: "/a"}, UnitOptions: scsi.UnitOptions{SCSIID: "a1", Serial: "s"}}
		l.SetTgtDefaults(tid)
		if change != nil {
			change(&l)
		}
		c := oneTarget(l)
		c.Targets[0].TID = tid
		return c
	}
	before := tgt(1, func(l *config.LUN) {
		l.TgtIdentification, l.Thin, l.RotationRate, l.PhysicalBlockExponent = false, nil, nil, nil
	})
	user := Session{TSIH: 3, Initiator: "iqn.2026-11.test:i", Target: name, Address: "192.0.2.1:40000"}
	for _, c := range []struct {
		was, now *config.Config
		lines    []string
		refused  []string
	}{
		{before, tgt(1, nil), []string{"LUN 1: physical-block-exponent 3, rotation-rate 0, tgt-identification true, thin false (" + user.String() +
			": INQUIRY DATA HAS CHANGED and CAPACITY DATA HAS CHANGED as far as these are others, UNMAP is refused from now on, goes on)"}, nil},
		{tgt(1, nil), tgt(1, nil), nil, nil},
		{tgt(1, nil), tgt(1, func(l *config.LUN) { l.Thin = new(true) }), []string{"thin true instead of false"}, nil},
		{tgt(1, nil), tgt(2, nil), []string{"TID 2 instead of 1", `local NAA identifier "3000000200000001" instead of "3000000100000001"`}, []string{"local NAA identifier"}},
	} {
		r := serve(c.was, d)
		r.Sessions = []Session{user}
		p := Make(r, c.now, d.look)
		matches(t, "lines", p.Lines(), c.lines)
		matches(t, "refusals", p.Refused(), c.refused)
	}
}

func matches(t *testing.T, what string, got, parts []string) {
	t.Helper()
	if len(got) != len(parts) {
		t.Errorf("%d %s, want %d:\n%s", len(got), what, len(parts), strings.Join(got, "\n"))
		return
	}
	for i := range got {
		if !strings.Contains(got[i], parts[i]) {
			t.Errorf("%s: %q has no %q", what, got[i], parts[i])
		}
	}
}

// TestReasonOnce: a line and a refusal say what changes once.
// TestClockOfTheDaemon: what is in use is so by the clock of the process that has told when, be it
// a day wrong. One that does not tell its clock is taken to have ours.
func TestClockOfTheDaemon(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, tt := range []struct {
		clock, lastIO time.Time
		refused       bool
	}{
		{time.Time{}, now, true},
		{time.Time{}, now.Add(-day), false},
		{now.Add(day), now.Add(day), true},
		{now.Add(-day), now.Add(-day), true},
		{now.Add(-day), now.Add(-day - RecentIO), false},
		{now.Add(day), now, false},
	} {
		r := &Running{Now: tt.clock, Targets: []Target{{Name: "iqn.2026-11.test:a", TID: 1, LUNs: []LUN{{LUN: 1, LastIO: tt.lastIO}}}}}
		r.Sessions = []Session{{Target: "iqn.2026-11.test:a", LastIO: tt.lastIO}}
		p := Make(r, &config.Config{}, nil)
		if got := p.Check() != nil; got != tt.refused {
			t.Errorf("clock %v, last use %v: refused %v, want %v", tt.clock, tt.lastIO, got, tt.refused)
		}
	}
}

// TestForce: what is forced for one disk or target is not forced for another.
func TestForce(t *testing.T) {
	now := time.Now()
	r := &Running{}
	for _, name := range []string{"iqn.2026-11.test:a", "iqn.2026-11.test:b"} {
		r.Targets = append(r.Targets, Target{Name: name, TID: len(r.Targets) + 1, LUNs: []LUN{{LUN: 1, LastIO: now}, {LUN: 2, LastIO: now}}})
		r.Sessions = append(r.Sessions, Session{Target: name, LastIO: now})
	}
	less := &config.Config{Targets: []config.Target{{Name: "iqn.2026-11.test:a", TID: 1}}}
	one, two := uint16(1), uint16(2)
	for _, tt := range []struct {
		parts []Part
		left  int
	}{
		{nil, 3},
		{[]Part{{Target: "iqn.2026-11.test:a", LUN: &one}}, 2},
		{[]Part{{Target: "iqn.2026-11.test:a", LUN: &one}, {Target: "iqn.2026-11.test:a", LUN: &two}}, 1},
		{[]Part{{Target: "iqn.2026-11.test:a"}}, 1},
		{[]Part{{Target: "iqn.2026-11.test:b", LUN: &one}}, 3}, // the target goes as a whole
		{[]Part{{Target: "iqn.2026-11.test:b"}}, 2},
		{[]Part{{Target: "iqn.2026-11.test:a"}, {Target: "iqn.2026-11.test:b"}}, 0},
		{[]Part{{}}, 3},
	} {
		p := Make(r, less, nil)
		p.Force(tt.parts...)
		if got := p.Refused(); len(got) != tt.left || (p.Check() != nil) != (tt.left > 0) {
			t.Errorf("forced for %v: refused are %q, want %d", tt.parts, got, tt.left)
		}
	}
}

// TestUnwritableStateFolder: a plan that gives numbers by order is refused if they can't be kept; in any
// other it is said.
func TestUnwritableStateFolder(t *testing.T) {
	load := func(text string) *config.Config {
		t.Helper()
		c, err := config.Parse("x.conf", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	given := load("<target iqn.2026-11.test:a>\ncontroller_tid 3\n</target>\n")
	byOrder := load("<target iqn.2026-11.test:a>\n</target>\n")
	for _, tt := range []struct {
		c              *config.Config
		unwritable     string
		lines, refused int
	}{{given, "", 1, 0}, {byOrder, "", 1, 0}, {given, "read-only file system", 2, 0}, {byOrder, "read-only file system", 2, 1}} {
		p := Make(&Running{StateDir: "/state", Unwritable: tt.unwritable}, tt.c, nil)
		text := strings.Join(p.Lines(), "\n")
		if len(p.Lines()) != tt.lines || len(p.Refused()) != tt.refused || strings.Contains(text, "state folder /state: no file can be written there: read-only file system") != (tt.unwritable != "") {
			t.Errorf("%q, numbers by order %v: the plan is\n%s", tt.unwritable, tt.c.NewNumbers(), text)
		}
	}
	if p := Make(&Running{StateDir: "/state", Unwritable: "full"}, &config.Config{}, nil); !p.Empty() || len(p.Lines()) != 1 {
		t.Errorf("where nothing changes the plan is %q", p.Lines())
	}
}

func TestReasonOnce(t *testing.T) {
	d := disks{"/a": {"file:1", 64 << 20}}
	conf := oneTarget(config.LUN{Number: 1, Options: storage.Options{Path: "/a"}})
	r := serve(conf, d)
	r.Targets[0].LUNs[0].Store = "file:9"
	r.Sessions = []Session{{TSIH: 3, Initiator: "iqn.2026-11.test:i", Target: name}}
	p := Make(r, conf, d.look)
	for _, list := range [][]string{p.Lines(), p.Refused()} {
		if len(list) != 1 || strings.Count(list[0], "another file is at") != 1 || strings.Count(list[0], "another disk in the place") != 1 {
			t.Errorf("%q", list)
		}
	}
}

// TestStart plans for a daemon that does not run.
// TestHostileNames has initiators whose names would be lines of the plan.
func TestHostileNames(t *testing.T) {
	d := disks{"/a": {"file:1", 64 << 20}}
	r := serve(oneTarget(config.LUN{Number: 1, Options: storage.Options{Path: "/a"}}), d)
	const hostile = "x\n- target y\x1b[2K at 192.0.2.9:1 (TSIH 9), z\u202e"
	r.Sessions = []Session{{TSIH: 3, Initiator: hostile, Target: name, Address: "192.0.2.1:40000"}}
	r.Targets[0].LUNs[0].Holders = []string{hostile}
	for what, desired := range map[string]*config.Config{"less": oneTarget(), "another": oneTarget(config.LUN{Number: 1, Options: storage.Options{Path: "/a"}, UnitOptions: scsi.UnitOptions{Serial: "new"}})} {
		p := Make(r, desired, d.look)
		text := strings.Join(append(p.Lines(), p.Refused()...), "")
		if len(p.Lines()) != 1 || len(p.Refused()) != 1 || strings.ContainsAny(text, "\n\x1b\u202e") || strings.Contains(text, " (TSIH 9)") {
			t.Errorf("%s: the plan is %q", what, text)
		}
	}
}

func TestStart(t *testing.T) {
	p := Make(nil, oneTarget(config.LUN{Number: 1, Options: storage.Options{Path: "/a"}}), disks{}.look)
	if len(p.Lines()) != 2 || p.Check() != nil {
		t.Errorf("%q, %v", p.Lines(), p.Check())
	}
}

// TestRandomPlans: whatever a session can address is the same store with the
// same identity afterwards, or the plan is refused, or the disk is gone and was not in
// use.
func TestRandomPlans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := disks{}
		for i := range 6 {
			d[fmt.Sprintf("/%d", i)] = stored{fmt.Sprintf("file:%d", rapid.IntRange(0, 4).Draw(t, "id")), int64(rapid.IntRange(1, 3).Draw(t, "size")) << 20}
		}
		before := randomConfig(t)
		r := serve(before, d)
		for _, target := range []string{name, other} {
			if rapid.Bool().Draw(t, "session") {
				r.Sessions = append(r.Sessions, Session{TSIH: 1, Initiator: "iqn.2026-11.test:i", Target: target})
			}
		}
		for i := range r.Targets {
			for j := range r.Targets[i].LUNs {
				if rapid.Bool().Draw(t, "busy") {
					r.Targets[i].LUNs[j].LastIO = time.Now()
				}
			}
		}
		after := randomConfig(t)
		p := Make(r, after, d.look)
		if len(p.Refused()) > 0 {
			return
		}
		now := serve(after, d)
		for _, s := range r.Sessions {
			checkSession(t, r, now, &s)
		}
		if len(p.Lines()) == 0 && fmt.Sprint(r.Targets) != fmt.Sprint(now.Targets) && len(r.Sessions) > 0 && differs(r, now) {
			t.Fatalf("an empty plan from %v to %v", r, now)
		}
	})
}

// differs reports whether two descriptions have other disks.
func differs(a, b *Running) bool {
	list := func(r *Running) (s string) {
		for _, t := range r.Targets {
			for _, l := range t.LUNs {
				s += fmt.Sprintln(t.Name, l.LUN, l.Store, l.NAA, l.Size)
			}
		}
		return s
	}
	return list(a) != list(b)
}

func checkSession(t *rapid.T, was, now *Running, s *Session) {
	find := func(r *Running) *Target {
		for i := range r.Targets {
			if r.Targets[i].Name == s.Target {
				return &r.Targets[i]
			}
		}
		return nil
	}
	old, next := find(was), find(now)
	if old == nil {
		return
	}
	for _, l := range old.LUNs {
		var n *LUN
		if next != nil {
			n = lunOf(next, l.LUN)
		}
		switch {
		case n == nil && !l.LastIO.IsZero():
			t.Fatalf("LUN %d of %s is gone and was in use", l.LUN, s.Target)
		case n == nil:
		case n.Store != l.Store || n.NAA != l.NAA || n.Serial != l.Serial || n.BlockSize != l.BlockSize:
			t.Fatalf("LUN %d of %s was %+v and is %+v", l.LUN, s.Target, l, *n)
		case n.Size < l.Size:
			t.Fatalf("LUN %d of %s has shrunk", l.LUN, s.Target)
		}
	}
}

func lunOf(t *Target, n uint16) *LUN {
	for i := range t.LUNs {
		if t.LUNs[i].LUN == n {
			return &t.LUNs[i]
		}
	}
	return nil
}

func randomConfig(t *rapid.T) *config.Config {
	c := &config.Config{}
	for _, target := range []string{name, other} {
		if !rapid.Bool().Draw(t, "target") {
			continue
		}
		tc := config.Target{Name: target}
		for n := range uint16(3) {
			if !rapid.Bool().Draw(t, "LUN") {
				continue
			}
			l := config.LUN{Number: n, Options: storage.Options{Path: fmt.Sprintf("/%d", rapid.IntRange(0, 5).Draw(t, "path"))}}
			if rapid.IntRange(0, 5).Draw(t, "serial") == 0 {
				l.Serial = "other"
			}
			tc.LUNs = append(tc.LUNs, l)
		}
		c.Targets = append(c.Targets, tc)
	}
	c.SetDefaults()
	return c
}
