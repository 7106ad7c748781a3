// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// TestConnTable has connections come, log in and go, by their addresses.
func TestConnTable(t *testing.T) {
	limits := NodeLimits{Connections: 6, ConnectionsPerAddress: 3, Logins: 3, LoginsPerAddress: 2}
	table := connTable{all: make(map[*conn]struct{}), origins: make(map[netip.Prefix]int)}
	come := func(ip string, refused string, displaces *conn) *conn {
		t.Helper()
		c := &conn{transport: transport{remote: netip.AddrPortFrom(netip.MustParseAddr(ip), 1024)}}
		displaced, err := table.admit(c, &limits)
		switch {
		case (err == nil) != (refused == "") || err != nil && !strings.Contains(err.Error(), refused):
			t.Fatalf("%s: %v, want %q", ip, err, refused)
		case displaced != displaces:
			t.Fatalf("%s: another connection has lost its place than should", ip)
		case err == nil:
			table.enter(c)
		}
		return c
	}
	a1 := come("192.0.2.1", "", nil)
	a2 := come("192.0.2.1", "", nil)
	a3 := come("192.0.2.1", "", a1) // the oldest of its address
	come("192.0.2.1", "3 connections of 192.0.2.1/32 are open, the limit for an address", nil)
	b1 := come("2001:db8::1", "", nil)
	come("198.51.100.1", "", a2) // the oldest of who has most
	table.endLogin(a3)
	a3.move(connFull)
	c1 := come("2001:db8::2", "", nil) // of the same network as b1
	come("203.0.113.1", "6 connections are open, the limit", nil)
	table.leave(c1)
	table.leave(b1)
	if len(table.logins) != 1 || len(table.all) != 4 || len(table.origins) != 2 {
		t.Errorf("%d logins of %d connections from %d origins", len(table.logins), len(table.all), len(table.origins))
	}
}

// TestSessionTable fills the shares of initiators and addresses, and the numbers of sessions.
func TestSessionTable(t *testing.T) {
	limits := NodeLimits{Sessions: 4, SessionsPerInitiator: 2, SessionsPerAddress: 3}
	table := sessionTable{sessions(), 1<<16 - 2}
	come := func(name, account, ip, refused string) *session {
		t.Helper()
		s := &session{target: &Target{Name: testTarget}, initiator: name, account: account, address: netip.MustParseAddr(ip), isid: pdu.ISID{5: byte(len(table.byTSIH))}}
		err := table.admitSession(s, &limits)
		if (err == nil) != (refused == "") || err != nil && !strings.Contains(err.Error(), refused) {
			t.Fatalf("%s: %v, want %q", name, err, refused)
		}
		if err == nil {
			table.add(s)
		}
		return s
	}
	first := come("a", "", "192.0.2.1", "")
	second := come("a", "", "192.0.2.1", "")
	come("a", "", "198.51.100.1", "2 sessions of initiator a are open, the limit for an initiator")
	come("a", "account", "192.0.2.1", "") // another's, whatever name it claims
	come("b", "", "192.0.2.1", "3 sessions of 192.0.2.1/32 are open, the limit for an address")
	come("b", "", "198.51.100.1", "")
	come("c", "", "203.0.113.1", "4 sessions are open, the limit")
	if first.tsih != 1<<16-1 || second.tsih != 1 || table.byTSIH[1] != second {
		t.Errorf("handles %d and %d, want the last one and 1", first.tsih, second.tsih)
	}
	same := &session{target: &Target{Name: testTarget}, initiator: "a", isid: second.isid}
	if table.find(same) != second {
		t.Error("the session of the same nexus was not found")
	}
	if same.isid[0] = 1; table.find(same) != nil {
		t.Error("a session of another nexus was found")
	}
}

// TestDiscoveryTable has discovery sessions take the place of others.
func TestDiscoveryTable(t *testing.T) {
	table := sessionTable{byTSIH: sessions()}
	come := func(ip string, age int, displaces *session) *session {
		t.Helper()
		s := &session{address: netip.MustParseAddr(ip), born: boottime.Stamp(100 - age)}
		victim, err := table.admitDiscovery(3)
		if err != nil || victim != displaces {
			t.Fatalf("%s: another session has lost its place than should, or %v", ip, err)
		}
		table.add(s)
		return s
	}
	a := come("192.0.2.1", 50, nil)
	come("198.51.100.1", 60, nil)
	b := come("192.0.2.1", 40, nil)
	come("203.0.113.1", 30, a) // the oldest of who has most, though another is older
	if !a.displaced || b.displaced {
		t.Error("it is not known who has to end")
	}
}

func sessions() map[uint16]*session { return make(map[uint16]*session) }
