// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// DefaultPort is the TCP port of iSCSI (RFC 7143 4.2.7.1 and IANA).
const DefaultPort = 3260

// ParsePortal checks the address of a portal and completes it: "192.0.2.1",
// "192.0.2.1:3260", "2001:db8::1" and "[2001:db8::1]:3260" are good. ":3260" is every
// address, of IPv4 and of IPv6, and "localhost:3260" is 127.0.0.1. Without a
// port it is [DefaultPort]; port 0 lets the system choose.
func ParsePortal(text string) (string, error) {
	s := text
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
		return "", fmt.Errorf("%q is not an IP address with a port, such as 192.0.2.1:3260 or [2001:db8::1]:3260", text)
	}
	return netip.AddrPortFrom(addr, DefaultPort).String(), nil
}

// ParseMetrics checks where metrics are to be served and completes it: "127.0.0.1:9889",
// "[::1]:9889", "localhost:9889", ":9889" for every address, and "unix:/run/gotgtd/metrics.sock".
func ParseMetrics(text string) (string, error) {
	const example = "such as 127.0.0.1:9889 or unix:/run/gotgtd/metrics.sock"
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return "", fmt.Errorf("%q: the path of a socket must be absolute, %s", text, example)
		}
		return "unix:" + filepath.Clean(path), nil
	}
	if _, port, err := net.SplitHostPort(text); err != nil || port == "" {
		return "", fmt.Errorf("%q is not an IP address with a port, nor unix: with a path, %s", text, example)
	}
	at, err := ParsePortal(text)
	if err != nil {
		return "", fmt.Errorf("%q is not an IP address with a port, nor unix: with a path, %s", text, example)
	}
	return at, nil
}

// hostName is a name as DNS has it. The last label has a letter, or a mistyped
// address would be taken for a name.
var hostName = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

const maxHostName = 253 // bytes, RFC 1035 2.3.4

// ParseAnnounced checks an address that initiators are told to reach a portal
// at (TargetAddress, RFC 7143 13.8) and completes it: "203.0.113.5",
// "[2001:db8::1]:3260" and "storage.example.com:860" are good. Without a port it
// is [DefaultPort]. One that no initiator can connect to is an error.
func ParseAnnounced(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, strconv.Itoa(DefaultPort)
		if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
			host = s[1 : n-1]
		}
	}
	addr, notIP := netip.ParseAddr(host)
	n, badPort := strconv.ParseUint(port, 10, 16)
	switch {
	case notIP == nil && addr.IsUnspecified(), host == "" && s != "", host == "*":
		return "", fmt.Errorf("%q is every address, which no initiator can connect to: give the address that initiators use", s)
	case notIP == nil && addr.Zone() != "":
		return "", fmt.Errorf("%q has a zone index, which is a name that only this machine knows", s)
	case notIP == nil && addr.IsMulticast():
		return "", fmt.Errorf("%q is a multicast address, which no initiator can connect to", s)
	case notIP != nil && (len(host) > maxHostName || !hostName.MatchString(host)):
		return "", fmt.Errorf("%q is not an address with a port, such as 203.0.113.5:3260, [2001:db8::1]:3260 or storage.example.com:3260", s)
	case errors.Is(badPort, strconv.ErrRange) || n == 0 && badPort == nil:
		return "", fmt.Errorf("%q: the port must be a number from 1 to 65535", s)
	case badPort != nil:
		return "", fmt.Errorf("%q: %q is not a port: give a number from 1 to 65535", s, port)
	case notIP != nil:
		return net.JoinHostPort(strings.ToLower(host), port), nil
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)).String(), nil
}
