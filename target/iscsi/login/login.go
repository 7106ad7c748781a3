// SPDX-License-Identifier: Apache-2.0

// Package login is the login phase of a connection (RFC 7143 6.3): a state
// machine from a request to its response, with the negotiation of keys (13) and
// CHAP (12.1). It has no connection and opens no session: what it needs to know
// it asks a [Node], and what is to be done the caller does.
package login

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

const (
	maxText     = 64 << 10 // bytes of one login request in all its parts
	maxRequests = 64       // requests of one login
	maxWhat     = 320      // bytes of a reason for the log
)

// A Node answers what the login of one connection asks of the node that it is
// to. Names are in lower case.
type Node interface {
	// Discovery says how the initiators of discovery sessions authenticate.
	Discovery() Auth
	// Target returns a target that the connection's portal group serves, nil if
	// there is no such target.
	Target(name string) *Target
	// Admit returns why a peer may not use a target now, nil if it may. The error
	// is an [Error].
	Admit(target string, p Peer) error
	// Joins reports whether there is a session of that TSIH that another
	// connection may join, of the same initiator port with the same target.
	Joins(tsih uint16, target, initiator string, isid pdu.ISID) bool
	// Group is the tag of the portal group that the connection has come in through.
	Group() uint16
	// Address is where the connection has come from.
	Address() netip.Addr
	// Random is where CHAP challenges come from.
	Random() io.Reader
	// Prove is asked before a proof of an account is looked at, and may take its time. An
	// error ends the login, or interrupts it as [Login.Step] says.
	Prove(account string) error
	// Proved is told whether the proof was right.
	Proved(account string, ok bool)
}

// A Target is what a login needs to know of a target.
type Target struct {
	Alias   string
	Auth    Auth
	Limits  Limits // with its defaults
	Offline bool
}

// A Peer is an initiator as the rules of a target know it.
type Peer struct {
	Addr      netip.Addr // that its session's first connection came from, in a login its own
	Initiator string     // iSCSI name
	Account   string     // CHAP name that it has proved to be; "" for none
	Unproven  bool       // it will have to prove one, or another session of it will
}

// Login is where the login of a connection stands. The zero Login has not begun. The exported
// fields are all that has happened so far: a login can move to another process
// between any two bytes.
//
//	(start) ──► SecurityNegotiation ──► LoginOperationalNegotiation ──► FullFeaturePhase
//	   │                  └──────────────────────────────────────────────────▲
//	   └──► LoginOperationalNegotiation (only when nobody need authenticate)
type Login struct {
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
	Finishing   bool             `cbor:"15,keyasint"`           // everything is agreed on; the session is not open yet
	Answer      []byte           `cbor:"16,keyasint"`           // text of the last response, when Finishing
	Account     []byte           `cbor:"17,keyasint"`           // CHAP name, when Verified; any bytes
	Keys        int              `cbor:"18,keyasint,omitempty"` // so far

	target  *Target // nil for discovery
	auth    Auth
	refused error // why the next request is refused: the configuration has changed
}

// An Error ends a login with a status for the initiator and a reason for
// the log.
type Error struct {
	Status pdu.LoginStatus
	What   string
}

func (e Error) Error() string {
	return fmt.Sprintf("login failed with status %#04x: %s", uint16(e.Status), e.What)
}

// Errorf returns an [Error]. What it says may quote the initiator: it is bounded and escaped here.
func Errorf(status pdu.LoginStatus, format string, args ...any) error {
	return Error{status, iscsiname.Printable(fmt.Sprintf(format, args...), maxWhat)}
}

// ErrNoTarget refuses the login to a target that is not there, or not through this
// portal group.
var ErrNoTarget = Errorf(pdu.TargetNotFound, "no such target here")

// NoSession refuses to let a connection join a session that is not there, or is
// another initiator's.
func NoSession(tsih uint16) error {
	return Errorf(pdu.SessionDoesNotExist, "no session with TSIH %#x", tsih)
}

// An Answer is what a request is answered with.
type Answer struct {
	Response pdu.LoginResponse
	Text     []byte
	// Complete says that everything is agreed on. The caller opens the session, or
	// joins it, and gives the response its TSIH and command numbers. If it can't
	// do that yet, it gives the same request to [Login.Step] again.
	Complete bool
}

// Refusal returns the response that tells the initiator of an error. req is nil
// when it has sent something else than a login request.
func Refusal(err error, req *pdu.LoginRequest) pdu.LoginResponse {
	p := pdu.LoginResponse{Status: pdu.InitiatorError}
	if e := (Error{}); errors.As(err, &e) {
		p.Status = e.Status
	}
	if req != nil {
		p.ISID, p.TSIH, p.InitiatorTaskTag, p.CSG = req.ISID, req.TSIH, req.InitiatorTaskTag, req.CSG
		p.ExpCmdSN, p.MaxCmdSN = req.CmdSN, req.CmdSN
	}
	return p
}

