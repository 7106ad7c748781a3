// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/target/iscsi/guess"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// loginPhase is a connection in its login. It is the [login.Node] that the login asks.
type loginPhase struct {
	*conn
	node *Node
}

func (p loginPhase) Group() uint16 { return p.group }

func (p loginPhase) Address() netip.Addr { return p.remote.Addr() }

func (p loginPhase) Random() io.Reader { return p.node.sys.random }

func (p loginPhase) Discovery() Auth {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	return p.node.auth
}

func (p loginPhase) Target(name string) *login.Target {
	t := p.node.target(name)
	if t == nil || !t.reachedThrough(p.group) {
		return nil
	}
	return &login.Target{Alias: t.Alias, Auth: t.Auth, Limits: t.Limits.WithDefaults(), Offline: t.Offline}
}

func (p loginPhase) Admit(target string, peer Peer) error {
	t := p.node.target(target)
	if t == nil {
		return login.ErrNoTarget
	}
	if ok, reason := t.allows(peer); !ok {
		return login.Errorf(pdu.AuthorizationFailure, "%s", reason)
	}
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	return p.node.rejections.refusal(t.Name, peer.Initiator)
}

func (p loginPhase) Joins(tsih uint16, target, initiator string, isid pdu.ISID) bool {
	s := p.node.session(tsih)
	return s != nil && s.target == p.node.target(target) && s.initiator == initiator && s.isid == isid && s.group == p.group
}

// handle handles one login request. An error ends the connection, after
// the initiator has been told.
func (p loginPhase) handle(h *pdu.BHS, data []byte) error {
	var req pdu.LoginRequest
	req.Decode(h)
	l := p.login
	if l.Requests == 0 {
		p.out.StartStatSN(req.ExpStatSN)
	}
	if !p.memory.Admit(int64(len(data))) {
		return p.refuseText(h)
	}
	p.loginHeld += int64(len(data))
	a, err := l.Step(p, &req, data)
	if err == nil && a.Complete {
		err = p.enter(&req, &a)
	}
	switch {
	case err == nil:
		b := p.pool.Get(len(a.Text))
		copy(b.B, a.Text)
		p.out.SendData(header(&a.Response), true, b)
		if a.Complete {
			p.fullFeature()
		}
		return nil
	case errors.Is(err, errFrozen):
		return err
	}
	p.refuse(err, &req)
	return err
}

// refuse queues a login response with a status other than success.
func (p loginPhase) refuse(err error, req *pdu.LoginRequest) {
	response := login.Refusal(err, req)
	p.out.Send(header(&response), true)
	p.node.countLogin(p.login.TargetName, tally.Refusal(err))
}

// countLogin counts a login that has ended, with the reason why it has failed. What an initiator
// calls a target is counted as such only if there is one.
func (n *Node) countLogin(target, reason string) {
	name := ""
	if t := n.target(target); t != nil {
		name = t.Name
	}
	n.tally.Login(name, reason)
}

// enter opens the session, or joins it, and tells the initiator its numbers.
func (p loginPhase) enter(req *pdu.LoginRequest, a *login.Answer) error {
	open := p.openSession
	if req.TSIH != 0 {
		open = p.joinSession
	}
	if err := open(req); err != nil {
		return err
	}
	a.Response.TSIH = p.sess.tsih
	a.Response.ExpCmdSN, a.Response.MaxCmdSN = p.sess.window.Numbers()
	return nil
}

// fullFeature lets the connection enter full feature phase, behind the last login
// response.
func (p loginPhase) fullFeature() {
	p.agree(p.login.Agreed())
	p.login = nil
	p.chargeSession()
	p.node.mu.Lock()
	p.node.conns.endLogin(p.conn) // from here on no other login takes its place
	p.node.mu.Unlock()
	p.move(connFull)
	_ = p.node.sys.bound(p.sock) // fails if the connection is gone, as the next read says
	p.sess.join(&p.transport)
	p.node.countLogin(p.sess.targetName(), "")
	p.node.log.Info("logged in", "initiator", p.sess.initiator, "remote", p.remote.String(),
		"target", p.sess.targetName(), "tsih", p.sess.tsih, "cid", p.cid)
}

