// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// errSilent ends a connection whose initiator does not answer.
var errSilent = tally.Endingf(tally.NOPTimeout, "no answer to NOP-In")

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
			if n.freeze.Stopped() {
				continue
			}
			n.freeze.outside(func() {
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

// slowestLink is the rate, in bytes a second, at which an initiator sends data at the least
// that has more R2Ts to answer than fit into the time for one. Its later ones are not yet late.
const slowestLink = 128 << 10

// checkR2Ts ends a session that leaves an R2T unanswered: the buffer that waits for the
// data is of use to nobody else meanwhile. It is late if the time is over, and the session does not
// send data for other tasks so busily that this one can't have had its turn.
func (s *session) checkR2Ts(now time.Time) {
	limit := s.engine.opt.Limits.R2TTimeout
	var late *task
	s.mu.Lock()
	for _, t := range s.tasks.byTag {
		u := &t.unanswered
		switch {
		case len(t.data.Open()) == 0:
		case u.since.IsZero():
			*u = unanswered{now, s.gathered}
		case now.Sub(u.since) > limit && s.gathered-u.gathered < int64(now.Sub(u.since).Seconds()*slowestLink):
			late = t
		}
	}
	var why error
	if late != nil {
		r := &late.data.Open()[0]
		why = tally.Endingf(tally.R2TTimeout, "an R2T for %d bytes of command %#x was not answered for %v", r.Length, late.req.CDB[0], now.Sub(late.unanswered.since).Truncate(time.Millisecond))
	}
	s.mu.Unlock()
	if why != nil {
		s.end(why) // its connections log the reason
	}
}

// expireDiscovery ends discovery sessions that have had their time.
func (s *session) expireDiscovery(now time.Time) {
	if limit := s.engine.opt.Limits.DiscoveryTimeout; s.target == nil && now.Sub(s.born.Time()) > limit {
		s.end(tally.Endingf(tally.DiscoveryTimeout, "a discovery session ends after %v", limit))
	}
}

// expireLogins ends the connections whose login takes too long, or has not begun.
func (n *Node) expireLogins(now time.Time) {
	n.mu.Lock()
	list := slices.Clone(n.conns.logins)
	n.mu.Unlock()
	for _, c := range list {
		switch age := now.Sub(c.born.Time()); {
		case age > n.opt.Limits.LoginTimeout:
			c.close(tally.Endingf(tally.LoginTimeout, "login not complete after %v", n.opt.Limits.LoginTimeout))
		case age > n.opt.Limits.FirstRequestTimeout && c.heard.Load() == 0:
			c.close(tally.Endingf(tally.LoginTimeout, "no login request after %v", n.opt.Limits.FirstRequestTimeout))
		}
	}
}
