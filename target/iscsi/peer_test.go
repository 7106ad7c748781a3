// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

const (
	alicesSecret = "wonderland-1865"
	bobsSecret   = "looking-glass-1871"
)

func twoAccounts() Auth {
	return Auth{Users: []Account{{User: "alice", Secret: alicesSecret}, {User: "bob", Secret: bobsSecret}}}
}

// try logs in and returns what came of it.
func (r *rig) try(o initiator.Options) (*initiator.Session, error) {
	r.t.Helper()
	o.Address, o.TargetName = r.address(), testTarget
	s, err := initiator.Dial(r.t.Context(), o)
	if err == nil {
		r.t.Cleanup(func() { s.Close() })
	}
	return s, err
}

// refused logs in and wants a status.
func (r *rig) refused(o initiator.Options, want pdu.LoginStatus) {
	r.t.Helper()
	_, err := r.try(o)
	var status *initiator.LoginError
	if !errors.As(err, &status) || status.Status != want {
		r.t.Errorf("login: %v, want status %#04x", err, uint16(want))
	}
}

func chapOf(user, secret string) initiator.CHAP { return initiator.CHAP{User: user, Secret: secret} }

// TestBoundAccount has an account that is for some initiators: to others it is
// as one with another secret.
func TestBoundAccount(t *testing.T) {
	auth := twoAccounts()
	auth.Users[0].Binds = func(name string) bool { return strings.HasSuffix(name, ":host-a") }
	r := newRig(t, Limits{}, auth)
	o := initiator.Options{InitiatorName: "iqn.2026-11.test:host-a", CHAP: chapOf("alice", alicesSecret)}
	r.dial(o)
	o.InitiatorName = "iqn.2026-11.test:host-b"
	r.refused(o, pdu.AuthenticationFailure)
	o.CHAP = chapOf("alice", "not the secret of alice")
	r.refused(o, pdu.AuthenticationFailure)
	o.CHAP = chapOf("bob", bobsSecret)
	r.dial(o)
}

// TestReinstatementTakesTheAccount has one account try to end, and to join, the
// session of another, before and after a handoff.
func TestReinstatementTakesTheAccount(t *testing.T) {
	r := newRig(t, Limits{}, twoAccounts())
	o := initiator.Options{ISID: pdu.ISID{0x80, 1, 2, 3, 4, 5}, CHAP: chapOf("alice", alicesSecret)}
	first := r.dial(o)
	other := o
	other.CHAP = chapOf("bob", bobsSecret)
	for range 2 {
		r.refused(other, pdu.AuthorizationFailure)
		if err := first.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
			t.Fatalf("another account has ended the session: %v", err)
		}
		state, socks := r.freeze(t)
		r.move(t, state, socks)
	}
	r.dial(o)
	<-first.Done()
}

