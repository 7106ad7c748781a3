// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/target/iscsi/guess"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// loginNode answers what the login of a connection asks; it is a [login.Node].
type loginNode struct{ c *conn }

func (n loginNode) Group() uint16 { return n.c.group }

func (n loginNode) Address() netip.Addr { return n.c.remote.Addr() }

func (n loginNode) Random() io.Reader { return n.c.node.sys.random }

func (n loginNode) Discovery() Auth {
	n.c.node.mu.Lock()
	defer n.c.node.mu.Unlock()
	return n.c.node.auth
}

func (n loginNode) Target(name string) *login.Target {
	t := n.c.node.target(name)
	if t == nil || !t.reachedThrough(n.c.group) {
		return nil
	}
	return &login.Target{Alias: t.Alias, Auth: t.Auth, Limits: t.Limits.WithDefaults(), Offline: t.Offline}
}

func (n loginNode) Admit(target string, p Peer) error {
	t := n.c.node.target(target)
	if t == nil {
		return login.ErrNoTarget
	}
	if ok, reason := t.allows(p); !ok {
		return login.Errorf(pdu.AuthorizationFailure, "%s", reason)
	}
	n.c.node.mu.Lock()
	defer n.c.node.mu.Unlock()
	return n.c.node.rejections.refusal(t.Name, p.Initiator)
}

func (n loginNode) Joins(tsih uint16, target, initiator string, isid pdu.ISID) bool {
	s := n.c.node.session(tsih)
	return s != nil && s.target == n.c.node.target(target) && s.initiator == initiator && s.isid == isid && s.group == n.c.group
}

// handleLogin handles one login request. An error ends the connection, after
// the initiator has been told.
func (c *conn) handleLogin(h *pdu.BHS, data []byte) error {
	var req pdu.LoginRequest
	req.Decode(h)
	l := c.login
	if l.Requests == 0 {
		c.out.StartStatSN(req.ExpStatSN)
	}
	if !c.memory.Admit(int64(len(data))) {
		return c.refuseText(h)
	}
	c.loginHeld += int64(len(data))
	a, err := l.Step(loginNode{c}, &req, data)
	if err == nil && a.Complete {
		err = c.enter(&req, &a)
	}
	switch {
	case err == nil:
		b := c.pool.Get(len(a.Text))
		copy(b.B, a.Text)
		c.out.SendData(header(&a.Response), true, b)
		if a.Complete {
			c.fullFeature()
		}
		return nil
	case errors.Is(err, errFrozen):
		return err
	}
	c.refuseLogin(err, &req)
	if l.Initiator != "" {
		return fmt.Errorf("initiator %q, target %q: %w", l.Initiator, l.TargetName, err)
	}
	return err
}

// refuseLogin queues a login response with a status other than success.
func (c *conn) refuseLogin(err error, req *pdu.LoginRequest) {
	p := login.Refusal(err, req)
	c.out.Send(header(&p), true)
}

// enter opens the session, or joins it, and tells the initiator its numbers.
func (c *conn) enter(req *pdu.LoginRequest, a *login.Answer) error {
	open := c.openSession
	if req.TSIH != 0 {
		open = c.joinSession
	}
	if err := open(req); err != nil {
		return err
	}
	a.Response.TSIH = c.sess.tsih
	a.Response.ExpCmdSN, a.Response.MaxCmdSN = c.sess.window.Numbers()
	return nil
}

// fullFeature lets the connection enter full feature phase, behind the last login
// response.
func (c *conn) fullFeature() {
	c.agree(c.login.Agreed())
	c.login = nil
	c.chargeSession()
	c.node.mu.Lock()
	c.node.endLoginLocked(c) // from here on no other login takes its place
	c.node.mu.Unlock()
	c.move(connFull)
	_ = c.node.sys.bound(c.sock) // fails if the connection is gone, as the next read says
	c.sess.join(c)
	c.node.log.Info("logged in", "initiator", c.sess.initiator, "remote", c.remote.String(),
		"target", c.sess.targetName(), "tsih", c.sess.tsih, "cid", c.cid)
}

// openSession opens a new session. One that exists between the same initiator
// port and target portal group ends first (RFC 7143 6.3.5), unless it is
// another account's: names and ISIDs are claims, and it would be anybody's to end.
func (c *conn) openSession(req *pdu.LoginRequest) error {
	l, s := c.login, newSession(c.node)
	if !l.Discovery {
		if s.target = c.node.target(l.TargetName); s.target == nil {
			return login.ErrNoTarget
		}
	}
	s.initiator, s.alias, s.isid, s.group = l.Initiator, l.Alias, req.ISID, c.group
	s.params, s.account, s.address = l.Negotiation.Params, string(l.Account), c.remote.Addr()
	s.window.Start(req.CmdSN)
	if err := c.node.enterSession(s); err != nil {
		return err
	}
	var nexus *scsi.Nexus
	if s.target != nil {
		nexus = s.target.Device.Open(s.nexusID(), s.target.masked(s.peer())...)
		if opened := c.node.opt.Opened; opened != nil {
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
	c.sess, c.cid = s, req.CID
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
func (c *conn) joinSession(req *pdu.LoginRequest) error {
	l, s := c.login, c.node.session(req.TSIH)
	if s == nil || !(loginNode{c}).Joins(req.TSIH, l.TargetName, l.Initiator, req.ISID) {
		return login.NoSession(req.TSIH)
	}
	if s.apart != nil { // what its other connections have begun comes first
		if err := c.node.await(s.apart.done); err != nil {
			return err
		}
	}
	s.mu.Lock()
	old, n := s.conns[req.CID], len(s.conns)
	phase := s.phase
	s.mu.Unlock()
	switch {
	case phase == sessionOpening: // nobody can have been told the TSIH
		return login.NoSession(req.TSIH)
	case phase != sessionOpen:
		return login.Errorf(pdu.SessionDoesNotExist, "the session is ending")
	case s.isOthers(string(l.Account)):
		return login.Errorf(pdu.AuthorizationFailure, "account %q would join session %d of account %q", l.Account, s.tsih, s.account)
	case old == nil && n >= int(s.params.MaxConnections):
		return login.Errorf(pdu.TooManyConnections, "the session has %d connections, its limit", n)
	case old != nil:
		old.close(errReplaced)
		if err := c.node.await(old.done); err != nil {
			return err
		}
	}
	c.sess, c.cid = s, req.CID
	return nil
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
func (n loginNode) Prove(account string) error {
	c := n.c
	d := c.node.guesses.Delay(time.Now(), c.origin(), account)
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closing:
		return c.ended
	case <-c.node.freeze.freezing():
		return errFrozen
	}
}

// Proved counts proofs that have failed. The log has the first delay; what fails after it is of
// no further interest.
func (n loginNode) Proved(account string, ok bool) {
	c := n.c
	begins, again := c.node.guesses.Proved(time.Now(), c.origin(), account, ok)
	c.quiet = again
	if begins {
		c.node.log.Warn("authentication fails again and again and is delayed from now on", "remote", c.remote.String(), "account", iscsiname.Printable(account, guess.MaxAccountLen))
	}
}
