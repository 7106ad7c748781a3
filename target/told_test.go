// SPDX-License-Identifier: Apache-2.0

package target

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// conditions are the unit attention conditions that a plan tells of, as SPC-4 annex D has them.
var conditions = map[uint16]string{
	0x2800: "NOT READY TO READY CHANGE", 0x2a01: "MODE PARAMETERS CHANGED", 0x2a09: "CAPACITY DATA HAS CHANGED",
	0x3f03: "INQUIRY DATA HAS CHANGED", 0x3f0e: "REPORTED LUNS DATA HAS CHANGED",
}

// What a plan says that an initiator is told is what a session is told then, no condition more
// and none less, for each kind of change and for its opposite.
func TestPlanTellsAttentions(t *testing.T) {
	const mode, inquiry, capacity, luns = 0x2a01, 0x3f03, 0x2a09, 0x3f0e
	const offline, unknown = 0x0403, 0x2500 // no unit attentions
	for _, tc := range []struct {
		what       string
		change     func(c *config.Config, l *config.LUN)
		told, back []uint16 // sense codes, of the change and of its opposite
	}{
		{"nothing", func(*config.Config, *config.LUN) {}, nil, nil},
		{"size", func(_ *config.Config, l *config.LUN) { l.Size = 2 << 20 }, []uint16{capacity}, nil},
		{"read-only", func(_ *config.Config, l *config.LUN) { l.ReadOnly = true }, []uint16{inquiry}, []uint16{inquiry}},
		{"write-cache", func(_ *config.Config, l *config.LUN) { l.WriteCache = new(false) }, []uint16{mode}, []uint16{mode}},
		{"sync", func(_ *config.Config, l *config.LUN) { l.Sync = true }, []uint16{mode}, []uint16{mode}},
		{"thin", func(_ *config.Config, l *config.LUN) { l.Thin = new(false) }, []uint16{inquiry, capacity}, []uint16{inquiry, capacity}},
		{"direct", func(_ *config.Config, l *config.LUN) { l.Direct = true }, nil, nil},
		{"allow-in-use", func(_ *config.Config, l *config.LUN) { l.AllowInUse = true }, nil, nil},
		{"revision", func(_ *config.Config, l *config.LUN) { l.Revision = "7" }, []uint16{inquiry}, []uint16{inquiry}},
		{"serial", func(_ *config.Config, l *config.LUN) { l.Serial = "other" }, []uint16{luns, inquiry, unknown}, []uint16{luns, inquiry, unknown}},
		{"vendor", func(_ *config.Config, l *config.LUN) { l.Vendor = "ACME" }, []uint16{luns, inquiry, unknown}, []uint16{luns, inquiry, unknown}},
		{"naa", func(_ *config.Config, l *config.LUN) { l.NAA = "3000000000000001" }, []uint16{luns, inquiry, unknown}, []uint16{luns, inquiry, unknown}},
		{"block-size", func(_ *config.Config, l *config.LUN) { l.BlockSize = 4096 }, []uint16{luns, inquiry, unknown}, []uint16{luns, inquiry, unknown}},
		{"tgt-identification", func(_ *config.Config, l *config.LUN) { l.TgtIdentification = true }, []uint16{inquiry}, []uint16{inquiry}},
		{"removable", func(_ *config.Config, l *config.LUN) { l.Removable = true }, nil, []uint16{inquiry}},
		{"offline", func(_ *config.Config, l *config.LUN) { l.Offline = true }, []uint16{offline}, nil},
		{"descriptor-sense", func(_ *config.Config, l *config.LUN) { l.DescriptorSense = true }, []uint16{mode}, []uint16{mode}},
		{"physical-block-exponent", func(_ *config.Config, l *config.LUN) { l.PhysicalBlockExponent = new(3) }, []uint16{capacity}, []uint16{capacity}},
		{"lowest-aligned-lba", func(_ *config.Config, l *config.LUN) { l.LowestAlignedLBA = 1 }, []uint16{capacity}, []uint16{capacity}},
		{"optimal-transfer-granularity", func(_ *config.Config, l *config.LUN) { l.OptimalTransferGranularity = 16 }, []uint16{inquiry}, []uint16{inquiry}},
		{"optimal-transfer-length", func(_ *config.Config, l *config.LUN) { l.OptimalTransferLength = 128 }, []uint16{inquiry}, []uint16{inquiry}},
		{"rotation-rate", func(_ *config.Config, l *config.LUN) { l.RotationRate = new(7200) }, []uint16{inquiry}, []uint16{inquiry}},
		{"mode-pages", func(_ *config.Config, l *config.LUN) {
			l.ModePages = []scsi.ModePage{{Page: 0x1c, Data: make([]byte, 10)}}
		}, []uint16{mode}, []uint16{mode}},
		{"path", func(_ *config.Config, l *config.LUN) { l.Path = filepath.Dir(l.Path) + "/./" + filepath.Base(l.Path) }, nil, nil},
		{"secret", func(c *config.Config, _ *config.LUN) {
			c.Targets[0].Auth.Users = []config.Account{{User: "u", Secret: "correct-horse-1"}}
		}, nil, nil},
		{"parameters", func(c *config.Config, _ *config.LUN) { c.Targets[0].Parameters.MaxBurstLength = 64 << 10 }, nil, nil},
		{"alias", func(c *config.Config, _ *config.LUN) { c.Targets[0].Alias = "other" }, nil, nil},
		{"portal", func(c *config.Config, _ *config.LUN) {
			c.PortalGroups = []config.PortalGroup{{Tag: 1, Portals: []config.Portal{{Address: "127.0.0.1:3260", Announce: []string{"192.0.2.1:3260"}}}}}
		}, nil, nil},
		{"another LUN", func(c *config.Config, l *config.LUN) {
			c.Targets[0].LUNs = append(c.Targets[0].LUNs, config.LUN{Number: 3, Options: storage.Options{Path: l.Path + "-3", Size: 1 << 20, Create: true}})
		}, []uint16{luns}, []uint16{luns}},
		{"access to another LUN", func(c *config.Config, _ *config.LUN) {
			c.Targets[0].LUNs[1].Access = config.Access{Initiators: []string{"iqn.2026-11.test:another"}}
		}, []uint16{luns}, []uint16{luns}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.img")
			plain, changed := toldConfig(path), toldConfig(path)
			tc.change(changed, &changed.Targets[0].LUNs[0])
			plain.SetDefaults()
			changed.SetDefaults()
			for _, way := range []struct {
				from, to *config.Config
				want     []uint16
			}{{plain, changed, tc.told}, {changed, plain, tc.back}} {
				for _, l := range plain.Targets[0].LUNs {
					makeFile(t, l.Path, make([]byte, 1<<20))
				}
				p, codes := toldBy(t, way.from, way.to)
				if !slices.Equal(codes, way.want) {
					t.Errorf("the session is told %04x, want %04x", codes, way.want)
				}
				text := strings.Join(p.Lines(), "\n")
				for code, name := range conditions {
					if strings.Contains(text, name) != slices.Contains(codes, code) {
						t.Errorf("the session is told %04x, and the plan says:\n%s", codes, text)
					}
				}
				if slices.Contains(codes, offline) != strings.Contains(text, "NOT READY") || strings.Contains(text, "goes on") && slices.Contains(codes, unknown) {
					t.Errorf("the session is told %04x, and the plan says:\n%s", codes, text)
				}
				if way.to == changed && (tc.what == "nothing") != p.Empty() {
					t.Errorf("the plan is:\n%s", text)
				}
			}
		})
	}
}

func toldConfig(path string) *config.Config {
	return &config.Config{Targets: []config.Target{{Name: lateName, LUNs: []config.LUN{{Number: 2, Options: storage.Options{Path: path}}, {Number: 4, Options: storage.Options{Path: path + "-4"}}}}}}
}

// toldBy plans and carries out a change by force, and returns what LUN 2 tells a session of it
// before GOOD, or before the same again.
func toldBy(t *testing.T, from, to *config.Config) (*plan.Plan, []uint16) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	old, err := New(Options{Config: from, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	session := login(t, old)
	for range 2 { // it has logged in, and is told so
		ready(t, session, 2)
	}
	running := old.Running()
	running.Portals = plan.Portals(from)
	p := plan.Make(running, to, Look)
	next, err := New(Options{Config: to, Successor: true, Force: true, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	handOver(t, old, next)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	next.Serve()
	var codes []uint16
	for {
		_, code := ready(t, session, 2)
		if code == 0 || slices.Contains(codes, code) {
			break
		}
		codes = append(codes, code)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	for _, l := range slices.Concat(from.Targets[0].LUNs, to.Targets[0].LUNs) {
		os.Remove(l.Path)
	}
	return p, codes
}
