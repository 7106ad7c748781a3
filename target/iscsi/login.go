// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/scsi"
)

const (
	maxLoginText     = 64 << 10 // bytes of one login request in all its parts
	maxLoginRequests = 64       // requests of one login
	maxNameLen       = 223      // bytes of an iSCSI name (RFC 7143 4.2.7.2)
)

// login is the login phase of a connection (RFC 7143 6.3). The exported
// fields are all that has happened so far: a login can move to another process
// between any two bytes.
//
//	(start) ──► SecurityNegotiation ──► LoginOperationalNegotiation ──► FullFeaturePhase
//	   │                  └──────────────────────────────────────────────────▲
//	   └──► LoginOperationalNegotiation (only when nobody need authenticate)
type login struct {
	Started     bool             `cbor:"1,keyasint"`
	First       pdu.LoginRequest `cbor:"2,keyasint"` // what later requests must agree with
	Stage       pdu.Stage        `cbor:"3,keyasint"`
	Text        []byte           `cbor:"4,keyasint"` // parts of a continued request
	Requests    int              `cbor:"5,keyasint"`
	Initiator   string           `cbor:"6,keyasint"`
	Alias       string           `cbor:"7,keyasint"`
	TargetName  string           `cbor:"8,keyasint"`
	Discovery   bool             `cbor:"9,keyasint"`
	Identified  bool             `cbor:"10,keyasint"`
	Method      string           `cbor:"11,keyasint"` // AuthMethod agreed on
	Verified    bool             `cbor:"12,keyasint"` // the initiator has authenticated
	CHAP        chapState        `cbor:"13,keyasint"`
	Negotiation negotiation      `cbor:"14,keyasint"`
	Finishing   bool             `cbor:"15,keyasint"` // everything is agreed on; the session is not open yet
	Answer      []byte           `cbor:"16,keyasint"` // text of the last response, when Finishing
	Account     []byte           `cbor:"17,keyasint"` // CHAP name, when Verified; any bytes

	target  *Target  // nil for discovery
	join    *session // the session that a further connection joins
	auth    Auth
	refused error // why the next request is refused: the configuration has changed
}

// loginError ends a login with a status for the initiator and a reason for
// the log.
type loginError struct {
	status pdu.LoginStatus
	what   string
}

func (e loginError) Error() string {
	return fmt.Sprintf("login failed with status %#04x: %s", uint16(e.status), e.what)
}

func loginErrorf(status pdu.LoginStatus, format string, args ...any) error {
	return loginError{status, fmt.Sprintf(format, args...)}
}

// handleLogin handles one login request. An error ends the connection, after
// the initiator has been told.
func (c *conn) handleLogin(req *pdu.LoginRequest, data []byte) error {
	err := c.login.step(c, req, data)
	if err == nil || errors.Is(err, errFrozen) {
		return err
	}
	var le loginError
	var ae errAuth
	switch {
	case errors.As(err, &le):
		c.loginFailed(le.status, req)
	case errors.As(err, &ae):
		c.loginFailed(pdu.AuthenticationFailure, req)
	default:
		c.loginFailed(pdu.InitiatorError, req)
	}
	if l := c.login; l != nil && l.Initiator != "" {
		return fmt.Errorf("initiator %q, target %q: %w", l.Initiator, l.TargetName, err)
	}
	return err
}

// loginFailed queues a login response with a status other than success.
func (c *conn) loginFailed(status pdu.LoginStatus, req *pdu.LoginRequest) {
	p := pdu.LoginResponse{Status: status}
	if req != nil {
		p.ISID, p.TSIH, p.InitiatorTaskTag, p.CSG = req.ISID, req.TSIH, req.InitiatorTaskTag, req.CSG
		p.ExpCmdSN, p.MaxCmdSN = req.CmdSN, req.CmdSN
	}
	c.out.send(header(&p), true)
}

