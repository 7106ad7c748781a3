// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"time"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

// logoutRequestSeconds is how long initiators have to log out after the
// target has asked for it.
const logoutRequestSeconds = 5

// handleNOPOut answers a NOP-Out (RFC 7143 11.18), unless it is itself the
// answer to a NOP-In of ours.
func (c *conn) handleNOPOut(h *pdu.BHS, data []byte) error {
	var req pdu.NOPOut
	req.Decode(h)
	if req.InitiatorTaskTag == pdu.ReservedTag {
		return nil
	}
	data = data[:min(len(data), c.agreed.SendLimit)]
	var b *mem.Buffer
	if len(data) > 0 {
		if b = c.pool.TryGet(len(data)); b == nil {
			c.reject(pdu.LongOperationReject, h)
			return nil
		}
		copy(b.B, data)
	}
	c.out.SendData(header(&pdu.NOPIn{
		DataLength: uint32(len(data)), LUN: req.LUN,
		InitiatorTaskTag: req.InitiatorTaskTag, TargetTransferTag: pdu.ReservedTag,
	}), true, b)
	return nil
}

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

func (c *conn) respondLogout(code uint8, tag uint32) {
	c.out.Send(header(&pdu.LogoutResponse{
		Response: code, InitiatorTaskTag: tag,
		Time2Wait: c.sess.params.DefaultTime2Wait, Time2Retain: 0,
	}), true)
}

// logoutSession ends the session at its initiator's wish.
func (c *conn) logoutSession(req *pdu.LogoutRequest) {
	s, d := c.sess, newDeferred(toLogout, c, req.InitiatorTaskTag)
	s.mu.Lock()
	s.moveLocked(sessionEnding)
	conns := s.connsLocked()
	s.abortLocked(func(*task) bool { return true }, d)
	s.mu.Unlock()
	for _, o := range conns {
		o.move(connLeaving)
		if o != c {
			o.close(errLoggedOut)
		}
	}
	d.release()
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
	d := newDeferred(toConnectionLogout, c, req.InitiatorTaskTag)
	d.ends = o
	o.move(connLeaving)
	s.mu.Lock()
	s.abortLocked(func(t *task) bool { return t.conn == o }, d)
	s.mu.Unlock()
	d.release()
}

// errSilent ends a connection whose initiator does not answer.
var errSilent = errors.New("no answer to NOP-In")

// pingState is what the liveness loop remembers of a connection.
type pingState struct {
	heard uint32    // PDUs received when last looked at
	since time.Time // when that last changed
	sent  bool      // a NOP-In is unanswered since
}

// livenessTick is how often the liveness loop looks around.
const livenessTick = time.Second

// liveness finds initiators that are gone: a connection that says nothing for
// a while is sent a NOP-In, and is closed when that is not answered either. So is
// one whose login does not come to an end.
func (n *Node) liveness() {
	defer n.wg.Done()
	tick := time.NewTicker(livenessTick)
	defer tick.Stop()
	for {
		select {
		case <-n.stop:
			return
		case now := <-tick.C:
			n.beats.Add(1)
			limit.Account(n.log)
			if n.stopped() {
				continue
			}
			n.outside(func() {
				n.expireLogins(now)
				for _, s := range n.sessionList() {
					s.checkLiveness(now)
					s.expireDiscovery(now)
					s.checkR2Ts(now)
				}
			})
		}
	}
}

// Beats counts the rounds of the liveness loop, one a second, each of which
// takes every session's lock: when it stands still, so does the Node.
func (n *Node) Beats() uint64 { return n.beats.Load() }

func (s *session) checkLiveness(now time.Time) {
	var limits Limits
	if s.target != nil {
		limits = s.target.Limits
	}
	limits = limits.WithDefaults()
	if limits.NOPInterval < 0 {
		return
	}
	s.mu.Lock()
	conns := s.connsLocked()
	s.mu.Unlock()
	for _, c := range conns {
		p := &c.ping
		heard := c.heard.Load()
		switch {
		case p.since.IsZero() || heard != p.heard:
			*p = pingState{heard: heard, since: now}
		case p.sent && now.Sub(p.since) > limits.NOPTimeout:
			c.close(errSilent)
		case !p.sent && now.Sub(p.since) > limits.NOPInterval:
			p.sent, p.since = true, now
			c.out.Send(header(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: s.newTTT()}), false)
			c.out.Flush()
		}
	}
}

func (s *session) newTTT() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.NewTag()
}
