// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// join adds a connection that has finished its login. If the session has ended
// meanwhile, the connection ends too.
func (s *session) join(c *transport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.cid] = c
	if s.phase != sessionOpen {
		c.close(cmp.Or(s.endReason, errSessionLost))
	}
}

// claim adds a connection that is about to finish its login, or returns the one that has its CID. To look
// and to add are one step: a second connection with the CID would be in no table, and nobody would end it.
func (s *session) claim(c *transport, cid uint16, account string) (old *transport, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch old = s.conns[cid]; {
	case s.phase == sessionOpening: // nobody can have been told the TSIH
		return nil, login.NoSession(s.tsih)
	case s.phase != sessionOpen:
		return nil, login.Errorf(pdu.SessionDoesNotExist, "the session is ending")
	case s.isOthers(account):
		return nil, login.Errorf(pdu.AuthorizationFailure, "account %q would join session %d of account %q", account, s.tsih, s.account)
	case old != nil:
		return old, nil
	case len(s.conns) >= int(s.params.MaxConnections):
		return nil, login.Errorf(pdu.TooManyConnections, "the session has %d connections, its limit", len(s.conns))
	}
	c.cid = cid
	s.conns[cid] = c
	return nil, nil
}

// end stops the session: no task starts any more and every connection closes.
// [session.gone] closes when that is done.
func (s *session) end(why error) {
	s.mu.Lock()
	s.moveLocked(sessionEnding)
	if s.endReason == nil {
		s.endReason = why
	}
	conns := s.connsLocked()
	s.abortLocked(func(*task) bool { return true }, nil)
	s.mu.Unlock()
	for _, c := range conns {
		c.close(why)
	}
}

// connectionLost takes a closed connection out of the session and ends the
// tasks that belong to it. Without error recovery a connection that ends
// otherwise than by a logout takes its session along (RFC 7143 7.1.4.2).
func (s *session) connectionLost(c *transport) {
	if c.lost() {
		s.end(c.ended)
	}
	s.mu.Lock()
	s.abortLocked(func(t *task) bool { return t.conn == c }, nil)
	s.dropWaitingLocked(c)
	for s.tasks.runningOn(c) {
		s.idle.Wait()
	}
	if s.conns[c.cid] == c {
		delete(s.conns, c.cid)
	}
	last := len(s.conns) == 0
	if last {
		s.moveLocked(sessionEnding)
	}
	s.mu.Unlock()
	if last {
		s.finish()
	}
}

// dropWaitingLocked forgets the waiting requests of a connection.
func (s *session) dropWaitingLocked(c *transport) {
	s.window.Drop(func(r *request) bool {
		if r.conn != c {
			return false
		}
		r.data.Release()
		if r.task != nil {
			s.dropLocked(r.task)
		} else {
			s.memory.Release(requestCost)
		}
		return true
	})
}

// finish ends a session that has no connection and no task left.
func (s *session) finish() {
	s.mu.Lock()
	s.moveLocked(sessionEnding)
	first := s.moveLocked(sessionGone)
	s.text.begin(pdu.ReservedTag)
	s.mu.Unlock()
	if !first {
		return
	}
	if s.nexus != nil {
		s.nexus.Close()
	}
	s.memory.Close()
	s.spare.Close()
	s.table.removeSession(s)
	if ended := s.engine.opt.Ended; ended != nil && s.target != nil {
		ended(s.info(), s.reason())
	}
	close(s.gone)
}
