// SPDX-License-Identifier: Apache-2.0

package iscsi

import "github.com/gotgtd/gotgtd/target/iscsi/pdu"

// logoutRequestSeconds is how long initiators have to log out after the
// target has asked for it.
const logoutRequestSeconds = 5

// handleLogout handles a Logout Request (RFC 7143 11.14). The response goes
// out when the tasks that it ends have stopped running and, for a session,
// after its reservations are released.
func (s *session) handleLogout(c *transport, h *pdu.BHS) {
	var req pdu.LogoutRequest
	req.Decode(h)
	switch {
	case req.Reason == pdu.RemoveForRecovery:
		s.respondLogout(c, pdu.LogoutNoRecovery, req.InitiatorTaskTag) // RFC 7143 11.15.1: needs ErrorRecoveryLevel 2
	case req.Reason == pdu.CloseConnection:
		s.logoutConnection(c, &req)
	case req.Reason == pdu.CloseSession:
		s.logoutSession(c, &req)
	default:
		c.reject(pdu.ProtocolError, h)
	}
}

// logout is a Logout Request whose response is deferred.
type logout struct {
	deferred
	sess *session
	conn *transport // that the response goes out on
	tag  uint32     // InitiatorTaskTag of the request
	ends *transport // that logs out; nil for the session
}

func newLogout(s *session, c *transport, req *pdu.LogoutRequest, ends *transport) *logout {
	l := &logout{sess: s, conn: c, tag: req.InitiatorTaskTag, ends: ends}
	l.begin(l)
	return l
}

// respond implements [responder].
func (l *logout) respond() {
	c := l.conn
	if l.ends == nil && l.sess.nexus != nil {
		l.sess.nexus.Close()
	}
	l.sess.respondLogout(c, pdu.LogoutSuccess, l.tag)
	if l.ends == nil || l.ends == c {
		c.out.Finish()
	}
	c.out.FlushNow()
	if l.ends != nil && l.ends != c {
		l.ends.close(errLoggedOut)
	}
}

func (s *session) respondLogout(c *transport, code uint8, tag uint32) {
	c.out.Send(header(&pdu.LogoutResponse{
		Response: code, InitiatorTaskTag: tag,
		Time2Wait: s.params.DefaultTime2Wait, Time2Retain: 0,
	}), true)
}

// logoutSession ends the session at its initiator's wish.
func (s *session) logoutSession(c *transport, req *pdu.LogoutRequest) {
	l := newLogout(s, c, req, nil)
	s.mu.Lock()
	s.moveLocked(sessionEnding)
	conns := s.connsLocked()
	s.abortLocked(func(*task) bool { return true }, &l.deferred)
	s.mu.Unlock()
	for _, o := range conns {
		o.move(connLeaving)
		if o != c {
			o.close(errLoggedOut)
		}
	}
	l.release()
}

// logoutConnection ends one connection of the session.
func (s *session) logoutConnection(c *transport, req *pdu.LogoutRequest) {
	s.mu.Lock()
	o := s.conns[req.CID]
	if o != nil && o.is(connLogin) {
		o = nil // it has only claimed its CID
	}
	last := o != nil && len(s.conns) == 1
	s.mu.Unlock()
	switch {
	case o == nil:
		s.respondLogout(c, pdu.LogoutCIDNotFound, req.InitiatorTaskTag)
		return
	case last:
		s.logoutSession(c, req)
		return
	}
	l := newLogout(s, c, req, o)
	o.move(connLeaving)
	s.mu.Lock()
	s.abortLocked(func(t *task) bool { return t.conn == o }, &l.deferred)
	s.mu.Unlock()
	l.release()
}

// requestLogout asks the initiator to log out (RFC 7143 11.9.1, event 1).
func (s *session) requestLogout() {
	s.mu.Lock()
	conns := s.connsLocked()
	s.mu.Unlock()
	for _, c := range conns {
		c.out.Send(header(&pdu.AsyncMessage{Event: pdu.AsyncLogoutRequest, Parameter3: logoutRequestSeconds}), true)
		c.out.Flush()
	}
}
