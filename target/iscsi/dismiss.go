// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"time"
)

// errDismissed ends a session that did not log out when it was asked to.
var errDismissed = errors.New("did not log out when asked to")

// Dismiss asks the initiator of a session to log out (RFC 7143 11.9.1, event
// 1) and ends the session if it has not after the grace. A session that a
// predecessor has asked already goes on with the time that it was given. Dismiss
// returns at once.
func (n *Node) Dismiss(tsih uint16, grace time.Duration) {
	s := n.session(tsih)
	if s == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.wg.Add(1)
	go n.dismiss(s, grace)
}

func (n *Node) dismiss(s *session, grace time.Duration) {
	defer n.wg.Done()
	var left time.Duration
	n.outside(func() { left = s.askToLeave(grace) })
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-s.gone:
	case <-n.stop:
	case <-timer.C:
		n.outside(func() { s.end(errDismissed) })
	}
}

// askToLeave asks the initiator to log out, and returns how long it has for that.
func (s *session) askToLeave(grace time.Duration) time.Duration {
	s.mu.Lock()
	left := time.Until(time.Unix(0, s.leave))
	asked := left > -grace
	if !asked {
		left = grace
		s.leave = time.Now().Add(grace).UnixNano()
	}
	s.mu.Unlock()
	if !asked {
		s.requestLogout()
	}
	return left
}
