// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

const (
	iqnA = "iqn.2026-11.test:a"
	iqnB = "iqn.2026-11.test:b"
)

// TestAuthorize has a program that decides who may log in: it is asked when the account is
// known, of sessions that a successor takes over too, and discovery tells nothing else.
func TestAuthorize(t *testing.T) {
	var mu sync.Mutex
	var asked []Login
	banned := "iqn.2026-11.test:banned"
	o := Options{Authorize: func(l Login) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, l)
		if l.Initiator == banned {
			return errors.New("it has not paid")
		}
		return nil
	}}
	s := embed(t, o)
	auth := config.Auth{Users: []config.Account{{User: "alice", Secret: "wonderland-1865"}}}
	if err := s.AddTarget(&config.Target{Name: iqnA, Auth: auth}, map[uint16]*scsi.LogicalUnit{1: ramUnit(t)}); err != nil {
		t.Fatal(err)
	}
	address := listen(t, s)
	s.Serve()
	dial := func(name string, discovery bool) (*initiator.Session, error) {
		o := initiator.Options{Address: address, InitiatorName: name, Discovery: discovery}
		if !discovery {
			o.TargetName = iqnA
			o.CHAP = initiator.CHAP{User: "alice", Secret: "wonderland-1865"}
		}
		session, err := initiator.Dial(t.Context(), o)
		if err == nil {
			t.Cleanup(func() { session.Close() })
		}
		return session, err
	}
	if _, err := dial("iqn.2026-11.test:good", false); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if d := cmp.Diff([]Login{{Address: asked[0].Address, Initiator: "iqn.2026-11.test:good", Account: "alice", Target: iqnA}}, asked, cmpopts.EquateComparable(netip.Addr{})); d != "" || !asked[0].Address.IsLoopback() {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	mu.Unlock()
	var refused *initiator.LoginError
	if _, err := dial(banned, false); !errors.As(err, &refused) || refused.Status != pdu.AuthorizationFailure {
		t.Errorf("an initiator that may not: %v", err)
	}

	addTarget(t, s, iqnB)
	for name, want := range map[string]string{banned: iqnA, "iqn.2026-11.test:good": iqnA + " " + iqnB} {
		session, err := dial(name, true)
		if err != nil {
			t.Fatal(err)
		}
		portals, err := session.SendTargets(t.Context(), "All")
		var told []string
		for _, p := range portals {
			told = append(told, p.Target)
		}
		if got := strings.Join(told, " "); err != nil || got != want {
			t.Errorf("%s is told of %s, %v, want %s", name, got, err, want) // of iqnA it may prove to be alice
		}
	}
	if err := s.RemoveTarget(t.Context(), iqnB); err != nil {
		t.Error(err)
	}
}

// TestLoginHooks has a program that is told of logins and logouts, in their order.
func TestLoginHooks(t *testing.T) {
	events := make(chan string, 16)
	s := embed(t, Options{
		LoggedIn: func(l Login) { events <- fmt.Sprintf("in %s %s %d", l.Initiator, l.Target, l.TSIH) },
		LoggedOut: func(l Login, why error) {
			events <- fmt.Sprintf("out %s %s %d: %v", l.Initiator, l.Target, l.TSIH, why)
		},
	})
	addTarget(t, s, iqnA)
	address := listen(t, s)
	s.Serve()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-events:
			if got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("not told %q", want)
		}
	}
	dial := func(name string) *initiator.Session {
		t.Helper()
		session, err := initiator.Dial(t.Context(), initiator.Options{Address: address, TargetName: iqnA, InitiatorName: "iqn.2026-11.test:" + name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { session.Close() })
		return session
	}
	one := dial("one")
	expect("in iqn.2026-11.test:one " + iqnA + " 1")
	if err := one.Logout(t.Context()); err != nil {
		t.Error(err)
	}
	expect("out iqn.2026-11.test:one " + iqnA + " 1: <nil>")

	two := dial("two")
	expect("in iqn.2026-11.test:two " + iqnA + " 2")
	end, err := s.DropSession(t.Context(), 2)
	if err != nil || end.LoggedOut || end.Reason != "it was dropped" || end.Initiator != "iqn.2026-11.test:two" {
		t.Errorf("%+v, %v", end, err)
	}
	expect("out iqn.2026-11.test:two " + iqnA + " 2: it was dropped")
	<-two.Done()
	var none *NoSessionError
	if _, err := s.DropSession(t.Context(), 2); !errors.As(err, &none) {
		t.Errorf("dropped twice: %v", err)
	}

	// A session that is handed over was not logged out.
	dial("three")
	expect("in iqn.2026-11.test:three " + iqnA + " 3")
	next := embed(t, Options{Successor: true, LoggedIn: func(Login) { events <- "in again" }, LoggedOut: func(l Login, _ error) { events <- "out of the successor" }})
	addTarget(t, next, iqnA)
	handOver(t, s, next)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	expect("out of the successor")
	if len(events) > 0 {
		t.Errorf("told %q as well", <-events)
	}
}

// TestRemoveTarget takes a target away from an initiator that does not log out: nothing of
// it is left, and the other target goes on.
func TestRemoveTarget(t *testing.T) {
	s := embed(t, Options{})
	addTarget(t, s, iqnA)
	addTarget(t, s, iqnB)
	address := listen(t, s)
	s.Serve()
	stays, err := dialTarget(t, address, iqnB)
	if err != nil {
		t.Fatal(err)
	}
	leaves, err := dialTarget(t, address, iqnA)
	if err != nil {
		t.Fatal(err)
	}
	disk := s.LogicalUnit(iqnA, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.RemoveTarget(ctx, strings.ToUpper(iqnA)); err != nil {
		t.Fatal(err)
	}
	<-leaves.Done()
	if _, err := disk.Store().ReadAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("the disk is open still")
	}
	if _, err := dialTarget(t, address, iqnA); err == nil {
		t.Error("a login to a target that is gone")
	}
	if err := stays.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Error(err)
	}
	if err := s.RemoveTarget(t.Context(), iqnA); err == nil || err.Error() != `there is no target "`+iqnA+`"` {
		t.Errorf("removed twice: %v", err)
	}
	addTarget(t, s, iqnA)
	again, err := dialTarget(t, address, iqnA)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Error(err)
	}
}

// TestStateDirOfOthers: reservations are not kept where anybody can write them.
func TestStateDirOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{StateDir: dir})
	if err == nil {
		s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "can be written by others") {
		t.Errorf("a state folder of everybody's: %v", err)
	}
}