// step takes the login one request further.
func (l *login) step(c *conn, req *pdu.LoginRequest, data []byte) error {
	if l.refused != nil {
		return l.refused
	}
	if l.Finishing {
		return l.finish(c, req) // interrupted by a freeze before
	}
	if err := l.checkHeader(c, req); err != nil {
		return err
	}
	if len(l.Text)+len(data) > maxLoginText {
		return loginErrorf(pdu.InitiatorError, "login text of more than %d bytes", maxLoginText)
	}
	l.Text = append(l.Text, data...)
	if req.Continue {
		l.respond(c, req, nil, false)
		return nil
	}
	pairs, err := pdu.ParseText(l.Text)
	l.Text = nil
	if err != nil {
		return loginErrorf(pdu.InitiatorError, "%v", err)
	}
	if !l.Identified {
		if err := l.identify(c, req, pairs); err != nil {
			return err
		}
	}
	if err := l.sameNames(pairs); err != nil {
		return err
	}
	answer, err := l.negotiate(c, req, pairs)
	if err != nil {
		return err
	}
	return l.transit(c, req, answer)
}

// checkHeader checks the fields of a request against the rules and the first
// request (RFC 7143 11.12).
func (l *login) checkHeader(c *conn, req *pdu.LoginRequest) error {
	l.Requests++
	switch {
	case l.Requests > maxLoginRequests:
		return loginErrorf(pdu.InitiatorError, "more than %d login requests", maxLoginRequests)
	case req.VersionMin > 0:
		return loginErrorf(pdu.UnsupportedVersion, "version %#x or later wanted, this is 0", req.VersionMin)
	case req.CSG > pdu.LoginOperationalNegotiation:
		return loginErrorf(pdu.InitiatorError, "current stage %d", req.CSG)
	case req.Transit && req.Continue:
		return loginErrorf(pdu.InitiatorError, "T and C bit both set")
	case req.Transit && (req.NSG <= req.CSG || req.NSG == 2):
		return loginErrorf(pdu.InitiatorError, "transit from stage %d to %d", req.CSG, req.NSG)
	}
	if !l.Started {
		l.Started, l.First, l.Stage = true, *req, req.CSG
		l.Negotiation.Params = rfcDefaults()
		c.out.startStatSN(req.ExpStatSN)
		return nil
	}
	f := &l.First
	if req.ISID != f.ISID || req.TSIH != f.TSIH || req.CID != f.CID || req.InitiatorTaskTag != f.InitiatorTaskTag {
		return loginErrorf(pdu.InitiatorError, "ISID, TSIH, CID or task tag changed during login")
	}
	if req.CSG != l.Stage {
		return loginErrorf(pdu.InitiatorError, "request for stage %d in stage %d", req.CSG, l.Stage)
	}
	return nil
}

// identify finds out from the first request who wants what (RFC 7143 6.3.1).
func (l *login) identify(c *conn, req *pdu.LoginRequest, pairs []pdu.Pair) error {
	for _, p := range pairs {
		switch p.Key {
		case "InitiatorName":
			l.Initiator = strings.ToLower(p.Value)
		case "InitiatorAlias":
			// It is for people; what is no UTF-8 (RFC 7143 6.1) could not move on.
			l.Alias = strings.ToValidUTF8(p.Value, "\uFFFD")
		case "TargetName":
			l.TargetName = strings.ToLower(p.Value)
		case "SessionType":
			if p.Value != "Discovery" && p.Value != "Normal" {
				return loginErrorf(pdu.SessionTypeNotSupported, "SessionType=%q", p.Value)
			}
			l.Discovery = p.Value == "Discovery"
		}
	}
	switch {
	case l.Initiator == "":
		return loginErrorf(pdu.MissingParameter, "no InitiatorName")
	case len(l.Initiator) > maxNameLen || len(l.Alias) > pdu.MaxValueLen:
		return loginErrorf(pdu.InitiatorError, "InitiatorName or InitiatorAlias too long")
	case !l.Discovery && l.TargetName == "":
		return loginErrorf(pdu.MissingParameter, "no TargetName")
	}
	l.Identified = true
	return l.resolve(c, req)
}

