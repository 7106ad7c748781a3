// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// Reasons for the end of what has no claim to stay.
var (
	errLoginDisplaced     = tally.Endingf(tally.Displaced, "another login took the place of this one, which was the oldest of its address")
	errDiscoveryDisplaced = tally.Endingf(tally.Displaced, "another discovery session took the place of this one, which was the oldest of its address")
)

// maxTSIH is how many sessions can be told apart.
const maxTSIH = 1<<16 - 1

// whoHasMost returns the index of the oldest of those that come from whoever has most of a list, which
// is in order of age.
func whoHasMost[T any](list []T, from func(T) netip.Prefix) int {
	count, most := make(map[netip.Prefix]int), 0
	for _, v := range list {
		count[from(v)]++
		most = max(most, count[from(v)])
	}
	return slices.IndexFunc(list, func(v T) bool { return count[from(v)] == most })
}

// admitLocked says whether there is room for a connection, and makes room for its login
// where that is another's to give: who has most loses the oldest.
func (n *Node) admitLocked(c *conn) error {
	from, o := c.origin(), &n.opt.Limits
	switch {
	case len(n.conns) >= o.Connections:
		return tally.Endingf(tally.Limit, "iscsi: %d connections are open, the limit; refused %s", len(n.conns), c.remote)
	case n.origins[from] >= o.ConnectionsPerAddress:
		return tally.Endingf(tally.Limit, "iscsi: %d connections of %s are open, the limit for an address; refused %s", n.origins[from], from, c.remote)
	}
	own := 0
	for _, l := range n.logins {
		if l.origin() == from {
			own++
		}
	}
	switch {
	case own >= o.LoginsPerAddress:
		n.displaceLocked(slices.IndexFunc(n.logins, func(l *conn) bool { return l.origin() == from }))
	case len(n.logins) >= o.Logins:
		n.displaceLocked(whoHasMost(n.logins, (*conn).origin))
	}
	return nil
}

// displaceLocked ends the login at an index of n.logins.
func (n *Node) displaceLocked(i int) {
	c := n.logins[i]
	n.logins = slices.Delete(n.logins, i, i+1)
	c.close(errLoginDisplaced)
}

// enterLocked puts a connection into the tables.
func (n *Node) enterLocked(c *conn) {
	n.conns[c] = struct{}{}
	n.origins[c.origin()]++
	if c.is(connLogin) {
		n.logins = append(n.logins, c)
	}
}

// leaveLocked takes a connection out of the tables.
func (n *Node) leaveLocked(c *conn) {
	delete(n.conns, c)
	if n.origins[c.origin()]--; n.origins[c.origin()] <= 0 {
		delete(n.origins, c.origin())
	}
	n.endLoginLocked(c)
}

// endLoginLocked gives up the place among the logins that a connection has, if it has one.
func (n *Node) endLoginLocked(c *conn) {
	if i := slices.Index(n.logins, c); i >= 0 {
		n.logins = slices.Delete(n.logins, i, i+1)
	}
}

// admitSessionLocked says whether there is room for a session with a target. Initiators that
// have proved different accounts have different shares, whatever name they claim.
func (n *Node) admitSessionLocked(s *session) error {
	all, named, near := 0, 0, 0
	for _, o := range n.sessions {
		if o.target == nil {
			continue
		}
		all++
		if o.initiator == s.initiator && o.account == s.account {
			named++
		}
		if origin(o.address) == origin(s.address) {
			near++
		}
	}
	switch o := &n.opt.Limits; {
	case all >= o.Sessions, len(n.sessions) >= maxTSIH:
		return fmt.Errorf("iscsi: %d sessions are open, the limit", all)
	case named >= o.SessionsPerInitiator:
		return fmt.Errorf("iscsi: %d sessions of initiator %s are open, the limit for an initiator", named, s.initiator)
	case near >= o.SessionsPerAddress:
		return fmt.Errorf("iscsi: %d sessions of %s are open, the limit for an address", near, origin(s.address))
	}
	return nil
}

// admitDiscoveryLocked returns the discovery session that has to end for another to begin, nil for none.
func (n *Node) admitDiscoveryLocked() (victim *session, err error) {
	if len(n.sessions) >= maxTSIH {
		return nil, fmt.Errorf("iscsi: %d sessions are open, the limit", len(n.sessions))
	}
	var list []*session
	for _, o := range n.sessions {
		if o.target == nil && !o.displaced {
			list = append(list, o)
		}
	}
	if len(list) < n.opt.Limits.DiscoverySessions {
		return nil, nil
	}
	slices.SortFunc(list, func(a, b *session) int { return cmp.Compare(a.born, b.born) })
	victim = list[whoHasMost(list, func(s *session) netip.Prefix { return origin(s.address) })]
	victim.displaced = true
	return victim, nil
}

// addConn enters c into the table and counts its goroutine.
func (n *Node) addConn(c *conn) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.freeze.is(nodeEnding) {
		return ErrClosed
	}
	if err := n.admitLocked(c); err != nil {
		return err
	}
	n.enterLocked(c)
	n.wg.Add(1)
	return nil
}

func (n *Node) removeConn(c *conn) {
	n.mu.Lock()
	n.leaveLocked(c)
	n.freeze.change.Broadcast()
	n.mu.Unlock()
	n.wg.Done()
}

// newTSIH returns a session handle that no session has, never 0. The caller
// holds n.mu.
func (n *Node) newTSIHLocked() uint16 {
	for {
		n.lastTSIH++
		if n.lastTSIH != 0 && n.sessions[n.lastTSIH] == nil {
			return n.lastTSIH
		}
	}
}

// addSession gives a session with a target its TSIH and enters it into the table. If there is a
// session for the same I_T nexus already (RFC 7143 4.4.3), it returns that
// one instead.
func (n *Node) addSession(s *session) (*session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.freeze.is(nodeEnding) {
		return nil, ErrClosed
	}
	if n.targets[strings.ToLower(s.target.Name)] != s.target {
		return nil, login.ErrNoTarget // it was taken away during the login
	}
	if old := n.findSessionLocked(s); old != nil {
		return old, nil
	}
	if err := n.admitSessionLocked(s); err != nil {
		return nil, err
	}
	s.tsih = n.newTSIHLocked()
	n.sessions[s.tsih] = s
	return nil, nil
}

// addDiscovery gives a discovery session its TSIH and enters it into the table.
func (n *Node) addDiscovery(s *session) error {
	n.mu.Lock()
	if n.freeze.is(nodeEnding) {
		n.mu.Unlock()
		return ErrClosed
	}
	victim, err := n.admitDiscoveryLocked()
	if err == nil {
		s.tsih = n.newTSIHLocked()
		n.sessions[s.tsih] = s
	}
	n.mu.Unlock()
	if victim != nil {
		victim.end(errDiscoveryDisplaced)
	}
	return err
}

// findSessionLocked returns the session with the same initiator port, target
// and portal group as s.
func (n *Node) findSessionLocked(s *session) *session {
	for _, o := range n.sessions {
		if o.isid == s.isid && o.group == s.group && o.initiator == s.initiator && o.target != nil && o.targetName() == s.targetName() {
			return o
		}
	}
	return nil
}

func (n *Node) removeSession(s *session) {
	n.mu.Lock()
	delete(n.sessions, s.tsih)
	n.mu.Unlock()
}