// openSession opens a new session. One that exists between the same initiator
// port and target portal group ends first (RFC 7143 6.3.5), unless it is
// another account's: names and ISIDs are claims, and it would be anybody's to end.
func (p loginPhase) openSession(req *pdu.LoginRequest) error {
	l, s := p.login, newSession(&p.node.engine, p.node)
	if !l.Discovery {
		if s.target = p.node.target(l.TargetName); s.target == nil {
			return login.ErrNoTarget
		}
	}
	s.initiator, s.alias, s.isid, s.group = l.Initiator, l.Alias, req.ISID, p.group
	s.params, s.account, s.address = l.Negotiation.Params, string(l.Account), p.remote.Addr()
	s.window.Start(req.CmdSN)
	if err := p.node.enterSession(s); err != nil {
		return err
	}
	var nexus *scsi.Nexus
	if s.target != nil {
		nexus = s.target.Device.Open(s.nexusID(), s.target.masked(s.peer())...)
		if opened := p.node.opt.Opened; opened != nil {
			opened(s.info()) // the session is opening still: nobody joins it, and it can't end
		}
	}
	s.mu.Lock()
	s.nexus = nexus
	s.openAccount()
	s.openWindowLocked()
	opened := s.moveLocked(sessionOpen)
	s.mu.Unlock()
	if !opened {
		s.finish()
		return login.Errorf(pdu.ServiceUnavailable, "the session was ended while it was opened")
	}
	p.sess, p.cid = s, req.CID
	return nil
}

// enterSession enters a session into the table when the one that it takes the place of has ended.
func (n *Node) enterSession(s *session) error {
	if s.target == nil {
		if err := n.addDiscovery(s); err != nil {
			return login.Errorf(pdu.OutOfResources, "%v", err)
		}
		return nil
	}
	for {
		old, err := n.addSession(s)
		switch {
		case errors.Is(err, login.ErrNoTarget):
			return err
		case err != nil:
			return login.Errorf(pdu.OutOfResources, "%v", err)
		case old == nil:
			return nil
		case old.isOthers(s.account):
			return login.Errorf(pdu.AuthorizationFailure, "account %q would take the place of session %d of account %q", s.account, old.tsih, old.account)
		}
		if err := n.reinstate(old); err != nil {
			return err
		}
	}
}

// joinSession adds a connection to a session. One with the same CID ends
// first (RFC 7143 6.3.4).
func (p loginPhase) joinSession(req *pdu.LoginRequest) error {
	l, s := p.login, p.node.session(req.TSIH)
	if s == nil || !p.Joins(req.TSIH, l.TargetName, l.Initiator, req.ISID) {
		return login.NoSession(req.TSIH)
	}
	if s.apart != nil { // what its other connections have begun comes first
		if err := p.node.await(s.apart.done); err != nil {
			return err
		}
	}
	for {
		old, err := s.claim(&p.transport, req.CID, string(l.Account))
		switch {
		case err != nil:
			return err
		case old == nil:
			p.sess = s
			return nil
		}
		old.close(errReplaced)
		if err := p.node.await(old.done); err != nil {
			return err
		}
	}
}

// reinstate ends a session whose initiator logs in anew and waits until it is
// gone: nothing that it still runs may reach the disk later.
func (n *Node) reinstate(old *session) error {
	old.end(errReinstated)
	return n.await(old.gone)
}

// await waits for something to end, a bounded time. A freeze interrupts it;
// the login request is then handled again afterwards.
func (n *Node) await(done <-chan struct{}) error {
	timeout := time.NewTimer(n.opt.TeardownTimeout)
	defer timeout.Stop()
	select {
	case <-done:
		return nil
	case <-n.freeze.freezing():
		return errFrozen
	case <-timeout.C:
		return login.Errorf(pdu.ServiceUnavailable, "commands of the session before it are still running")
	}
}

// Prove waits until a proof of an account may be looked at.
func (p loginPhase) Prove(account string) error {
	d := p.node.guesses.Delay(time.Now(), p.origin(), account)
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-p.closing:
		return p.ended
	case <-p.node.freeze.freezing():
		return errFrozen
	}
}

// Proved counts proofs that have failed. The log has the first delay; what fails after it is of
// no further interest.
func (p loginPhase) Proved(account string, ok bool) {
	begins, again := p.node.guesses.Proved(time.Now(), p.origin(), account, ok)
	p.quiet = again
	if begins {
		p.node.log.Warn("authentication fails again and again and is delayed from now on", "remote", p.remote.String(), "account", iscsiname.Printable(account, guess.MaxAccountLen))
	}
}

// refuseText answers a login request for whose text there is no memory.
func (p loginPhase) refuseText(h *pdu.BHS) error {
	err := login.Errorf(pdu.OutOfResources, "no memory for %d bytes of text", h.DataSegmentLength())
	p.refuse(err, nil)
	return err
}
