// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
)

// file returns a file-backed logical unit, whose file is there.
func file(t *testing.T, dir string, n uint16, name string) config.LUN {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.LUN{Number: n, Path: path}
}

// units lists what a Server has: targets with their TIDs, and logical units.
func units(s *Server) (list []string) {
	for _, t := range s.Status().Targets {
		line := fmt.Sprintf("%s %d:", t.Name, t.TID)
		for _, l := range t.LUNs {
			if l.Type == "disk" {
				line += fmt.Sprintf(" %d=%s", l.LUN, filepath.Base(l.StorePath))
			}
		}
		list = append(list, line)
	}
	return list
}

// TestApply takes a Server from one configuration to others. What stays goes on; a disk moves
// from one target to another; what is refused changes nothing.
func TestApply(t *testing.T) {
	dir := t.TempDir()
	one, two, three := file(t, dir, 1, "one"), file(t, dir, 2, "two"), file(t, dir, 3, "three")
	s := embed(t, Options{})
	apply := func(force bool, targets ...config.Target) (*plan.Plan, error) {
		return s.Apply(t.Context(), &config.Config{Targets: targets}, force)
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, units(s)); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	must := func(p *plan.Plan, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a := func(luns ...config.LUN) config.Target { return config.Target{Name: "iqn.2026-11.test:A", LUNs: luns} }
	b := func(luns ...config.LUN) config.Target { return config.Target{Name: iqnB, LUNs: luns} }

	must(apply(false, a(one, two)))
	expect("at first", iqnA+" 1: 1=one 2=two")
	address := listen(t, s)
	s.Serve()
	session, err := dialTarget(t, address, iqnA)
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}

	must(apply(false, b(two), a(one, three)))
	expect("a disk has moved, and one is new", iqnA+" 1: 1=one 3=three", iqnB+" 2: 2=two")
	if luns, err := session.ReportLUNs(t.Context()); err != nil || len(luns) != 3 {
		t.Errorf("the logical units are %v, %v", luns, err)
	}
	if _, err := session.Inquiry(t.Context(), initiator.LUN(3), false, 0, 36); err != nil { // or it knows nothing of the disk
		t.Error(err)
	}
	if err := session.Settle(t.Context(), initiator.LUN(3)); err != nil {
		t.Errorf("the new disk: %v", err)
	}
	if p, err := apply(false, b(two), a(one, three)); err != nil || !p.Empty() {
		t.Errorf("once more: %v, %v", p.Lines(), err)
	}

	readOnly := one
	readOnly.ReadOnly = true
	missing := config.LUN{Number: 4, Path: filepath.Join(dir, "missing")}
	for what, test := range map[string]struct {
		targets []config.Target
		want    string
	}{
		"another setting":    {[]config.Target{b(two), a(readOnly, three)}, iqnA + " LUN 1 needs an upgrade: read-only true"},
		"no such file":       {[]config.Target{b(), a(one, three, missing)}, "missing"},
		"no such backend":    {[]config.Target{a(config.LUN{Number: 1, Backend: "tape"})}, "tape"},
		"a hidden disk":      {[]config.Target{b(two), a(one, three, config.LUN{Number: 5, Backend: "ram", Size: 1 << 20, Access: config.Access{Initiators: []string{"iqn.x:y"}}})}, "not everybody sees it"},
		"an alias":           {[]config.Target{b(two), {Name: iqnA, Alias: "x", LUNs: []config.LUN{one, three}}}, "needs an upgrade: alias"},
		"the TID of another": {[]config.Target{b(two), {Name: iqnA, TID: 2, LUNs: []config.LUN{one, three}}}, "TID"},
	} {
		if _, err := apply(true, test.targets...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", what, err, test.want)
		}
		expect(what, iqnA+" 1: 1=one 3=three", iqnB+" 2: 2=two")
	}
	if _, err := apply(true, b(), a(one, three, missing)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}

	var cmd initiator.Command
	if err := session.Do(t.Context(), cmd.Read16(initiator.LUN(1), 0, 1, make([]byte, 512), 0)); err != nil {
		t.Fatal(err)
	}
	var refused *plan.RefusedError
	if p, err := apply(false, b(two), a(three)); !errors.As(err, &refused) || p.Empty() {
		t.Errorf("a disk in use: %v", err)
	}
	expect("a disk in use", iqnA+" 1: 1=one 3=three", iqnB+" 2: 2=two")
	must(apply(true, b(two), a(three)))
	expect("a disk in use, forced", iqnA+" 1: 3=three", iqnB+" 2: 2=two")

	must(s.Apply(t.Context(), nil, true))
	<-session.Done()
	expect("nothing")
}
