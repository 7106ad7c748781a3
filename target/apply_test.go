// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/storage"
)

// file returns a file-backed logical unit, whose file is there.
func file(t *testing.T, dir string, n uint16, name string) config.LUN {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.LUN{Number: n, Options: storage.Options{Path: path}}
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
	missing := config.LUN{Number: 4, Options: storage.Options{Path: filepath.Join(dir, "missing")}}
	for what, test := range map[string]struct {
		targets []config.Target
		want    string
	}{
		"another setting":    {[]config.Target{b(two), a(readOnly, three)}, iqnA + " LUN 1 needs an upgrade: read-only true"},
		"no such file":       {[]config.Target{b(), a(one, three, missing)}, "missing"},
		"no such backend":    {[]config.Target{a(config.LUN{Number: 1, Backend: "tape"})}, "tape"},
		"a hidden disk":      {[]config.Target{b(two), a(one, three, config.LUN{Number: 5, Backend: "ram", Options: storage.Options{Size: 1 << 20}, Access: config.Access{Initiators: []string{"iqn.x:y"}}})}, "not everybody sees it"},
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

// TestApplyWhileInitiatorsLogOut changes a Server from which a target is being removed whose
// session does not end: everything goes on but what needs the target's name and its disks, and
// Shutdown ends it.
func TestApplyWhileInitiatorsLogOut(t *testing.T) {
	dir := t.TempDir()
	one, two := file(t, dir, 1, "one"), file(t, dir, 1, "two")
	held, release := make(chan struct{}), make(chan struct{})
	s := embed(t, Options{
		Config:    &config.Config{Targets: []config.Target{{Name: iqnA, LUNs: []config.LUN{one}}}},
		LoggedOut: func(Login, error) { close(held); <-release },
	})
	address := listen(t, s)
	s.Serve()
	if _, err := dialTarget(t, address, iqnA); err != nil {
		t.Fatal(err)
	}
	const iqnC = "iqn.2026-11.test:c"
	applied := make(chan error, 1)
	go func() {
		_, err := s.Apply(context.WithoutCancel(t.Context()), &config.Config{Targets: []config.Target{{Name: iqnB, LUNs: []config.LUN{one}}}}, true)
		applied <- err
	}()
	<-held

	if err := s.AddTarget(&config.Target{Name: iqnC, LUNs: []config.LUN{two}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Detach(iqnC, 1); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff([]string{iqnC + " 2:"}, units(s)); d != "" {
		t.Errorf("the number of the target to come is kept (-want +got):\n%s", d)
	}
	if err := s.AddTarget(&config.Target{Name: iqnB}, nil); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a target that is to come: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Apply(ended, nil, true); !errors.Is(err, context.Canceled) {
		t.Errorf("another Apply: %v", err)
	}
	again := make(chan error, 1)
	go func() { again <- s.AddTarget(&config.Target{Name: iqnA}, nil) }()
	select {
	case err := <-applied:
		t.Fatalf("the session has not ended, and Apply has: %v", err)
	case err := <-again:
		t.Fatalf("the old target has not gone, and there is a new one of its name: %v", err)
	default:
	}
	close(release)
	if err := errors.Join(<-applied, <-again); err != nil {
		t.Fatal(err)
	}
	if got := units(s); len(got) != 3 || !strings.Contains(strings.Join(got, "\n"), iqnB+" 1: 1=one") {
		t.Errorf("in the end: %q", got)
	}
}

// TestShutdownDuringApply closes a Server from which a target is being removed: Close returns
// when its disks are closed, and Apply says that the rest was not done.
func TestShutdownDuringApply(t *testing.T) {
	dir := t.TempDir()
	one := file(t, dir, 1, "one")
	conf := &config.Config{Targets: []config.Target{{Name: iqnA, LUNs: []config.LUN{one}}}}
	s := embed(t, Options{Config: conf})
	address := listen(t, s)
	s.Serve()
	held, release := make(chan struct{}), make(chan struct{})
	var asked sync.Once
	session, err := initiator.Dial(t.Context(), initiator.Options{
		Address: address, TargetName: iqnA, OnAsync: func(pdu.AsyncMessage, []byte) { asked.Do(func() { close(held) }); <-release },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	defer close(release)
	applied := make(chan error, 1)
	go func() {
		_, err := s.Apply(context.WithoutCancel(t.Context()), &config.Config{Targets: []config.Target{{Name: iqnB, LUNs: []config.LUN{one}}}}, true)
		applied <- err
	}()
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	next := embed(t, Options{Config: conf}) // opens the disk
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if err := <-applied; !errors.Is(err, ErrClosed) {
		t.Errorf("Apply: %v", err)
	}
}
