// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// Access says which initiators may use a target. One that matches any entry of
// either list may: addresses and names are alternatives, as they are in tgt.
// The zero Access admits everyone.
type Access struct {
	All        bool           // everyone; the default when both lists are empty
	Addresses  []netip.Prefix // where initiators come from
	Initiators []string       // iSCSI names in lower case; "*", "?" and "[...]" as in a shell
}

// Allows reports whether an initiator with this address and iSCSI name may use
// the target.
func (a Access) Allows(addr netip.Addr, initiator string) bool {
	if a.All || len(a.Addresses)+len(a.Initiators) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range a.Addresses {
		if p.Contains(addr) {
			return true
		}
	}
	initiator = strings.ToLower(initiator)
	for _, pattern := range a.Initiators {
		if ok, err := path.Match(pattern, initiator); err == nil && ok {
			return true
		}
	}
	return false
}

// List returns the entries as tgt's "ACL information" shows them: "ALL",
// addresses, networks, then initiator names.
func (a Access) List() []string {
	var list []string
	if a.All {
		list = append(list, "ALL")
	}
	for _, p := range a.Addresses {
		list = append(list, prefixString(p))
	}
	return append(list, a.Initiators...)
}

func (a *Access) setDefaults() {
	if len(a.Addresses)+len(a.Initiators) == 0 {
		a.All = true
	}
}

// add adds an address, a network or "ALL".
func (a *Access) add(s string) error {
	if s == "ALL" {
		a.All = true
		return nil
	}
	p, err := parsePrefix(s)
	if err != nil {
		return err
	}
	a.Addresses = append(a.Addresses, p)
	return nil
}

// addInitiator adds an initiator's name or a pattern of names.
func (a *Access) addInitiator(s string) error {
	s = strings.ToLower(s)
	if _, err := path.Match(s, ""); err != nil {
		return fmt.Errorf("%q is not a pattern: %w", s, err)
	}
	if !strings.ContainsAny(s, `*?[\`) {
		if err := checkName(s); err != nil {
			return err
		}
	}
	a.Initiators = append(a.Initiators, s)
	return nil
}

// parsePrefix parses an address, which stands for itself alone, or a network.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither an IP address, nor a network such as 192.0.2.0/24, nor ALL", s)
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network: %w", s, plain(err))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network: write the IPv4 address as such", s)
	}
	return p, nil
}

// plain leaves out what netip's errors repeat of their input.
func plain(err error) error {
	msg := err.Error()
	if i := strings.LastIndex(msg, ": "); i >= 0 {
		msg = msg[i+2:]
	}
	return errors.New(msg)
}

// prefixString prints a host's address without its length.
func prefixString(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