// Step takes the login one request further. An [Error] ends it; see [Refusal]. After another
// one the login is where it was, and the same request may be given again.
func (l *Login) Step(n Node, req *pdu.LoginRequest, data []byte) (Answer, error) {
	before := *l
	a, err := l.step(n, req, data)
	if err != nil && !errors.As(err, new(Error)) {
		*l = before
	}
	return a, err
}

func (l *Login) step(n Node, req *pdu.LoginRequest, data []byte) (Answer, error) {
	if l.refused != nil {
		return Answer{}, l.refused
	}
	if l.Finishing {
		return l.finish(n, req) // the caller could not do it before
	}
	if err := l.checkHeader(req); err != nil {
		return Answer{}, err
	}
	if len(l.Text)+len(data) > maxText {
		return Answer{}, Errorf(pdu.InitiatorError, "login text of more than %d bytes", maxText)
	}
	l.Text = append(l.Text, data...)
	if req.Continue {
		return respond(req, nil, false), nil
	}
	pairs, err := pdu.ParseText(l.Text)
	l.Text = nil
	if err != nil {
		return Answer{}, Errorf(pdu.InitiatorError, "%v", err)
	}
	if !l.Identified {
		if err := l.identify(n, req, pairs); err != nil {
			return Answer{}, err
		}
	}
	if err := l.sameNames(pairs); err != nil {
		return Answer{}, err
	}
	if l.Keys += len(pairs); l.Keys > pdu.MaxPairs {
		return Answer{}, Errorf(pdu.InitiatorError, "more than %d keys", pdu.MaxPairs)
	}
	answer, err := l.negotiate(n, req, pairs)
	if err != nil {
		return Answer{}, err
	}
	return l.transit(n, req, answer)
}

// Resume goes on with the login of another process. If its target is gone or
// closed to the initiator by now, its next request is answered as the first would
// have been.
func (l *Login) Resume(n Node) {
	if l.Identified {
		l.refused = l.resolve(n, &l.First)
	}
}

// checkHeader checks the fields of a request against the rules and the first
// request (RFC 7143 11.12).
func (l *Login) checkHeader(req *pdu.LoginRequest) error {
	l.Requests++
	switch {
	case l.Requests > maxRequests:
		return Errorf(pdu.InitiatorError, "more than %d login requests", maxRequests)
	case req.VersionMin > 0:
		return Errorf(pdu.UnsupportedVersion, "version %#x or later wanted, this is 0", req.VersionMin)
	case req.CSG > pdu.LoginOperationalNegotiation:
		return Errorf(pdu.InitiatorError, "current stage %d", req.CSG)
	case req.Transit && req.Continue:
		return Errorf(pdu.InitiatorError, "T and C bit both set")
	case req.Transit && (req.NSG <= req.CSG || req.NSG == 2):
		return Errorf(pdu.InitiatorError, "transit from stage %d to %d", req.CSG, req.NSG)
	}
	if !l.Started {
		l.Started, l.First, l.Stage = true, *req, req.CSG
		l.Negotiation.Params = rfcDefaults()
		return nil
	}
	f := &l.First
	if req.ISID != f.ISID || req.TSIH != f.TSIH || req.CID != f.CID || req.InitiatorTaskTag != f.InitiatorTaskTag {
		return Errorf(pdu.InitiatorError, "ISID, TSIH, CID or task tag changed during login")
	}
	if req.CSG != l.Stage {
		return Errorf(pdu.InitiatorError, "request for stage %d in stage %d", req.CSG, l.Stage)
	}
	return nil
}

// identify finds out from the first request who wants what (RFC 7143 6.3.1).
func (l *Login) identify(n Node, req *pdu.LoginRequest, pairs []pdu.Pair) error {
	for _, p := range pairs {
		switch p.Key {
		case "InitiatorName":
			if err := iscsiname.Check(p.Value); err != nil {
				return Errorf(pdu.InitiatorError, "InitiatorName: %v", err)
			}
			l.Initiator = strings.ToLower(p.Value)
		case "InitiatorAlias":
			if len(p.Value) > pdu.MaxValueLen {
				return Errorf(pdu.InitiatorError, "InitiatorAlias of %d bytes, the limit is %d", len(p.Value), pdu.MaxValueLen)
			}
			l.Alias = p.Value
		case "TargetName":
			if len(p.Value) > iscsiname.MaxLen {
				return ErrNoTarget
			}
			l.TargetName = strings.ToLower(p.Value)
		case "SessionType":
			if p.Value != "Discovery" && p.Value != "Normal" {
				return Errorf(pdu.SessionTypeNotSupported, "SessionType=%q", p.Value)
			}
			l.Discovery = p.Value == "Discovery"
		}
	}
	switch {
	case l.Initiator == "":
		return Errorf(pdu.MissingParameter, "no InitiatorName")
	case !l.Discovery && l.TargetName == "":
		return Errorf(pdu.MissingParameter, "no TargetName")
	}
	l.Identified = true
	return l.resolve(n, req)
}

