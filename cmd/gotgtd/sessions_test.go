// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// TestSessionEnd lists sessions, ends one and keeps its initiator out, over an
// upgrade too.
func TestSessionEnd(t *testing.T) {
	d := startDaemon(t)
	address := d.status(t).Portals[0].Address.String()
	dial := func(name string) (*initiator.Session, error) {
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: address, TargetName: defaultTarget, InitiatorName: name})
		if err == nil {
			t.Cleanup(func() { s.Close() })
		}
		return s, err
	}
	const a, b = "iqn.2026-11.test:a", "iqn.2026-11.test:b"
	first, err := dial(a)
	if err != nil {
		t.Fatal(err)
	}
	other, err := dial(b)
	if err != nil {
		t.Fatal(err)
	}
	tsih := fmt.Sprint(first.Params().TSIH)
	list := d.output(t, "session", "list")
	if strings.Count(list, "\n") != 3 || !strings.Contains(list, "\n"+tsih+"     "+a) {
		t.Errorf("session list prints:\n%s", list)
	}
	if out := d.fail(t, "session", "end", "999"); !strings.Contains(out, "there is no session with TSIH 999; there are "+tsih+` ("`+a+`"), `) {
		t.Errorf("session end of another prints:\n%s", out)
	}
	want := fmt.Sprintf("session %s of %s (%s) has logged out\nits logins to the target are refused until ", tsih, a, defaultTarget)
	if out := d.output(t, "session", "end", tsih, "--reject-for", "1h"); !strings.HasPrefix(out, want) {
		t.Errorf("session end prints:\n%s", out)
	}
	<-first.Done()
	for range 2 {
		var refused *initiator.LoginError
		if _, err := dial(a); !errors.As(err, &refused) || refused.Status != pdu.ServiceUnavailable {
			t.Errorf("login of one that is rejected: %v", err)
		}
		if out := d.output(t, "sessions"); !strings.Contains(out, ": "+a+", target "+defaultTarget+"\n") || strings.Contains(out, "\n"+tsih+" ") {
			t.Errorf("sessions prints:\n%s", out)
		}
		d.output(t, "upgrade")
	}
	if err := other.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Errorf("the other session: %v", err)
	}
	out := d.output(t, "session", "end", fmt.Sprint(other.Params().TSIH), "--json")
	if !strings.Contains(out, `"logged_out": true`) || strings.Contains(out, "rejected_until") {
		t.Errorf("session end --json prints:\n%s", out)
	}
	if _, err := dial(b); err != nil {
		t.Errorf("login after a session was ended: %v", err)
	}
}
