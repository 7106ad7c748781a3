// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

const announcedTarget = "iqn.2026-11.test:announced"

// announcedYAML listens on all of IPv4, as behind address translation. MORE is the
// rest of the portal.
const announcedYAML = `
portal-groups:
  - tag: 7
    portals: [{address: 0.0.0.0:0MORE}]
targets:
  - {name: iqn.2026-11.test:announced, luns: [{lun: 1, backend: ram, size: 1MiB}]}
`

// TestAnnounce gives a portal another address in discovery, under a session,
// and logs in there.
func TestAnnounce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gotgtd.yaml")
	write := func(more string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Replace(announcedYAML, "MORE", more, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	d := startDaemonAs(t, func(c *exec.Cmd) {
		i := slices.Index(c.Args, "--listen")
		c.Args = slices.Delete(c.Args, i, i+2)
	}, "--config", file)
	port := d.status(t).Portals[0].Address.Port()
	at := fmt.Sprintf("127.0.0.1:%d", port)
	session := dialAt(t, at)
	if got := discover(t, at); !slices.Equal(got, []string{at}) {
		t.Errorf("discovery tells %v, want %s", got, at)
	}
	outside := fmt.Sprintf("127.0.0.9:%d", port) // the same host by another name
	write(fmt.Sprintf(", announce: ['%s', storage.example.com]", outside))
	line := fmt.Sprintf("~ portal 0.0.0.0:0 of group 7: announced as %s, storage.example.com:3260 instead of under its own address", outside)
	if out := d.output(t, "plan"); !strings.Contains(out, line) || strings.Count(out, "\n") != 1 {
		t.Errorf("the plan is:\n%s\nwant %q", out, line)
	}
	for range 2 { // a second upgrade without a change keeps it
		d.output(t, "upgrade")
		got := discover(t, at)
		if !slices.Equal(got, []string{outside, "storage.example.com:3260"}) {
			t.Fatalf("discovery tells %v", got)
		}
		dialAt(t, got[0])
		if err := session.Settle(t.Context(), initiator.LUN(1)); err != nil {
			t.Errorf("the session from before: %v", err)
		}
		if out := d.output(t, "plan"); out != "nothing changes\n" {
			t.Errorf("the plan is:\n%s", out)
		}
	}
	st := d.status(t)
	if p := st.Portals; len(p) != 1 || len(p[0].Announce) != 2 || p[0].Announce[0] != outside {
		t.Errorf("show has %+v", p)
	}
	if out := d.output(t, "config", "dump"); !strings.Contains(out, "announce:\n") || !strings.Contains(out, outside) {
		t.Errorf("the dump is:\n%s", out)
	}
	stopOther(t, st.PID)
}

// dialAt logs in at an address, for as long as the test runs.
func dialAt(t *testing.T, address string) *initiator.Session {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: address, TargetName: announcedTarget, InitiatorName: "iqn.2026-11.test:i"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	return s
}

// discover asks at an address where the target is.
func discover(t *testing.T, address string) []string {
	t.Helper()
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: address, Discovery: true, InitiatorName: "iqn.2026-11.test:i"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	portals, err := s.SendTargets(t.Context(), "All")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, p := range portals {
		if p.Target != announcedTarget || p.Group != "7" {
			t.Errorf("discovery tells %+v", p)
		}
		list = append(list, p.Address)
	}
	return list
}
