// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// TestTotals: what becomes of logins and connections is counted once each, and goes on in the
// process that takes over.
func TestTotals(t *testing.T) {
	r := newRig(t, Limits{}, twoAccounts())
	alice := initiator.Options{CHAP: chapOf("alice", alicesSecret)}
	stays := r.dial(alice)
	if _, err := stays.TaskManagement(t.Context(), pdu.LogicalUnitReset, initiator.LUN(1), nil); err != nil {
		t.Fatal(err)
	}
	r.refused(initiator.Options{CHAP: chapOf("alice", bobsSecret)}, pdu.AuthenticationFailure)
	other := alice
	other.Address, other.TargetName = r.address(), "iqn.2026-11.test:is-not-there"
	if _, err := initiator.Dial(t.Context(), other); err == nil {
		t.Fatal("there is a target that there is not")
	}
	leaves := r.dial(initiator.Options{CHAP: chapOf("bob", bobsSecret), ISID: pdu.ISID{0x80, 7}})
	if err := leaves.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	halfway := r.raw()
	halfway.send(&pdu.LoginRequest{Continue: true, CSG: pdu.SecurityNegotiation, ISID: pdu.ISID{0x80, 9}, InitiatorTaskTag: 1, DataLength: 16}, []byte("InitiatorName=iq"))
	halfway.receive()
	halfway.c.Close()
	r.until("one connection is left", func() bool { return len(r.node.connList()) == 1 })

	want := tally.Totals{
		Logins: []tally.Login{
			{Reason: "incomplete", Count: 1},
			{Reason: "target_not_found", Count: 1},
			{Target: testTarget, Count: 2},
			{Target: testTarget, Reason: "authentication_failed", Count: 1},
		},
		Closed:       map[string]uint64{"logout": 1, "login_failed": 2, "closed_by_initiator": 1},
		Management:   map[string]uint64{"logical_unit_reset": 1},
		DigestErrors: map[string]uint64{},
	}
	if diff := cmp.Diff(want, r.node.Totals()); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	state, socks := r.freeze(t)
	r.move(t, state, socks)
	if diff := cmp.Diff(want, r.node.Totals()); diff != "" {
		t.Errorf("in the successor (-want +got):\n%s", diff)
	}
}

// TestDigestErrorsAreCounted: a damaged data segment costs a PDU, a damaged header the connection.
func TestDigestErrorsAreCounted(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	for _, tc := range []struct{ key, what string }{{"DataDigest=CRC32C", "data"}, {"HeaderDigest=CRC32C", "header"}} {
		c := r.raw()
		if _, err := c.c.Write(loginPDU(tc.key)); err != nil {
			t.Fatal(err)
		}
		c.receive()
		ping := encode(&pdu.NOPOut{Immediate: true, InitiatorTaskTag: 3, CmdSN: 1, DataLength: 4}, []byte("ping"))
		if _, err := c.c.Write(append(ping, "not a digest"...)[:len(ping)+pdu.DigestLen]); err != nil {
			t.Fatal(err)
		}
		r.until("the "+tc.what+" digest error is counted", func() bool { return r.node.Totals().DigestErrors[tc.what] == 1 })
	}
	if n := r.node.Totals().Closed["header_digest"]; n != 1 {
		t.Errorf("%d connections have ended for it, want 1", n)
	}
}

// TestWorkers: there are as many as configured, and none is busy when there is nothing to do.
func TestWorkers(t *testing.T) {
	s := newSlowUnmap(t)
	if limit, busy := s.r.node.Workers(); limit != (Options{}).withDefaults().Workers || busy != 1 {
		t.Errorf("%d workers, %d busy, while one command is executed", limit, busy)
	}
	s.release <- struct{}{}
	s.release <- struct{}{}
	s.statuses(1)
	s.r.until("no worker is busy", func() bool { _, busy := s.r.node.Workers(); return busy == 0 })
}
