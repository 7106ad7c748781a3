// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// loginFrom logs in from an address and ends the session in order, if there is one.
func (r *rig) loginFrom(ip string) error {
	s, err := r.try(initiator.Options{DialContext: from(ip)})
	if err != nil {
		return err
	}
	return errors.Join(s.Logout(r.t.Context()), s.Close())
}

// ends waits until the target has closed a connection.
func (r *raw) ends(what string) {
	r.t.Helper()
	_ = r.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, r.c); err != nil {
		r.t.Errorf("%s has not ended: %v", what, err)
	}
}

func TestOrigin(t *testing.T) {
	for a, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8::1:2:3:4": "2001:db8::/64", "2001:db8:0:1::1": "2001:db8:0:1::/64",
	} {
		if got := origin(netip.MustParseAddr(a)); got.String() != want {
			t.Errorf("%s counts as %s, want %s", a, got, want)
		}
	}
	if got := origin(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("an address that is unknown counts as %s", got)
	}
}

func TestWhoHasMost(t *testing.T) {
	at := func(ip string) netip.Prefix { return origin(netip.MustParseAddr(ip)) }
	for _, c := range []struct {
		list string
		want int
	}{{"1.1.1.1", 0}, {"1.1.1.1 2.2.2.2 2.2.2.2", 1}, {"1.1.1.1 2.2.2.2 1.1.1.1 2.2.2.2", 0}, {"3.3.3.3 1.1.1.1 2.2.2.2 1.1.1.1 2.2.2.2 2.2.2.2", 2}} {
		if got := whoHasMost(strings.Fields(c.list), at); got != c.want {
			t.Errorf("of %s: %d, want %d", c.list, got, c.want)
		}
	}
}

// TestLoginSlots: connections that say nothing keep nobody out, from wherever they come.
func TestLoginSlots(t *testing.T) {
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Limits: NodeLimits{Logins: 12, LoginsPerAddress: 5, FirstRequestTimeout: time.Hour, LoginTimeout: time.Hour}})
	var silent []*raw
	for _, ip := range []string{"127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.3", "127.0.0.3", "127.0.0.4", "127.0.0.4", "127.0.0.4"} {
		silent = append(silent, r.rawFrom(ip))
		r.until("the connection is known", func() bool { return r.underWay() == len(silent) })
	}
	for range 20 {
		for _, ip := range []string{"127.0.0.2", "127.0.0.4", "127.0.0.5"} {
			if err := r.loginFrom(ip); err != nil {
				t.Fatalf("from %s: %v", ip, err)
			}
			silent = append(silent, r.rawFrom("127.0.0.2"))
			r.until("all places are taken again", func() bool { return r.underWay() == 12 })
		}
	}
	silent[0].ends("the oldest login of the address with most")
	for ip, want := range map[string]int{"127.0.0.2": 5, "127.0.0.3": 4, "127.0.0.4": 3} {
		if n := r.from(ip); n != want {
			t.Errorf("%d logins of %s are left, want %d", n, ip, want)
		}
	}
	for _, c := range silent {
		c.c.Close()
	}
	r.none()
	if n := r.underWay() + len(r.node.conns.origins); n != 0 {
		t.Errorf("%d logins and addresses are left in the tables", n)
	}
}

// TestLoginsPerAddress: an address has its share of unfinished logins, though there is room for more.
func TestLoginsPerAddress(t *testing.T) {
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Limits: NodeLimits{LoginsPerAddress: 2}})
	first := r.raw()
	r.until("the first is known", func() bool { return r.underWay() == 1 })
	second := r.raw()
	r.until("the second is known", func() bool { return r.underWay() == 2 })
	other, third := r.rawFrom("127.0.0.2"), r.raw()
	first.ends("the oldest login of the address")
	r.until("the others are there", func() bool { return r.from("127.0.0.1") == 2 && r.from("127.0.0.2") == 1 })
	for _, c := range []*raw{second, third, other} {
		c.c.Close()
	}
}

// underWay is how many logins are under way.
func (r *rig) underWay() int {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	return len(r.node.conns.logins)
}

