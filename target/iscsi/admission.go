// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// Reasons for the end of what has no claim to stay.
var (
	errLoginDisplaced     = tally.Endingf(tally.Displaced, "another login took the place of this one, which was the oldest of its address")
	errDiscoveryDisplaced = tally.Endingf(tally.Displaced, "another discovery session took the place of this one, which was the oldest of its address")
)

// addConn enters c into the table and counts its goroutine.
func (n *Node) addConn(c *conn) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.freeze.is(nodeEnding) {
		return ErrClosed
	}
	displaced, err := n.conns.admit(c, &n.opt.Limits)
	if err != nil {
		return err
	}
	if displaced != nil {
		displaced.close(errLoginDisplaced)
	}
	n.conns.enter(c)
	n.wg.Add(1)
	return nil
}

func (n *Node) removeConn(c *conn) {
	n.mu.Lock()
	n.conns.leave(c)
	n.freeze.change.Broadcast()
	n.mu.Unlock()
	n.wg.Done()
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
	if old := n.sessions.find(s); old != nil {
		return old, nil
	}
	if err := n.sessions.admitSession(s, &n.opt.Limits); err != nil {
		return nil, err
	}
	n.sessions.add(s)
	return nil, nil
}

// addDiscovery gives a discovery session its TSIH and enters it into the table.
func (n *Node) addDiscovery(s *session) error {
	n.mu.Lock()
	if n.freeze.is(nodeEnding) {
		n.mu.Unlock()
		return ErrClosed
	}
	victim, err := n.sessions.admitDiscovery(n.opt.Limits.DiscoverySessions)
	if err == nil {
		n.sessions.add(s)
	}
	n.mu.Unlock()
	if victim != nil {
		victim.end(errDiscoveryDisplaced)
	}
	return err
}

func (n *Node) removeSession(s *session) {
	n.mu.Lock()
	delete(n.sessions.byTSIH, s.tsih)
	n.mu.Unlock()
}
