// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

// maskedYAML is a target whose LUN 2 is for one account alone. The accounts and
// the target stand in files of their own.
const maskedYAML = `
targets:
  - name: iqn.2026-11.test:masked
    auth:
      users: [{account: alice}, {user: bob, secret: looking-glass-1871, initiators: ["iqn.2026-11.test:b*"]}]
    luns:
      - {lun: 1, backend: ram, size: 1MiB}
      - {lun: 2, backend: ram, size: 2MiB, access: {accounts: [WHO]}}
`

// TestMask reloads a configuration with another view of the same disks, under
// two sessions.
func TestMask(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	main := file("gotgtd.yaml", "include: ['targets.d/*.yaml', accounts.yaml]\n")
	file("accounts.yaml", "accounts: [{name: alice, user: alice-in, secret: wonderland-1865}]\n")
	file("targets.d/1.yaml", strings.ReplaceAll(maskedYAML, "WHO", "alice-in"))
	d := startDaemon(t, "--config", main)
	address := d.status(t).Portals[0].Address.String()
	dial := func(name, user, secret string) (*initiator.Session, error) {
		s, err := initiator.Dial(t.Context(), initiator.Options{
			Address: address, TargetName: "iqn.2026-11.test:masked", InitiatorName: "iqn.2026-11.test:" + name,
			CHAP: initiator.CHAP{User: user, Secret: secret},
		})
		if err == nil {
			t.Cleanup(func() { s.Close() })
			err = s.Settle(t.Context(), initiator.LUN(1))
		}
		return s, err
	}
	alice, err := dial("a", "alice-in", "wonderland-1865")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := dial("b", "bob", "looking-glass-1871")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial("a", "bob", "looking-glass-1871"); err == nil {
		t.Error("an account is used under a name that it is not for")
	}
	luns := func(s *initiator.Session, want ...uint16) {
		t.Helper()
		got, err := s.ReportLUNs(t.Context())
		var list []uint64
		for _, n := range append([]uint16{0}, want...) {
			list = append(list, initiator.LUN(n))
		}
		if err != nil || !slices.Equal(got, list) {
			t.Errorf("REPORT LUNS: %x, %v; want %x", got, err, list)
		}
	}
	attention := func(s *initiator.Session, want uint16) {
		t.Helper()
		err := s.TestUnitReady(t.Context(), initiator.LUN(1))
		var status *initiator.StatusError
		var code uint16
		if errors.As(err, &status) {
			_, code = initiator.DecodeSense(status.Sense)
		}
		if code != want {
			t.Errorf("TEST UNIT READY: %v, want code %#x", err, want)
		}
	}
	luns(alice, 1, 2)
	luns(bob, 1)
	d.output(t, "upgrade")
	attention(alice, 0)
	attention(bob, 0)

	// Alice uses what is to be taken from her.
	if err := alice.Settle(t.Context(), initiator.LUN(2)); err != nil {
		t.Fatal(err)
	}
	var cmd initiator.Command
	if err := alice.Do(t.Context(), cmd.Read10(initiator.LUN(2), 0, 1, make([]byte, 512), 0)); err != nil {
		t.Fatal(err)
	}
	file("targets.d/1.yaml", strings.ReplaceAll(maskedYAML, "WHO", "bob"))
	if out := d.fail(t, "upgrade"); !strings.Contains(out, "LUN 2: it is in use: iqn.2026-11.test:a at ") {
		t.Errorf("upgrade prints:\n%s", out)
	}
	luns(alice, 1, 2)
	if out := d.output(t, "upgrade", "--force"); !strings.Contains(out, "LUN 2: masked from 1 session (iqn.2026-11.test:a at ") ||
		!strings.Contains(out, "LUN 2: comes into view of 1 session (iqn.2026-11.test:b at ") {
		t.Errorf("upgrade --force prints:\n%s", out)
	}
	const lunsChanged = 0x3f0e
	attention(alice, lunsChanged)
	attention(alice, 0)
	attention(bob, lunsChanged)
	luns(alice, 1)
	luns(bob, 1, 2)
	if err := alice.Do(t.Context(), cmd.Read10(initiator.LUN(2), 0, 1, make([]byte, 512), 0)); err == nil {
		t.Error("a disk that is masked now is read")
	}
	if l := d.status(t).Targets[0].LUNs; len(l[1].ACL) > 0 || !slices.Equal(l[2].ACL, []string{"account bob"}) {
		t.Errorf("the logical units are %+v", l)
	}
	if s := d.status(t).Sessions; len(s) != 2 || s[0].Account != "alice-in" || !slices.Equal(s[0].Masked, []uint16{2}) || len(s[1].Masked) > 0 {
		t.Errorf("the sessions are %+v", s)
	}
}