// sameNames refuses other names than those that were looked up: a key is sent once
// in a negotiation (RFC 7143 6.2), and what was allowed was allowed to these.
func (l *Login) sameNames(pairs []pdu.Pair) error {
	for _, p := range pairs {
		name := strings.ToLower(p.Value)
		if p.Key == "InitiatorName" && name != l.Initiator || p.Key == "TargetName" && name != l.TargetName {
			return Errorf(pdu.InitiatorError, "%s sent again with another value", p.Key)
		}
	}
	return nil
}

// resolve looks up what the names stand for, and whether the initiator may. Names are checked
// here, as a login may have come from a process that did not.
func (l *Login) resolve(n Node, req *pdu.LoginRequest) error {
	if err := iscsiname.Check(l.Initiator); err != nil {
		return Errorf(pdu.InitiatorError, "InitiatorName: %v", err)
	}
	l.Alias = iscsiname.Printable(l.Alias, pdu.MaxValueLen) // it is for people
	if l.Discovery {
		l.auth = n.Discovery()
		if req.TSIH != 0 {
			return Errorf(pdu.CantIncludeInSession, "a discovery session has one connection")
		}
		return nil
	}
	t := n.Target(l.TargetName)
	if t == nil {
		return ErrNoTarget
	}
	l.target, l.auth = t, t.Auth
	if err := l.admit(n); err != nil {
		return err
	}
	if t.Offline {
		return Errorf(pdu.ServiceUnavailable, "the target is offline")
	}
	if req.TSIH != 0 && !n.Joins(req.TSIH, l.TargetName, l.Initiator, req.ISID) {
		return NoSession(req.TSIH)
	}
	return nil
}

// admit asks whether the initiator may use the target, as far as is known who it
// is.
func (l *Login) admit(n Node) error {
	if l.target == nil {
		return nil
	}
	return n.Admit(l.TargetName, Peer{
		Addr: n.Address(), Initiator: l.Initiator, Account: string(l.Account), Unproven: l.auth.Required() && !l.Verified,
	})
}