// addLUN adds a disk.
func addLUN(t *testing.T, target *Target, n uint16) {
	t.Helper()
	other, _ := newDisk(t, Limits{}, Auth{})
	lu, err := other.Device.Detach(1)
	if err == nil {
		err = target.Device.Attach(n, lu)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestMaskedLUN looks at two disks of which one is for alice alone, and exchanges
// them in a handoff.
func TestMaskedLUN(t *testing.T) {
	r := newRig(t, Limits{}, twoAccounts())
	addLUN(t, r.target, 2)
	mask := func(target *Target, n uint16) {
		target.Masked = func(p Peer) []uint16 {
			if p.Account == "alice" && p.Addr.IsLoopback() && p.Initiator != "" {
				return nil
			}
			return []uint16{n}
		}
	}
	mask(r.target, 2)
	r.node.SetTargets([]*Target{r.target}, announced, Auth{})
	alice, bob := r.dial(initiator.Options{CHAP: chapOf("alice", alicesSecret)}), r.dial(initiator.Options{CHAP: chapOf("bob", bobsSecret)})
	luns := func(s *initiator.Session, want ...uint64) {
		t.Helper()
		if got, err := s.ReportLUNs(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("REPORT LUNS: %x, %v, want %x", got, err, want)
		}
	}
	two := initiator.LUN(2)
	luns(alice, initiator.LUN(1), two)
	luns(bob, initiator.LUN(1))
	if data, err := bob.Inquiry(t.Context(), two, false, 0, 36); err != nil || data[0] != 0x7f {
		t.Errorf("INQUIRY: %x, %v", data, err)
	}
	absent := func(s *initiator.Session, lun uint64) {
		t.Helper()
		err := s.TestUnitReady(t.Context(), lun)
		var status *initiator.StatusError
		if !errors.As(err, &status) || !strings.Contains(err.Error(), "25") {
			t.Errorf("TEST UNIT READY: %v", err)
		}
		for _, f := range []pdu.TaskFunction{pdu.AbortTaskSet, pdu.ClearTaskSet, pdu.LogicalUnitReset} {
			if code, err := s.TaskManagement(t.Context(), f, lun, nil); err != nil || code != pdu.LUNDoesNotExist {
				t.Errorf("function %v: response %d, %v", f, code, err)
			}
		}
	}
	absent(bob, two)
	if err := alice.Settle(t.Context(), two); err != nil {
		t.Error(err)
	}
	if code, err := alice.TaskManagement(t.Context(), pdu.LogicalUnitReset, two, nil); err != nil || code != pdu.FunctionComplete {
		t.Errorf("LOGICAL UNIT RESET: %d, %v", code, err)
	}

	r.changed = func(target *Target) { mask(target, 1) } // and LUN 2 is gone
	state, socks := r.freeze(t)
	r.move(t, state, socks)
	err := bob.TestUnitReady(t.Context(), initiator.LUN(1))
	if err == nil {
		t.Error("a disk that is masked now is ready")
	}
	absent(bob, initiator.LUN(1))
	luns(bob)
	if err := alice.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Error(err)
	}
}

// TestMaskUnchanged hands over with a mask that stays: nothing is told.
func TestMaskUnchanged(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	mask := func(target *Target) { target.Masked = func(Peer) []uint16 { return []uint16{9} } }
	mask(r.target)
	r.node.SetTargets([]*Target{r.target}, announced, Auth{})
	r.changed = mask
	s := r.dial(initiator.Options{})
	state, socks := r.freeze(t)
	r.move(t, state, socks)
	if err := s.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Errorf("TEST UNIT READY: %v", err)
	}
}

// TestEnd ends sessions: of an initiator that logs out when asked to, and of one that
// does not hear. The one is rejected afterwards, over a handoff too.
func TestEnd(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	s := r.dial(initiator.Options{})
	if _, err := r.node.End(t.Context(), 999, time.Second, 0); !errors.Is(err, ErrNoSession) {
		t.Errorf("a session that is not there: %v", err)
	}
	e, err := r.node.End(t.Context(), s.Params().TSIH, time.Minute, time.Hour)
	if want := (Ending{Initiator: "iqn.2026-11.io.gotgtd:initiator", Target: testTarget, LoggedOut: true}); err != nil || e != want {
		t.Errorf("%+v, %v, want %+v", e, err, want)
	}
	deaf := r.raw()
	tsih := deaf.login().TSIH
	for range 2 {
		r.refused(initiator.Options{}, pdu.ServiceUnavailable)
		state, socks := r.freeze(t)
		r.move(t, state, socks)
	}
	e, err = r.node.End(t.Context(), tsih, time.Millisecond, 0)
	if err != nil || e.LoggedOut || e.Reason != errDismissed.Error() {
		t.Errorf("%+v, %v", e, err)
	}
	if p, _ := deaf.receive(); p.(*pdu.AsyncMessage).Event != pdu.AsyncLogoutRequest {
		t.Errorf("the initiator was sent %v", p)
	}
	r.raw().login() // another name is not rejected
	r.node.mu.Lock()
	r.node.rejections.list[0].Stamp = boottime.Of(time.Now())
	r.node.mu.Unlock()
	r.dial(initiator.Options{})
	if left := r.node.Rejections(); len(left) > 0 {
		t.Errorf("a rejection does not expire: %v", left)
	}
}

