// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"net/netip"
)

// DefaultPort is the TCP port of iSCSI (RFC 7143 4.2.7.1 and IANA).
const DefaultPort = 3260

// ParsePortal checks the address of a portal and completes it: "192.0.2.1",
// "192.0.2.1:3260", "2001:db8::1" and "[2001:db8::1]:3260" are good. ":3260" is every
// address, of IPv4 and of IPv6, and "localhost:3260" is 127.0.0.1. Without a
// port it is [DefaultPort]; port 0 lets the system choose.
func ParsePortal(s string) (string, error) {
	switch host, port, err := net.SplitHostPort(s); {
	case s == "localhost":
		s = "127.0.0.1"
	case err == nil && host == "localhost":
		s = "127.0.0.1:" + port
	case err == nil && host == "" && s[0] == ':':
		s = "[::]" + s
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.String(), nil
	}
	host := s
	if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
		host = s[1 : n-1]
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address with a port, such as 192.0.2.1:3260 or [2001:db8::1]:3260", s)
	}
	return netip.AddrPortFrom(addr, DefaultPort).String(), nil
}