// from is how many logins of an address are under way.
func (r *rig) from(ip string) (n int) {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	for _, c := range r.node.conns.logins {
		if c.remote.Addr() == netip.MustParseAddr(ip) {
			n++
		}
	}
	return n
}

// TestFirstRequest: a connection has to begin its login, and one that has begun has its time.
func TestFirstRequest(t *testing.T) {
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Limits: NodeLimits{FirstRequestTimeout: 2 * time.Second, LoginTimeout: time.Hour}})
	begun := r.raw()
	begun.send(&pdu.LoginRequest{Continue: true, CSG: 1, InitiatorTaskTag: 1}, nil)
	begun.receive()
	slow := r.raw()
	if _, err := slow.c.Write(loginPDU()[:47]); err != nil {
		t.Fatal(err)
	}
	slow.ends("a connection that sends no whole PDU")
	beats := r.node.Beats()
	r.until("the clock has gone round", func() bool { return r.node.Beats() > beats+1 })
	if n := r.underWay(); n != 1 {
		t.Errorf("%d logins are under way, want the one that has begun", n)
	}
}

// TestDiscoverySessions have a bound of their own, and a time.
func TestDiscoverySessions(t *testing.T) {
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Limits: NodeLimits{Sessions: 1, DiscoverySessions: 3, DiscoveryTimeout: time.Hour}})
	discover := func(ip string) *initiator.Session {
		t.Helper()
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address(), Discovery: true, DialContext: from(ip)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	first, second, third := discover("127.0.0.2"), discover("127.0.0.2"), discover("127.0.0.3")
	r.dial(initiator.Options{}) // discovery leaves normal sessions their places
	fourth := discover("127.0.0.4")
	<-first.Done()
	fifth := discover("127.0.0.4")
	<-second.Done() // of three that have one each, the oldest
	for _, s := range []*initiator.Session{third, fourth, fifth} {
		if _, err := s.SendTargets(t.Context(), "All"); err != nil {
			t.Errorf("a discovery session that should be there: %v", err)
		}
	}
}

func TestDiscoveryTimeout(t *testing.T) {
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Limits: NodeLimits{DiscoveryTimeout: time.Second}})
	s, err := initiator.Dial(t.Context(), initiator.Options{Address: r.address(), Discovery: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	normal := r.dial(initiator.Options{})
	<-s.Done()
	if err := normal.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Errorf("a normal session: %v", err)
	}
}

// TestShares: who has its share of sessions or connections is refused, and nobody else.
func TestShares(t *testing.T) {
	r := newRigOf(t, Limits{}, Auth{}, realSystem, 0, Options{Limits: NodeLimits{Sessions: 6, SessionsPerInitiator: 2, SessionsPerAddress: 3, ConnectionsPerAddress: 4}})
	as := func(name, ip string) initiator.Options {
		return initiator.Options{InitiatorName: "iqn.2026-11.test:" + name, DialContext: from(ip)}
	}
	r.dial(as("a", "127.0.0.2"))
	last := r.dial(as("a", "127.0.0.2"))
	r.refused(as("a", "127.0.0.3"), pdu.OutOfResources)
	r.dial(as("b", "127.0.0.2"))
	r.refused(as("c", "127.0.0.2"), pdu.OutOfResources)
	for i := range 3 {
		r.dial(as(fmt.Sprint("d", i), "127.0.0.3"))
	}
	r.refused(as("e", "127.0.0.4"), pdu.OutOfResources)
	if err := errors.Join(last.Logout(t.Context()), last.Close()); err != nil {
		t.Fatal(err)
	}
	r.until("the session is gone", func() bool { return len(r.node.sessionList()) == 5 })
	r.dial(as("a", "127.0.0.2")) // its own place
	idle := r.rawFrom("127.0.0.2")
	r.until("the fourth connection is known", func() bool { return r.underWay() == 1 })
	before := r.node.memory.Len()
	for range 5 {
		r.rawFrom("127.0.0.2").ends("a connection more than the address may have")
	}
	r.until("nothing is left of those refused", func() bool { return r.node.memory.Len() <= before })
	idle.c.Close()
}