// TestEndMoves hands over while an initiator is to log out: it is ended there.
func TestEndMoves(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	tsih := r.raw().login().TSIH
	old := r.node
	failed := make(chan error, 1)
	go func() {
		_, err := old.End(context.Background(), tsih, time.Minute, 0)
		failed <- err
	}()
	s := old.session(tsih)
	r.until("it is asked to log out", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.leave != 0 })
	state, socks := r.freeze(t)
	state.Sessions[0].Leave += time.Hour.Nanoseconds() // the clock was set meanwhile
	state.Sessions[0].LeaveStamp = boottime.Of(time.Now().Add(time.Millisecond))
	r.move(t, state, socks)
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Errorf("the process that has handed over says %v", err)
	}
	r.none()
}

// TestClockIsSet hands over with the clock set by a day in between, onwards and back: who is
// rejected is so for as long as was said, and a login has the time that is left of its own.
// A process that knows no stamps tells wall time alone.
func TestClockIsSet(t *testing.T) {
	const day = 24 * time.Hour
	for _, step := range []time.Duration{day, -day} {
		r := newRig(t, Limits{}, Auth{})
		r.raw() // and says nothing
		r.until("it logs in", func() bool { return len(r.node.connList()) == 1 })
		if err := r.node.Reject(testTarget, "iqn.2026-11.test:stamp", time.Hour); err != nil {
			t.Fatal(err)
		}
		state, socks := r.freeze(t)
		state.Rejections[0].Until -= step.Nanoseconds()
		state.Rejections = append(state.Rejections, Rejection{testTarget, "iqn.2026-11.test:wall", time.Now().Add(time.Hour).UnixNano(), 0})
		state.Connections[0].Born -= step.Nanoseconds()
		r.move(t, state, socks)
		left := r.node.Rejections()
		if len(left) != 2 {
			t.Fatalf("by %v: rejected are %v", step, left)
		}
		for _, l := range left {
			if d := time.Until(time.Unix(0, l.Until)); d < time.Hour/2 || d > time.Hour {
				t.Errorf("by %v: %s is rejected for another %v", step, l.Initiator, d)
			}
		}
		if age := time.Since(r.node.connList()[0].born.Time()).Abs(); age > time.Hour {
			t.Errorf("by %v: the login has begun %v ago", step, age)
		}
	}
}

// TestRejectionsAreBounded fills the table.
func TestRejectionsAreBounded(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	for i := range maxRejections {
		if err := r.node.Reject(testTarget, fmt.Sprintf("iqn.2026-11.test:%d", i), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.node.Reject(testTarget, "iqn.2026-11.test:more", time.Hour); err == nil {
		t.Error("the table has no bound")
	}
	if err := r.node.Reject(testTarget, "iqn.2026-11.test:7", time.Nanosecond); err != nil {
		t.Errorf("an initiator that is in the table: %v", err)
	}
	r.until("one has expired", func() bool { return len(r.node.Rejections()) == maxRejections-1 })
	if err := r.node.Reject(testTarget, "iqn.2026-11.test:more", time.Hour); err != nil {
		t.Error(err)
	}
}

// TestSnapshotWithoutAddress restores a session of a process that did not tell
// where it came from.
func TestSnapshotWithoutAddress(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	s := r.dial(initiator.Options{})
	state, socks := r.freeze(t)
	state.Sessions[0].Address = nil
	r.move(t, state, socks)
	if i := r.node.Sessions()[0]; !i.Address.IsLoopback() {
		t.Errorf("the address is %v", i.Address)
	}
	if err := s.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Error(err)
	}
}

// TestTextThatIsNoText hands over what an initiator has said that is no UTF-8,
// which the snapshot can't have as text.
func TestTextThatIsNoText(t *testing.T) {
	auth := Auth{Users: []Account{{User: "\xe4\xf6\xfc", Secret: alicesSecret}}}
	r := newRig(t, Limits{}, auth)
	r.dial(initiator.Options{CHAP: chapOf(auth.Users[0].User, alicesSecret)})
	open := newRig(t, Limits{}, Auth{})
	open.raw().login("InitiatorAlias=\xff")
	for _, r := range []*rig{r, open} {
		state, socks := r.freeze(t)
		r.move(t, state, socks)
	}
	if got := r.node.Sessions()[0].Account; got != auth.Users[0].User {
		t.Errorf("account %q", got)
	}
}
