// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// What those who configure a target know of logins.
type (
	Auth    = login.Auth
	Account = login.Account
	Limits  = login.Limits
	Params  = login.Params
	Peer    = login.Peer
)

// A Target is an iSCSI target node: a name, a device server, and who may log
// in how. It must not change while a Node serves it; [Node.SetTargets]
// replaces it.
type Target struct {
	Name    string // iSCSI name
	Alias   string
	Device  *scsi.Device
	Groups  []uint16 // tags of the portal groups it is reached through
	Auth    Auth
	Limits  Limits
	Resets  ResetScope // whom TARGET WARM RESET and TARGET COLD RESET concern
	Offline bool       // logins are told that the service is not available

	// Allowed decides whether an initiator may use the target and see it in
	// discovery; reason says why not. One that is Unproven is asked about again
	// when its account is known. nil allows every initiator.
	Allowed func(Peer) (ok bool, reason string)

	// Masked returns the numbers of the logical units that an initiator does not
	// see; see [scsi.Nexus.Mask]. nil masks nothing.
	Masked func(Peer) []uint16
}

// A PortalGroup is a set of addresses under one portal group tag.
type PortalGroup struct {
	Tag     uint16
	Portals []netip.AddrPort // as bound; an unspecified address stands for the one that the initiator used

	// Announced are more addresses, as TargetAddress has them (RFC 7143 13.8).
	// They are told to everybody as they are, for portals behind address translation.
	Announced []string
}

// ResetScope says whom TARGET WARM RESET and TARGET COLD RESET concern.
type ResetScope uint8

// An initiator can't know who else uses a target. The end of all its sessions, which is
// what TARGET COLD RESET is for iSCSI (RFC 7143 11.5.1), is too much to give to everybody.
const (
	ResetsAuto ResetScope = iota // TARGET COLD RESET as ResetsOwn, TARGET WARM RESET as ResetsAll
	ResetsOwn                    // the sessions of the initiator that asks, and what is theirs
	ResetsAll                    // all sessions with the target, and its logical units
)

// own reports whether a reset is for the sessions of who asks for it alone.
func (r ResetScope) own(cold bool) bool { return r == ResetsOwn || r == ResetsAuto && cold }

func (t *Target) allows(p Peer) (bool, string) {
	if t.Allowed == nil {
		return true, ""
	}
	return t.Allowed(p)
}

// masked returns the numbers of the logical units that are not for p.
func (t *Target) masked(p Peer) []uint16 {
	if t.Masked == nil {
		return nil
	}
	return t.Masked(p)
}

// reachedThrough reports whether the target is served by a portal group. A
// target without groups is served by all.
func (t *Target) reachedThrough(group uint16) bool {
	if len(t.Groups) == 0 {
		return true
	}
	for _, g := range t.Groups {
		if g == group {
			return true
		}
	}
	return false
}

// addresses are what an initiator is told of a group that has reached us at local.
func (g *PortalGroup) addresses(local netip.AddrPort) []string {
	var list []string
	for _, p := range g.Portals {
		if addr, ok := reachable(p, local); ok {
			list = append(list, addr.String())
		}
	}
	return append(list, g.Announced...)
}

// reachable turns a portal's address into one that this initiator can use: an
// unspecified address becomes the one that it has reached us at, local. A
// link-local address is of use on its link alone, and its zone is a name that
// only this machine knows (RFC 4007 6).
func reachable(p, local netip.AddrPort) (netip.AddrPort, bool) {
	a, at := p.Addr(), local.Addr()
	switch {
	case a.IsUnspecified() && a.Is4() && !at.Is4():
		return netip.AddrPort{}, false
	case a.IsUnspecified():
		return withoutZone(netip.AddrPortFrom(at, p.Port())), true
	case a.Is6() && a.IsLinkLocalUnicast():
		return withoutZone(p), at.Is6() && at.IsLinkLocalUnicast() && at.Zone() == a.Zone()
	}
	return p, true
}

func withoutZone(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}
