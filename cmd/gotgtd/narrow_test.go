// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/overlay"
)

const narrowedConfig = `targets:
  - name: iqn.2026-11.test:a
    access: {initiators: ["iqn.2026-11.test:used", "iqn.2026-11.test:other"], accounts: [bob]}
    auth:
      users: [{user: bob, secret: looking-glass-1871}, {user: eve, secret: looking-glass-1872}]
    luns:
      - {lun: 1, backend: ram, size: 1MiB}
`

// TestNarrowedInUse takes a target and a logical unit away from the one session that has just read, by
// every way there is: each is refused and changes nothing, and --force does it.
func TestNarrowedInUse(t *testing.T) {
	d, file := startConfigured(t, "gotgtd.yaml", narrowedConfig)
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	const a, used, other = "iqn.2026-11.test:a", "iqn.2026-11.test:used", "iqn.2026-11.test:other"
	dial := func(name, user, secret string) *initiator.Session {
		t.Helper()
		s, err := initiator.Dial(t.Context(), initiator.Options{
			Address: d.status(t).Portals[0].Address.String(), TargetName: a, InitiatorName: name, CHAP: initiator.CHAP{User: user, Secret: secret},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if err := s.Settle(t.Context(), initiator.LUN(1)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	read := func(s *initiator.Session) error {
		var cmd initiator.Command
		return s.Do(t.Context(), cmd.Read10(initiator.LUN(1), 0, 1, make([]byte, 512), 0))
	}
	idle := dial(other, "bob", "looking-glass-1871")
	s := dial(used, "eve", "looking-glass-1872")
	if err := read(s); err != nil {
		t.Fatal(err)
	}
	narrow := strings.Replace(narrowedConfig, `"iqn.2026-11.test:used", `, "", 1)
	proposal := filepath.Join(filepath.Dir(file), "proposal.yaml")
	if err := os.WriteFile(proposal, []byte(narrow), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(out string) {
		t.Helper()
		for _, want := range []string{"it is in use: " + used + " at ", "(TSIH ", "gotgtd session end TSIH", "--force"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
		for _, line := range strings.Split(out, "\n") {
			if _, users, _ := strings.Cut(line, "it is in use: "); strings.Contains(users, other) {
				t.Errorf("the other session is named:\n%s", out)
			}
		}
		if err := read(s); err != nil {
			t.Errorf("the session does not go on: %v", err)
		}
	}
	for _, args := range [][]string{
		{"access", "remove", a, used}, {"access", "add", a, "--lun", "1", other}, {"apply", "-f", proposal}, {"plan", "--config", proposal},
		{"target", "set", a, "offline=true"},
	} {
		refused(d.fail(t, args...))
		wantText(t, file, narrowedConfig)
	}
	// The account of a session that goes on: it is told that this is its last login.
	if out := d.output(t, "user", "remove", a, "eve"); !strings.Contains(out, "goes on; new values count at the next login, which is refused to 1 session whose account is gone") {
		t.Errorf("user remove prints:\n%s", out)
	}
	if err := read(s); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte(narrow), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(d.fail(t, "upgrade"))
	api := control.NewClient(d.socket)
	if err := os.WriteFile(file, []byte(narrowedConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := api.Change(t.Context(), overlay.Operation{Mode: "target", Op: "unbind", TID: 1, Initiator: used}); err == nil {
		t.Error("tgtadm takes the target away from a session that uses it")
	}
	d.output(t, "access", "remove", a, used, "--force")
	gone(t, s)
	if err := read(idle); err != nil {
		t.Errorf("the session of another initiator: %v", err)
	}
	// What says that a disk or a target is to be offline, and nothing else, is done, as tgt does it.
	d.fail(t, "lun", "set", a, "1", "offline=true")
	online := func(value string) overlay.Operation {
		return overlay.Operation{Mode: "logicalunit", Op: "update", TID: 1, LUN: 1, Params: []overlay.Param{{Name: "online", Value: value}}}
	}
	if err := api.Change(t.Context(), online("0")); err != nil || read(idle) == nil {
		t.Errorf("tgtadm takes a disk offline: %v", err)
	}
	if err := errors.Join(api.Change(t.Context(), online("1")), read(idle)); err != nil {
		t.Errorf("the disk is online again: %v", err)
	}
	if err := api.Change(t.Context(), overlay.Operation{Mode: "target", Op: "update", TID: 1, Params: []overlay.Param{{Name: "state", Value: "offline"}}}); err != nil {
		t.Error(err)
	}
	gone(t, idle)
	stopOther(t, d.status(t).PID)
}

// gone waits for the end of a session.
func gone(t *testing.T, s *initiator.Session) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(20 * time.Second):
		t.Error("the session goes on")
	}
}
