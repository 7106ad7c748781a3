// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"time"
)

// errDismissed ends a session that did not log out when it was asked to.
var errDismissed = errors.New("did not log out when asked to")

// Dismiss asks the initiator of a session to log out (RFC 7143 11.9.1, event
// 1) and ends the session if it has not after the grace. It returns at once.
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
	n.outside(s.requestLogout)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-s.gone:
	case <-n.stop:
	case <-timer.C:
		n.outside(func() { s.end(errDismissed) })
	}
}
