// SPDX-License-Identifier: Apache-2.0

package tally

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
)

// TestReasons: each error is counted under a reason of the list, however it is wrapped, and one
// that nobody knows under "other".
func TestReasons(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{Endingf(NOPTimeout, "no answer for %d s", 3), NOPTimeout},
		{fmt.Errorf("session 1: %w", Endingf(Shutdown, "x")), Shutdown},
		{Endingf("iqn.2026-11.test:a", "x"), other},
		{fmt.Errorf("initiator: %w", login.Errorf(pdu.TargetNotFound, "x")), LoginFailed},
		{stream.ErrHeaderDigest, HeaderDigest},
		{stream.FormatErrorf("opcode 0x3f"), ProtocolError},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, NetworkError},
		{io.ErrClosedPipe, other},
		{nil, other},
	} {
		if got := reasonOf(tc.err); got != tc.want {
			t.Errorf("%v is counted as %q, want %q", tc.err, got, tc.want)
		}
		if !slices.Contains(Reasons(), tc.want) {
			t.Errorf("%q is not among the reasons", tc.want)
		}
	}
}

// TestRefusals: each status that a login can be refused with has a reason.
func TestRefusals(t *testing.T) {
	for status := pdu.InitiatorError; status <= pdu.OutOfResources; status++ {
		if status > pdu.InvalidDuringLogin && status < pdu.TargetError {
			continue
		}
		if reason := Refusal(login.Errorf(status, "x")); !slices.Contains(Refusals(), reason) || reason == "initiator_error" && status != pdu.InitiatorError {
			t.Errorf("status %#04x has the reason %q", uint16(status), reason)
		}
	}
	if got := Refusal(errors.New("x")); got != "initiator_error" {
		t.Errorf("an error that is no login.Error is counted as %q", got)
	}
}

// TestCarried: what another process has counted is added to what this one has.
func TestCarried(t *testing.T) {
	var old, next Tally
	for range 2 {
		old.Login("iqn.2026-11.test:a", "")
	}
	old.Login("", "target_not_found")
	old.Closed(stream.ErrHeaderDigest)
	old.DataDigest()
	old.Management(pdu.LogicalUnitReset)
	old.Management(99)
	next.Login("iqn.2026-11.test:a", "")
	next.Add(nil)
	b, err := cbor.Marshal(old.Load())
	if err != nil {
		t.Fatal(err)
	}
	var told Totals
	if err := cbor.Unmarshal(b, &told); err != nil {
		t.Fatal(err)
	}
	next.Add(&told)
	want := Totals{
		Logins:       []Login{{"", "target_not_found", 1}, {"iqn.2026-11.test:a", "", 3}},
		Closed:       map[string]uint64{HeaderDigest: 1},
		Management:   map[string]uint64{"logical_unit_reset": 1, "other": 1},
		DigestErrors: map[string]uint64{"header": 1, "data": 1},
	}
	if diff := cmp.Diff(want, next.Load()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
