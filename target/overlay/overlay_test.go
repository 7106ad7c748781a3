// SPDX-License-Identifier: Apache-2.0

package overlay

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
)

// TestNobody binds nobody, then an address, and takes that back.
func TestNobody(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.1")
	var o *Overlay
	c := &config.Config{}
	c.SetDefaults()
	for _, tc := range []struct {
		op     Operation
		allows bool
	}{
		{Operation{Mode: "target", Op: "new", TID: 3, Target: "iqn.2026-11.test:a"}, false},
		{Operation{Mode: "target", Op: "bind", TID: 3, Address: "192.0.2.1"}, true},
		{Operation{Mode: "target", Op: "unbind", TID: 3, Address: "192.0.2.1"}, false},
		{Operation{Mode: "target", Op: "bind", TID: 3, Address: "ALL"}, true},
	} {
		next, err := o.Add(c, []Operation{tc.op}, nil)
		if err != nil {
			t.Fatalf("%v: %v", tc.op, err)
		}
		o = next
		if got := c.Targets[0].Access.Allows(address, "iqn.2026-11.test:host", ""); got != tc.allows {
			t.Errorf("after %s %s %s: allowed %v, want %v", tc.op.Mode, tc.op.Op, tc.op.Address, got, tc.allows)
		}
		again := &config.Config{}
		if errs := o.Apply(again); len(errs) > 0 || again.Targets[0].Access.Allows(address, "iqn.2026-11.test:host", "") != tc.allows {
			t.Errorf("after %s %s %s: another generation has another answer (%v)", tc.op.Mode, tc.op.Op, tc.op.Address, errs)
		}
	}
}

// TestUndone leaves nothing of what was made and deleted.
func TestUndone(t *testing.T) {
	c := &config.Config{}
	c.SetDefaults()
	o, err := (*Overlay)(nil).Add(c, []Operation{
		{Mode: "target", Op: "new", TID: 3, Target: "iqn.2026-11.test:a"},
		{Mode: "account", Op: "new", User: "u", Password: "correct-horse-1"},
		{Mode: "account", Op: "bind", TID: 3, User: "u"},
		{Mode: "target", Op: "bind", TID: 3, Address: "ALL"},
		{Mode: "account", Op: "unbind", TID: 3, User: "u"},
		{Mode: "account", Op: "delete", User: "u"},
		{Mode: "target", Op: "delete", TID: 3},
		{Mode: "account", Op: "new", User: "d", Password: "correct-horse-2"},
		{Mode: "account", Op: "bind", User: "d"},
		{Mode: "account", Op: "delete", User: "d"},
		{Mode: "portal", Op: "new", Portal: "192.0.2.1"},
		{Mode: "portal", Op: "delete", Portal: "192.0.2.1:3260"},
	}, nil)
	if err != nil || len(o.Operations) > 0 || len(c.Targets) > 0 || len(c.Discovery.Users) > 0 || len(c.PortalGroups[0].Portals) > 0 {
		t.Errorf("left: %+v, %+v, %v", o, c, err)
	}
}

// TestFileTarget stays deleted over reloads, also with another number, and is not
// mistaken for another with its number.
func TestFileTarget(t *testing.T) {
	tid := 1
	load := func(name string) *config.Config {
		c := &config.Config{Targets: []config.Target{{Name: name, TID: tid}}}
		c.SetDefaults()
		return c
	}
	o, err := (*Overlay)(nil).Add(load("iqn.2026-11.test:a"), []Operation{{Mode: "target", Op: "delete", TID: 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := load("iqn.2026-11.test:a")
	if errs := o.Apply(c); len(errs) > 0 || len(c.Targets) > 0 {
		t.Errorf("the target is back: %v", errs)
	}
	tid = 5 // a targets.conf leaves numbers to order, and nobody has this one any more
	c = load("iqn.2026-11.test:a")
	if errs := o.Apply(c); len(errs) > 0 || len(c.Targets) > 0 {
		t.Errorf("the target is back with another number: %v", errs)
	}
	tid = 1
	c = load("iqn.2026-11.test:b")
	if errs := o.Apply(c); len(errs) != 1 || !errors.Is(errs[0], ErrNoTarget) || len(c.Targets) != 1 {
		t.Errorf("another target is deleted: %v", errs)
	}
}

// TestFilePortal stays closed over reloads, and is opened again.
func TestFilePortal(t *testing.T) {
	load := func() *config.Config {
		c := &config.Config{PortalGroups: []config.PortalGroup{{Tag: 5, Portals: []config.Portal{{Address: "192.0.2.1:3260"}}}}}
		c.SetDefaults()
		return c
	}
	var o *Overlay
	c := load()
	for _, tc := range []struct{ op, portals string }{{"delete", ""}, {"new", "192.0.2.1:3260 "}, {"delete", ""}} {
		next, err := o.Add(c, []Operation{{Mode: "portal", Op: tc.op, Portal: "192.0.2.1"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		o = next
		again := load()
		if errs := o.Apply(again); len(errs) > 0 {
			t.Errorf("after %s: %v", tc.op, errs)
		}
		for _, c := range []*config.Config{c, again} {
			portals := ""
			for _, p := range c.PortalGroups[0].Portals {
				portals += p.Address + " "
			}
			if len(c.PortalGroups) != 1 || c.PortalGroups[0].Tag != 5 || portals != tc.portals {
				t.Errorf("after %s: %v, want %s", tc.op, c.PortalGroups, tc.portals)
			}
		}
	}
	if len(o.Operations) != 1 {
		t.Errorf("kept: %v", o.Operations)
	}
}
