// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Access says which initiators may use a target, or a logical unit of it. One that
// matches any entry of any list may: addresses and names are alternatives, as
// they are in tgt. The zero Access admits everyone.
type Access struct {
	All        bool           // everyone; the default when the lists are empty
	Nobody     bool           // empty lists admit nobody, as in tgt
	Addresses  []netip.Prefix // where initiators come from
	Initiators []string       // iSCSI names in lower case; "*", "?" and "[...]" as in a shell
	Accounts   []string       // CHAP names, of the target's Users
}

// Everyone reports whether nobody is kept out.
func (a Access) Everyone() bool {
	return a.All || !a.Nobody && len(a.Addresses)+len(a.Initiators)+len(a.Accounts) == 0
}

// Allows reports whether an initiator with this address and iSCSI name, that has
// proved to be the account, may use the target or logical unit. account is empty
// for one that has proved nothing.
func (a Access) Allows(addr netip.Addr, initiator, account string) bool {
	if a.Everyone() || account != "" && slices.Contains(a.Accounts, account) {
		return true
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range a.Addresses {
		if p.Contains(addr) {
			return true
		}
	}
	return matchesName(a.Initiators, initiator)
}

// matchesName reports whether an initiator's name is among the patterns.
func matchesName(patterns []string, initiator string) bool {
	initiator = strings.ToLower(initiator)
	for _, pattern := range patterns {
		if ok, err := path.Match(pattern, initiator); err == nil && ok {
			return true
		}
	}
	return false
}

// List returns the entries as tgt's "ACL information" shows them: "ALL",
// addresses, networks, then initiator names; and the accounts, which tgt does not have.
func (a Access) List() []string {
	var list []string
	if a.All {
		list = append(list, "ALL")
	}
	for _, p := range a.Addresses {
		list = append(list, prefixString(p))
	}
	list = append(list, a.Initiators...)
	for _, name := range a.Accounts {
		list = append(list, "account "+name)
	}
	return list
}

func (a *Access) setDefaults() {
	a.All = a.Everyone()
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
	s, err := initiatorPattern(s)
	if err == nil {
		a.Initiators = append(a.Initiators, s)
	}
	return err
}

// initiatorPattern checks an initiator's name or a pattern of names, and returns
// it in lower case.
func initiatorPattern(s string) (string, error) {
	s = strings.ToLower(s)
	if _, err := path.Match(s, ""); err != nil {
		return "", fmt.Errorf("%q is not a pattern: %w", s, err)
	}
	if !strings.ContainsAny(s, `*?[\`) {
		return s, checkName(s)
	}
	return s, nil
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