// sameNames refuses other names than those that were looked up: a key is sent once
// in a negotiation (RFC 7143 6.2), and what was allowed was allowed to these.
func (l *login) sameNames(pairs []pdu.Pair) error {
	for _, p := range pairs {
		name := strings.ToLower(p.Value)
		if p.Key == "InitiatorName" && name != l.Initiator || p.Key == "TargetName" && name != l.TargetName {
			return loginErrorf(pdu.InitiatorError, "%s sent again with another value", p.Key)
		}
	}
	return nil
}

// resolve looks up what the names stand for, and whether the initiator may.
func (l *login) resolve(c *conn, req *pdu.LoginRequest) error {
	n := c.node
	if l.Discovery {
		n.mu.Lock()
		l.auth = n.auth
		n.mu.Unlock()
		if req.TSIH != 0 {
			return loginErrorf(pdu.CantIncludeInSession, "a discovery session has one connection")
		}
		return nil
	}
	t := n.target(l.TargetName)
	if t == nil || !t.reachedThrough(c.group) {
		return loginErrorf(pdu.TargetNotFound, "no such target here")
	}
	l.target, l.auth = t, t.Auth
	if err := l.admit(c); err != nil {
		return err
	}
	if t.Offline {
		return loginErrorf(pdu.ServiceUnavailable, "the target is offline")
	}
	if req.TSIH == 0 {
		return nil
	}
	s := n.session(req.TSIH)
	if s == nil || s.target != t || s.initiator != l.Initiator || s.isid != req.ISID || s.group != c.group {
		return loginErrorf(pdu.SessionDoesNotExist, "no session with TSIH %#x", req.TSIH)
	}
	l.join = s
	return nil
}

// reachedThrough reports whether the target is served by a portal group. A
// target without groups is served by all.
func (t *Target) reachedThrough(group uint16) bool {
	if len(t.Groups) == 0 {
		return true
	}
	for _, g := range t.Groups {
		if g == group {
			return true
		}
	}
	return false
}

// negotiate answers the keys of a request.
func (l *login) negotiate(c *conn, req *pdu.LoginRequest, pairs []pdu.Pair) ([]pdu.Pair, error) {
	var answer []pdu.Pair
	if l.target != nil && l.Negotiation.once("TargetPortalGroupTag") {
		answer = append(answer, pdu.Pair{Key: "TargetPortalGroupTag", Value: fmt.Sprint(c.group)})
		if l.target.Alias != "" {
			answer = append(answer, pdu.Pair{Key: "TargetAlias", Value: l.target.Alias})
		}
	}
	var more []pdu.Pair
	var err error
	if req.CSG == pdu.SecurityNegotiation {
		more, err = l.security(c, pairs)
	} else {
		more, err = l.operational(pairs)
	}
	return append(answer, more...), err
}

// isDeclaration tells the keys that identify has read already.
func isDeclaration(key string) bool {
	switch key {
	case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType":
		return true
	}
	return false
}

// security handles the keys of the security negotiation stage (RFC 7143 12).
func (l *login) security(c *conn, pairs []pdu.Pair) ([]pdu.Pair, error) {
	var answer []pdu.Pair
	chap := make(map[string]string)
	for _, p := range pairs {
		switch {
		case isDeclaration(p.Key):
		case p.Key == "AuthMethod":
			if !l.Negotiation.once(p.Key) {
				return nil, loginErrorf(pdu.InitiatorError, "key %s negotiated twice", p.Key)
			}
			if err := l.chooseMethod(p.Value); err != nil {
				return nil, err
			}
			answer = append(answer, pdu.Pair{Key: p.Key, Value: l.Method})
		case strings.HasPrefix(p.Key, "CHAP_"):
			if _, twice := chap[p.Key]; twice {
				return nil, loginErrorf(pdu.InitiatorError, "key %s sent twice", p.Key)
			}
			chap[p.Key] = p.Value
		case isSessionKey(p.Key) || p.Key == "HeaderDigest" || p.Key == "DataDigest" || p.Key == "MaxRecvDataSegmentLength":
			return nil, loginErrorf(pdu.InvalidDuringLogin, "key %s in the security stage", p.Key)
		default:
			answer = append(answer, pdu.Pair{Key: p.Key, Value: valueNotUnderstood})
		}
	}
	if len(chap) == 0 {
		return answer, nil
	}
	more, err := l.chap(c, chap)
	return append(answer, more...), err
}

