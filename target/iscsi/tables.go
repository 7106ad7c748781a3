// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// maxTSIH is how many sessions can be told apart.
const maxTSIH = 1<<16 - 1

// connTable has the connections of a Node, whose mutex protects it.
type connTable struct {
	all     map[*conn]struct{}
	origins map[netip.Prefix]int // how many of all come from where
	logins  []*conn              // those of all that are in login, by age
}

// sessionTable has the sessions of a Node, whose mutex protects it.
type sessionTable struct {
	byTSIH   map[uint16]*session
	lastTSIH uint16
}

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

// admit says whether there is room for a connection. The place of its login may be another's: who has
// most loses the oldest, which is returned for the caller to close.
func (t *connTable) admit(c *conn, limits *NodeLimits) (displaced *conn, err error) {
	from := c.origin()
	switch {
	case len(t.all) >= limits.Connections:
		return nil, tally.Endingf(tally.Limit, "iscsi: %d connections are open, the limit; refused %s", len(t.all), c.remote)
	case t.origins[from] >= limits.ConnectionsPerAddress:
		return nil, tally.Endingf(tally.Limit, "iscsi: %d connections of %s are open, the limit for an address; refused %s", t.origins[from], from, c.remote)
	}
	own := 0
	for _, l := range t.logins {
		if l.origin() == from {
			own++
		}
	}
	i := -1
	switch {
	case own >= limits.LoginsPerAddress:
		i = slices.IndexFunc(t.logins, func(l *conn) bool { return l.origin() == from })
	case len(t.logins) >= limits.Logins:
		i = whoHasMost(t.logins, (*conn).origin)
	}
	if i < 0 {
		return nil, nil
	}
	displaced = t.logins[i]
	t.logins = slices.Delete(t.logins, i, i+1)
	return displaced, nil
}

// enter puts a connection into the table.
func (t *connTable) enter(c *conn) {
	t.all[c] = struct{}{}
	t.origins[c.origin()]++
	if c.is(connLogin) {
		t.logins = append(t.logins, c)
	}
}

// leave takes a connection out of the table.
func (t *connTable) leave(c *conn) {
	delete(t.all, c)
	if t.origins[c.origin()]--; t.origins[c.origin()] <= 0 {
		delete(t.origins, c.origin())
	}
	t.endLogin(c)
}

// endLogin gives up the place among the logins that a connection has, if it has one.
func (t *connTable) endLogin(c *conn) {
	if i := slices.Index(t.logins, c); i >= 0 {
		t.logins = slices.Delete(t.logins, i, i+1)
	}
}

// admitSession says whether there is room for a session with a target. Initiators that
// have proved different accounts have different shares, whatever name they claim.
func (t *sessionTable) admitSession(s *session, limits *NodeLimits) error {
	all, named, near := 0, 0, 0
	for _, o := range t.byTSIH {
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
	switch {
	case all >= limits.Sessions, len(t.byTSIH) >= maxTSIH:
		return fmt.Errorf("iscsi: %d sessions are open, the limit", all)
	case named >= limits.SessionsPerInitiator:
		return fmt.Errorf("iscsi: %d sessions of initiator %s are open, the limit for an initiator", named, s.initiator)
	case near >= limits.SessionsPerAddress:
		return fmt.Errorf("iscsi: %d sessions of %s are open, the limit for an address", near, origin(s.address))
	}
	return nil
}

// admitDiscovery returns the discovery session that has to end for another to begin, nil for none.
func (t *sessionTable) admitDiscovery(limit int) (victim *session, err error) {
	if len(t.byTSIH) >= maxTSIH {
		return nil, fmt.Errorf("iscsi: %d sessions are open, the limit", len(t.byTSIH))
	}
	var list []*session
	for _, o := range t.byTSIH {
		if o.target == nil && !o.displaced {
			list = append(list, o)
		}
	}
	if len(list) < limit {
		return nil, nil
	}
	slices.SortFunc(list, func(a, b *session) int { return cmp.Compare(a.born, b.born) })
	victim = list[whoHasMost(list, func(s *session) netip.Prefix { return origin(s.address) })]
	victim.displaced = true
	return victim, nil
}

// find returns the session with the same initiator port, target
// and portal group as s.
func (t *sessionTable) find(s *session) *session {
	for _, o := range t.byTSIH {
		if o.isid == s.isid && o.group == s.group && o.initiator == s.initiator && o.target != nil && o.targetName() == s.targetName() {
			return o
		}
	}
	return nil
}

// add gives a session a handle that no other has, never 0, and enters it.
func (t *sessionTable) add(s *session) {
	for {
		t.lastTSIH++
		if t.lastTSIH != 0 && t.byTSIH[t.lastTSIH] == nil {
			break
		}
	}
	s.tsih = t.lastTSIH
	t.byTSIH[s.tsih] = s
}
