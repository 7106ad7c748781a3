// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"
	"testing"
)

func TestReachable(t *testing.T) {
	for _, tc := range []struct{ portal, local, want string }{
		{"192.0.2.1:3260", "198.51.100.1:3260", "192.0.2.1:3260"},
		{"0.0.0.0:3260", "192.0.2.1:3260", "192.0.2.1:3260"},
		{"0.0.0.0:3260", "[2001:db8::1]:3260", ""},
		{"[::]:860", "[fe80::1%eth0]:860", "[fe80::1]:860"},
		{"[fe80::1%eth0]:3260", "[fe80::1%eth0]:3260", "[fe80::1]:3260"},
		{"[fe80::1%eth0]:3260", "[fe80::2%eth1]:3260", ""},
		{"[fe80::1%eth0]:3260", "192.0.2.1:3260", ""},
		{"[fe80::1%eth0]:3260", "[2001:db8::1]:3260", ""},
	} {
		got, ok := reachable(netip.MustParseAddrPort(tc.portal), netip.MustParseAddrPort(tc.local))
		if ok != (tc.want != "") || ok && got.String() != tc.want {
			t.Errorf("%s, told at %s, is %v, %v; want %q", tc.portal, tc.local, got, ok, tc.want)
		}
	}
}