func (l *login) chooseMethod(offer string) error {
	want := "None"
	if l.auth.Required() {
		want = "CHAP"
	}
	if l.Method = choose(offer, []string{want}); l.Method == valueReject {
		return errAuth{fmt.Sprintf("AuthMethod=%s offered, this target needs %s", offer, want)}
	}
	return nil
}

// chap takes the CHAP exchange one step further.
func (l *login) chap(c *conn, keys map[string]string) ([]pdu.Pair, error) {
	if l.Method != "CHAP" || l.Verified {
		return nil, errAuth{"CHAP keys out of place"}
	}
	if a, ok := keys["CHAP_A"]; ok {
		if l.CHAP.Algorithm != 0 {
			return nil, errAuth{"CHAP_A sent twice"}
		}
		return l.CHAP.offer(a, &l.auth, c.node.sys.random)
	}
	answer, err := l.CHAP.verify(keys, &l.auth, l.Initiator)
	if l.Verified = err == nil; l.Verified {
		l.Account = []byte(keys["CHAP_N"])
	}
	return answer, err
}

// operational handles the keys of the operational negotiation stage.
func (l *login) operational(pairs []pdu.Pair) ([]pdu.Pair, error) {
	if l.auth.Required() && !l.Verified {
		return nil, errAuth{"the initiator did not authenticate"}
	}
	var answer []pdu.Pair
	limits := l.limits()
	n := &l.Negotiation
	n.Params.QueueDepth = limits.QueueDepth
	for _, p := range pairs {
		if isDeclaration(p.Key) {
			continue
		}
		if !n.once(p.Key) {
			return nil, loginErrorf(pdu.InitiatorError, "key %s negotiated twice", p.Key)
		}
		if a, answered := n.operational(p.Key, p.Value, &limits, l.join == nil, !l.Discovery); answered {
			answer = append(answer, pdu.Pair{Key: p.Key, Value: a})
		}
	}
	if !n.Declared {
		n.Declared = true
		answer = append(answer, pdu.Pair{Key: "MaxRecvDataSegmentLength", Value: fmt.Sprint(limits.MaxRecvDataSegmentLength)})
	}
	return answer, nil
}

func (l *login) limits() Limits {
	if l.target == nil {
		return Limits{}.withDefaults()
	}
	return l.target.Limits.withDefaults()
}

// transit answers a request, in the next stage if the initiator wants that and
// the target agrees.
func (l *login) transit(c *conn, req *pdu.LoginRequest, answer []pdu.Pair) error {
	text := pdu.AppendText(nil, answer...)
	if len(text) > defaultMRDSL {
		return loginErrorf(pdu.InitiatorError, "the answer to all these keys has %d bytes", len(text))
	}
	next := req.Transit
	if req.CSG == pdu.SecurityNegotiation && l.auth.Required() && !l.Verified {
		if next && l.Method == "" {
			return errAuth{"the initiator did not offer to authenticate"}
		}
		next = false
	}
	if !next {
		l.respond(c, req, text, false)
		return nil
	}
	if req.NSG == pdu.FullFeaturePhase {
		l.Finishing, l.Answer = true, text
		return l.finish(c, req)
	}
	l.Stage = req.NSG
	l.respond(c, req, text, true)
	return nil
}

// respond queues a login response of status success.
func (l *login) respond(c *conn, req *pdu.LoginRequest, text []byte, transit bool) {
	p := pdu.LoginResponse{
		Transit: transit, CSG: req.CSG, ISID: req.ISID, TSIH: req.TSIH,
		InitiatorTaskTag: req.InitiatorTaskTag, DataLength: uint32(len(text)),
	}
	if transit {
		p.NSG = req.NSG
	}
	p.ExpCmdSN, p.MaxCmdSN = req.CmdSN, req.CmdSN
	if transit && req.NSG == pdu.FullFeaturePhase {
		p.TSIH = c.sess.tsih
		p.ExpCmdSN, p.MaxCmdSN = c.sess.window.Numbers()
	}
	b := c.node.pool.Get(len(text))
	copy(b.B, text)
	c.out.sendData(header(&p), true, b)
}