// negotiate answers the keys of a request.
func (l *Login) negotiate(n Node, req *pdu.LoginRequest, pairs []pdu.Pair) ([]pdu.Pair, error) {
	var answer []pdu.Pair
	if l.target != nil && l.Negotiation.once("TargetPortalGroupTag") {
		answer = append(answer, pdu.Pair{Key: "TargetPortalGroupTag", Value: fmt.Sprint(n.Group())})
		if l.target.Alias != "" {
			answer = append(answer, pdu.Pair{Key: "TargetAlias", Value: l.target.Alias})
		}
	}
	var more []pdu.Pair
	var err error
	if req.CSG == pdu.SecurityNegotiation {
		more, err = l.security(n, pairs)
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
func (l *Login) security(n Node, pairs []pdu.Pair) ([]pdu.Pair, error) {
	var answer []pdu.Pair
	chap := make(map[string]string)
	for _, p := range pairs {
		switch {
		case isDeclaration(p.Key):
		case p.Key == "AuthMethod":
			if !l.Negotiation.once(p.Key) {
				return nil, Errorf(pdu.InitiatorError, "key %s negotiated twice", p.Key)
			}
			if err := l.chooseMethod(p.Value); err != nil {
				return nil, err
			}
			answer = append(answer, pdu.Pair{Key: p.Key, Value: l.Method})
		case strings.HasPrefix(p.Key, "CHAP_"):
			if _, twice := chap[p.Key]; twice {
				return nil, Errorf(pdu.InitiatorError, "key %s sent twice", p.Key)
			}
			chap[p.Key] = p.Value
		case isOperational(p.Key):
			return nil, Errorf(pdu.InvalidDuringLogin, "key %s in the security stage", p.Key)
		default:
			answer = append(answer, pdu.Pair{Key: p.Key, Value: valueNotUnderstood})
		}
	}
	if len(chap) == 0 {
		return answer, nil
	}
	more, err := l.chap(n, chap)
	return append(answer, more...), err
}

func (l *Login) chooseMethod(offer string) error {
	want := "None"
	if l.auth.Required() {
		want = "CHAP"
	}
	if l.Method = choose(offer, []string{want}); l.Method == valueReject {
		return failedAuth("AuthMethod=%s offered, this target needs %s", offer, want)
	}
	return nil
}

// chap takes the CHAP exchange one step further.
func (l *Login) chap(n Node, keys map[string]string) ([]pdu.Pair, error) {
	if l.Method != "CHAP" || l.Verified {
		return nil, failedAuth("CHAP keys out of place")
	}
	if a, ok := keys["CHAP_A"]; ok {
		if l.CHAP.Algorithm != 0 {
			return nil, failedAuth("CHAP_A sent twice")
		}
		return l.CHAP.offer(a, &l.auth, n.Random())
	}
	if err := n.Prove(keys["CHAP_N"]); err != nil {
		return nil, err
	}
	answer, err := l.CHAP.verify(keys, &l.auth, l.Initiator)
	n.Proved(keys["CHAP_N"], err == nil)
	if l.Verified = err == nil; l.Verified {
		l.Account = []byte(keys["CHAP_N"])
	}
	return answer, err
}

// operational handles the keys of the operational negotiation stage.
func (l *Login) operational(pairs []pdu.Pair) ([]pdu.Pair, error) {
	if l.auth.Required() && !l.Verified {
		return nil, failedAuth("the initiator did not authenticate")
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
			return nil, Errorf(pdu.InitiatorError, "key %s negotiated twice", p.Key)
		}
		if a, answered := n.operational(p.Key, p.Value, &limits, l.First.TSIH == 0, !l.Discovery); answered {
			answer = append(answer, pdu.Pair{Key: p.Key, Value: a})
		}
	}
	if !n.Declared {
		n.Declared = true
		answer = append(answer, pdu.Pair{Key: "MaxRecvDataSegmentLength", Value: fmt.Sprint(limits.MaxRecvDataSegmentLength)})
	}
	return answer, nil
}

func (l *Login) limits() Limits {
	if l.target == nil {
		return discovery()
	}
	return l.target.Limits
}

// transit answers a request, in the next stage if the initiator wants that and
// the target agrees.
func (l *Login) transit(n Node, req *pdu.LoginRequest, answer []pdu.Pair) (Answer, error) {
	text := pdu.AppendText(nil, answer...)
	if len(text) > DefaultSegment {
		return Answer{}, Errorf(pdu.InitiatorError, "the answer to all these keys has %d bytes", len(text))
	}
	next := req.Transit
	if req.CSG == pdu.SecurityNegotiation && l.auth.Required() && !l.Verified {
		if next && l.Method == "" {
			return Answer{}, failedAuth("the initiator did not offer to authenticate")
		}
		next = false
	}
	if !next {
		return respond(req, text, false), nil
	}
	if req.NSG == pdu.FullFeaturePhase {
		l.Finishing, l.Answer = true, text
		return l.finish(n, req)
	}
	l.Stage = req.NSG
	return respond(req, text, true), nil
}

// respond makes a response of status success.
func respond(req *pdu.LoginRequest, text []byte, transit bool) Answer {
	p := pdu.LoginResponse{
		Transit: transit, CSG: req.CSG, ISID: req.ISID, TSIH: req.TSIH,
		InitiatorTaskTag: req.InitiatorTaskTag, DataLength: uint32(len(text)),
	}
	p.ExpCmdSN, p.MaxCmdSN = req.CmdSN, req.CmdSN
	if transit {
		p.NSG = req.NSG
	}
	return Answer{Response: p, Text: text}
}

// finish answers the last request.
func (l *Login) finish(n Node, req *pdu.LoginRequest) (Answer, error) {
	l.Negotiation.check()
	if err := l.admit(n); err != nil {
		return Answer{}, err
	}
	a := respond(req, l.Answer, true)
	a.Complete = true
	return a, nil
}

// Agreed is what a login has come to for its connection.
type Agreed struct {
	HeaderDigest, DataDigest bool
	SendLimit, ReceiveLimit  int // bytes of a data segment
}

// Agreed returns what holds for the connection in full feature phase.
func (l *Login) Agreed() Agreed {
	n, limits := &l.Negotiation, l.limits()
	a := Agreed{HeaderDigest: n.HeaderDigest, DataDigest: n.DataDigest, SendLimit: DefaultSegment, ReceiveLimit: DefaultSegment}
	if n.SendLimit > 0 {
		a.SendLimit = int(n.SendLimit)
	}
	if x := limits.MaxXmitDataSegmentLength; x > 0 {
		a.SendLimit = min(a.SendLimit, x)
	}
	if n.Declared {
		a.ReceiveLimit = limits.MaxRecvDataSegmentLength
	}
	return a
}
