// SPDX-License-Identifier: Apache-2.0

package iscsi

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

func (s *session) peer() Peer {
	return Peer{Addr: s.address, Initiator: s.initiator, Account: s.account}
}

// isOthers reports whether the session belongs to another account than the one
// that logs in. One that has proved nothing, because nobody asked, or whom a process
// has handed over that did not tell, is nobody's.
func (s *session) isOthers(account string) bool {
	return s.account != "" && account != "" && s.account != account
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

// maskRestored gives the sessions of a snapshot the view that they have now.
func (n *Node) maskRestored() {
	for _, s := range n.sessionList() {
		if s.target != nil {
			s.nexus.Mask(s.target.masked(s.peer()))
		}
	}
}