// finish opens the session or joins it, and lets the connection enter full
// feature phase with the last response.
func (l *login) finish(c *conn, req *pdu.LoginRequest) error {
	l.Negotiation.check()
	err := l.admit(c)
	switch {
	case err != nil:
	case l.join != nil:
		err = l.joinSession(c, req)
	default:
		err = l.openSession(c, req)
	}
	if err != nil {
		return err
	}
	l.respond(c, req, l.Answer, true)
	n := &l.Negotiation
	limits := l.limits()
	c.headerDigest, c.dataDigest = n.HeaderDigest, n.DataDigest
	if n.SendLimit > 0 {
		c.sendLimit = int(n.SendLimit)
	}
	if x := int(limits.MaxXmitDataSegmentLength); x > 0 {
		c.sendLimit = min(c.sendLimit, x)
	}
	if n.Declared {
		c.receiveLimit = int(limits.MaxRecvDataSegmentLength)
	}
	c.login = nil
	c.inLogin.Store(false)
	_ = c.node.sys.bound(c.sock) // fails if the connection is gone, as the next read says
	c.sess.join(c)
	c.node.logLimit.Log(c.node.log, slog.LevelInfo, "logged in", "initiator", c.sess.initiator, "remote", c.remote.String(),
		"target", c.sess.targetName(), "tsih", c.sess.tsih, "cid", c.cid)
	return nil
}

// openSession opens a new session. One that exists between the same initiator
// port and target portal group ends first (RFC 7143 6.3.5), unless it is
// another account's: names and ISIDs are claims, and it would be anybody's to end.
func (l *login) openSession(c *conn, req *pdu.LoginRequest) error {
	s := newSession(c.node)
	s.target, s.initiator, s.alias, s.isid, s.group = l.target, l.Initiator, l.Alias, req.ISID, c.group
	s.params, s.account, s.address = l.Negotiation.Params, string(l.Account), c.remote.Addr()
	s.window.Start(req.CmdSN)
	for {
		old, err := c.node.addSession(s)
		if err != nil {
			return loginErrorf(pdu.OutOfResources, "%v", err)
		}
		if old == nil {
			break
		}
		if old.isOthers(string(l.Account)) {
			return loginErrorf(pdu.AuthorizationFailure, "account %q would take the place of session %d of account %q", l.Account, old.tsih, old.account)
		}
		if err := c.node.reinstate(old); err != nil {
			return err
		}
	}
	var nexus *scsi.Nexus
	if s.target != nil {
		nexus = s.target.Device.Open(s.nexusID(), s.target.masked(s.peer())...)
	}
	s.mu.Lock()
	s.nexus = nexus
	s.openWindowLocked()
	s.mu.Unlock()
	c.sess, c.cid = s, req.CID
	return nil
}

// joinSession adds a connection to a session. One with the same CID ends
// first (RFC 7143 6.3.4).
func (l *login) joinSession(c *conn, req *pdu.LoginRequest) error {
	s := l.join
	s.mu.Lock()
	old, n := s.conns[req.CID], len(s.conns)
	ending := s.ending
	opening := s.nexus == nil
	s.mu.Unlock()
	switch {
	case opening: // nobody can have been told the TSIH
		return loginErrorf(pdu.SessionDoesNotExist, "no session with TSIH %#x", s.tsih)
	case ending:
		return loginErrorf(pdu.SessionDoesNotExist, "the session is ending")
	case s.isOthers(string(l.Account)):
		return loginErrorf(pdu.AuthorizationFailure, "account %q would join session %d of account %q", l.Account, s.tsih, s.account)
	case old == nil && n >= int(s.params.MaxConnections):
		return loginErrorf(pdu.TooManyConnections, "the session has %d connections, its limit", n)
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
	case <-n.freeze.started():
		return errFrozen
	case <-timeout.C:
		return loginErrorf(pdu.ServiceUnavailable, "commands of the session before it are still running")
	}
}
