// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"net/netip"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// A Peer is an initiator as the rules of a target know it.
type Peer struct {
	Addr      netip.Addr // that its session's first connection came from, in a login its own
	Initiator string     // iSCSI name
	Account   string     // CHAP name that it has proved to be; "" for none
	Unproven  bool       // it will have to prove one, or another session of it will
}

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

// peer is who logs in.
func (l *login) peer(c *conn) Peer {
	return Peer{Addr: c.remote.Addr(), Initiator: l.Initiator, Account: string(l.Account), Unproven: l.auth.Required() && !l.Verified}
}

func (s *session) peer() Peer {
	return Peer{Addr: s.address, Initiator: s.initiator, Account: s.account}
}

// isOthers reports whether the session belongs to another account than the one
// that logs in. One that has proved nothing, because nobody asked, or whom a process
// has handed over that did not tell, is nobody's.
func (s *session) isOthers(account string) bool {
	return s.account != "" && account != "" && s.account != account
}

// admit decides at the end of a login, when the account is known.
func (l *login) admit(c *conn) error {
	if l.target == nil {
		return nil
	}
	if ok, reason := l.target.allows(l.peer(c)); !ok {
		return loginErrorf(pdu.AuthorizationFailure, "%s", reason)
	}
	return c.node.refusal(l.target.Name, l.Initiator)
}

// maskRestored gives the sessions of a snapshot the view that they have now.
func (n *Node) maskRestored() {
	for _, s := range n.sessionList() {
		if s.target != nil {
			s.nexus.Mask(s.target.masked(s.peer()))
		}
	}
}
