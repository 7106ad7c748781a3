// SPDX-License-Identifier: Apache-2.0

package iscsi

import "github.com/gotgtd/gotgtd/target/iscsi/pdu"

// logoutRequestSeconds is how long initiators have to log out after the
// target has asked for it.
const logoutRequestSeconds = 5

// handleLogout handles a Logout Request (RFC 7143 11.14). The response goes
// out when the tasks that it ends have stopped running and, for a session,
// after its reservations are released.
func (c *conn) handleLogout(h *pdu.BHS) error {
	var req pdu.LogoutRequest
	req.Decode(h)
	switch {
	case req.Reason == pdu.RemoveForRecovery:
		c.respondLogout(pdu.LogoutNoRecovery, req.InitiatorTaskTag) // RFC 7143 11.15.1: needs ErrorRecoveryLevel 2
	case req.Reason == pdu.CloseConnection:
		c.logoutConnection(&req)
	case req.Reason == pdu.CloseSession:
		c.logoutSession(&req)
	default:
		c.reject(pdu.ProtocolError, h)
	}
	return nil
}

// logout is a Logout Request whose response is deferred.
type logout struct {
	deferred
	conn *conn  // that the response goes out on
	tag  uint32 // InitiatorTaskTag of the request
	ends *conn  // that logs out; nil for the session
}

func newLogout(c *conn, req *pdu.LogoutRequest, ends *conn) *logout {
	l := &logout{conn: c, tag: req.InitiatorTaskTag, ends: ends}
	l.begin(l)
	return l
}

// respond implements [responder].
func (l *logout) respond() {
	c := l.conn
	if l.ends == nil && c.sess.nexus != nil {
		c.sess.nexus.Close()
	}
	c.respondLogout(pdu.LogoutSuccess, l.tag)
	if l.ends == nil || l.ends == c {
		c.out.Finish()
	}
	c.out.FlushNow()
	if l.ends != nil && l.ends != c {
		l.ends.close(errLoggedOut)
	}
}

func (c *conn) respondLogout(code uint8, tag uint32) {
	c.out.Send(header(&pdu.LogoutResponse{
		Response: code, InitiatorTaskTag: tag,
		Time2Wait: c.sess.params.DefaultTime2Wait, Time2Retain: 0,
	}), true)
}

// logoutSession ends the session at its initiator's wish.
func (c *conn) logoutSession(req *pdu.LogoutRequest) {
	s, l := c.sess, newLogout(c, req, nil)
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
func (c *conn) logoutConnection(req *pdu.LogoutRequest) {
	s := c.sess
	s.mu.Lock()
	o := s.conns[req.CID]
	last := o != nil && len(s.conns) == 1
	s.mu.Unlock()
	switch {
	case o == nil:
		c.respondLogout(pdu.LogoutCIDNotFound, req.InitiatorTaskTag)
		return
	case last:
		c.logoutSession(req)
		return
	}
	l := newLogout(c, req, o)
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
