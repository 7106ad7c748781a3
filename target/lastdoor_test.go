// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/storage"
)

// readBlock reads the first block of LUN 2.
func readBlock(t *testing.T, s *initiator.Session) error {
	t.Helper()
	var c initiator.Command
	return s.Do(t.Context(), c.Read10(initiator.LUN(2), 0, 1, make([]byte, 512), 0))
}

// A successor whose configuration takes a disk away, or a session's right to it, or can't
// open it, is refused in the pause where no plan has seen it coming, since the session began to read
// after the plan was made; a file that the successor has made is gone again. An idle
// disk goes, and by force everything does.
func TestLastDoor(t *testing.T) {
	less := func(c *config.Config, _ string) { c.Targets[0].LUNs = c.Targets[0].LUNs[:1] }
	gone := func(c *config.Config, path string) {
		c.IgnoreErrors = true
		if err := os.Remove(path); err != nil {
			panic(err)
		}
	}
	narrow := func(c *config.Config, _ string) {
		c.Targets[0].Access = config.Access{Initiators: []string{"iqn.2026-11.test:another"}}
	}
	mask := func(c *config.Config, _ string) {
		c.Targets[0].LUNs = slices.Clone(c.Targets[0].LUNs)
		c.Targets[0].LUNs[1].Access = config.Access{Accounts: []string{"another"}}
		c.Targets[0].Auth.Users = []config.Account{{User: "another", Secret: "correct-horse-1"}}
	}
	group := func(c *config.Config, _ string) { c.Targets[0].PortalGroups = []uint16{7} }
	for _, tc := range []struct {
		what        string
		change      func(c *config.Config, path string)
		want        any // the error, nil for none
		idle, force bool
		only        []plan.Part
	}{
		{what: "nothing", change: func(*config.Config, string) {}},
		{what: "a disk less", change: less, want: new(*InUseError)},
		{what: "a target less", change: func(c *config.Config, _ string) { c.Targets[0].Name += "-other" }, want: new(*InUseError)},
		{what: "an idle disk less", change: less, idle: true},
		{what: "a disk less by force", change: less, force: true},
		{what: "access narrowed", change: narrow, want: new(*DismissedError)},
		{what: "access narrowed for an idle session", change: narrow, idle: true},
		{what: "access narrowed by force", change: narrow, force: true},
		{what: "offline", change: func(c *config.Config, _ string) { c.Targets[0].Offline = true }, want: new(*DismissedError)},
		{what: "a portal group less", change: group, want: new(*DismissedError)},
		{what: "a disk offline", change: func(c *config.Config, _ string) {
			c.Targets[0].LUNs = slices.Clone(c.Targets[0].LUNs)
			c.Targets[0].LUNs[1].Offline = true
		}, want: new(*InUseError)},
		{what: "masked", change: mask, want: new(*InUseError)},
		{what: "masked from an idle session", change: mask, idle: true},
		{what: "masked by force", change: mask, force: true},
		{what: "a disk less by force for it", change: less, force: true, only: []plan.Part{{Target: lateName, LUN: new(uint16(2))}}},
		{what: "a disk less by force for its target", change: less, force: true, only: []plan.Part{{Target: lateName}}},
		{what: "a disk less by force for another", change: less, want: new(*InUseError), force: true, only: []plan.Part{{Target: lateName, LUN: new(uint16(1))}, {Target: "iqn.2026-11.test:fresh"}}},
		{what: "access narrowed by force for its target", change: narrow, force: true, only: []plan.Part{{Target: lateName}}},
		{what: "access narrowed by force for a disk", change: narrow, want: new(*DismissedError), force: true, only: []plan.Part{{Target: lateName, LUN: new(uint16(2))}}},
		{what: "masked by force for it", change: mask, force: true, only: []plan.Part{{Target: lateName, LUN: new(uint16(2))}}},
		{what: "a file less by force for another", change: gone, want: new(*LostError), force: true, only: []plan.Part{{Target: lateName, LUN: new(uint16(1))}}},
		{what: "a file less", change: gone, want: new(*LostError)},
		{what: "an idle file less", change: gone, want: new(*LostError), idle: true},
		{what: "a file less by force", change: gone, force: true},
	} {
		t.Run(tc.what, func(t *testing.T) {
			dir := t.TempDir()
			path, fresh := filepath.Join(dir, "disk.img"), filepath.Join(dir, "fresh.img")
			makeFile(t, path, make([]byte, 1<<20))
			conf := lateConfig(t, path)
			clock := time.Now
			if tc.idle {
				clock = func() time.Time { return time.Now().Add(-plan.RecentIO) }
			}
			old, err := New(Options{Config: conf, Clock: clock, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close() // without its file it can't flush
			session := dialLate(t, old)
			changed := *conf
			changed.Targets = []config.Target{conf.Targets[0]}
			tc.change(&changed, path)
			changed.Targets = append(changed.Targets, config.Target{Name: "iqn.2026-11.test:fresh", TID: 7, LUNs: []config.LUN{{Number: 1, Options: storage.Options{Path: fresh, Size: 1 << 20, Create: true}}}})
			changed.PortalGroups = []config.PortalGroup{
				{Tag: 1, Portals: []config.Portal{{Address: "127.0.0.1:3260"}}}, {Tag: 7, Portals: []config.Portal{{Address: "127.0.0.1:3267"}}},
			}
			changed.SetDefaults()
			if refused := strings.Join(plan.Make(old.Running(), &changed, Look).Refused(), "\n"); refused != "" && !strings.Contains(refused, "would not be ready") {
				t.Errorf("before the first read the plan refuses:\n%s", refused)
			}
			if err := readBlock(t, session); err != nil {
				t.Fatal(err)
			}
			if p := plan.Make(old.Running(), &changed, Look); len(p.Refused()) == 0 && tc.want != nil {
				t.Errorf("after the first read the plan is:\n%s", strings.Join(p.Lines(), "\n"))
			}
			next, err := New(Options{Config: &changed, Successor: true, Force: tc.force, ForceFor: tc.only, Clock: clock, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			err = tryHandOver(t, old, next)
			if tc.want == nil && err != nil || tc.want != nil && !errors.As(err, tc.want) {
				t.Errorf("the handover: %v, want %T", err, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), "(TSIH 1)") {
				t.Errorf("no session is named: %v", err)
			}
			if err := next.Close(); err != nil {
				t.Error(err)
			}
			if _, statErr := os.Stat(fresh); (err != nil) != errors.Is(statErr, fs.ErrNotExist) {
				t.Errorf("the file that the successor has made: %v, after %v", statErr, err)
			}
			if err != nil && readBlock(t, session) != nil {
				t.Error("the session does not go on")
			}
		})
	}
}

// A file that could not be opened any more and comes back is what it was; another one in its
// place is told, and has to be asked by INQUIRY what it is.
func TestLateStoreIsAnother(t *testing.T) {
	for _, another := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "disk.img")
		makeFile(t, path, make([]byte, 1<<20))
		conf := lateConfig(t, path)
		conf.IgnoreErrors = true
		old, _ := lateServer(t, Options{Config: conf})
		session := dialLate(t, old)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		opened := make(chan struct{}, 1)
		next, _ := lateServer(t, Options{
			Config: conf, Successor: true, Force: true, RetryInterval: time.Millisecond, Opened: func() { opened <- struct{}{} },
		})
		handOver(t, old, next)
		if err := old.Close(); err != nil { // as the process ends, and its lock with it
			t.Error(err)
		}
		if id := next.Running().Targets[0].LUNs[1].Store; id == "" {
			t.Error("the store that was served is forgotten")
		}
		next.Serve()
		if another {
			makeFile(t, path, make([]byte, 1<<20))
		} else if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		waitOpened(t, opened)
		var codes []uint16
		for range 3 {
			_, code := ready(t, session, 2)
			codes = append(codes, code)
		}
		if another != (codes[1] == 0x3f03 && codes[2] == 0x2500) || codes[0] != 0x2800 {
			t.Errorf("another file %v: sense codes %x", another, codes)
		}
		if _, err := session.Inquiry(t.Context(), initiator.LUN(2), false, 0, 96); err != nil {
			t.Error(err)
		}
		if err := readBlock(t, session); err != nil {
			t.Errorf("after INQUIRY: %v", err)
		}
	}
}
