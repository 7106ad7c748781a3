// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// Login connects, logs in and returns the bare connection with what was
// negotiated: digests and the receive limit are in force, everything else is
// up to the caller, who closes it.
func Login(ctx context.Context, o Options) (*Wire, *Params, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	return openConnection(ctx, &o, member{cmdSN: o.InitialCmdSN})
}

// A member says which place a new connection takes: the zero one leads a new
// session.
type member struct {
	tsih, cid uint16
	cmdSN     uint32
	session   *Params // of the session to join; nil for a leading connection
}

func openConnection(ctx context.Context, o *Options, m member) (*Wire, *Params, error) {
	c, err := o.DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return nil, nil, fmt.Errorf("initiator: can't connect: %w", err)
	}
	l := newLogin(NewWire(c), o, m)
	if err := l.run(ctx); err != nil {
		c.Close()
		return nil, nil, err
	}
	l.wire.headerDigest, l.wire.dataDigest = l.params.HeaderDigest, l.params.DataDigest
	l.wire.maxReceive = int(o.MaxRecvDataSegmentLength)
	return l.wire, l.params, nil
}

// maxLoginRounds bounds the requests of one login, so that a target that never
// comes to an end is an error.
const maxLoginRounds = 32

// loginTag is the task tag that all requests of a login share.
const loginTag = 0x4c6f

// A login is a login phase under way on one connection.
type login struct {
	wire   *Wire
	opts   *Options
	as     member
	params *Params
	neg    *negotiation

	rounds   int
	answered bool // a response has set ExpStatSN
	ended    bool // the target has moved to full feature phase
}

func newLogin(w *Wire, o *Options, m member) *login {
	p := &Params{InitialR2T: true, ImmediateData: true, FirstBurstLength: 64 << 10, MaxBurstLength: 256 << 10,
		MaxSendDataSegmentLength: defaultDataSegment, MaxOutstandingR2T: 1, MaxConnections: 1, DefaultTime2Wait: 2, DefaultTime2Retain: 20}
	if m.session != nil {
		*p = *m.session
		p.HeaderDigest, p.DataDigest, p.MaxSendDataSegmentLength, p.Keys = false, false, defaultDataSegment, nil
	}
	p.CmdSN, p.ExpStatSN = m.cmdSN, 0
	return &login{wire: w, opts: o, as: m, params: p, neg: newNegotiation(o, m.session == nil, p)}
}

// run goes through the stages (RFC 7143 6.3).
func (l *login) run(ctx context.Context) error {
	pairs := l.declaration()
	if !l.opts.OperationalFirst {
		if err := l.security(ctx, pairs); err != nil {
			return err
		}
		pairs = nil
	}
	if err := l.operational(ctx, append(pairs, l.neg.pairs()...)); err != nil {
		return err
	}
	if err := l.neg.finish(); err != nil {
		return err
	}
	if _, ok := l.params.Key("TargetPortalGroupTag"); !ok && l.opts.TargetName != "" && l.as.session == nil {
		return violation(nil, "login ended without TargetPortalGroupTag (RFC 7143 13.9)")
	}
	return nil
}

// declaration returns the keys of the first request.
func (l *login) declaration() []pdu.Pair {
	pairs := []pdu.Pair{{Key: "InitiatorName", Value: l.opts.InitiatorName}}
	if l.opts.Alias != "" {
		pairs = append(pairs, pdu.Pair{Key: "InitiatorAlias", Value: l.opts.Alias})
	}
	if l.opts.TargetName != "" {
		pairs = append(pairs, pdu.Pair{Key: "TargetName", Value: l.opts.TargetName})
	}
	if l.as.session == nil || l.opts.Discovery {
		kind := "Normal"
		if l.opts.Discovery {
			kind = "Discovery"
		}
		pairs = append(pairs, pdu.Pair{Key: "SessionType", Value: kind})
	}
	return pairs
}

// security runs the security stage.
func (l *login) security(ctx context.Context, pairs []pdu.Pair) error {
	const stage = pdu.SecurityNegotiation
	if l.opts.CHAP.Secret == "" {
		pairs, err := l.exchange(ctx, stage, true, append(pairs, pdu.Pair{Key: "AuthMethod", Value: "None"}))
		if err != nil {
			return err
		}
		if err := l.method(pairs, "None"); err != nil {
			return err
		}
		return l.leave(ctx, stage)
	}
	offer := "CHAP"
	if l.opts.OfferNone {
		offer = "CHAP,None"
	}
	answer, err := l.exchange(ctx, stage, false, append(pairs, pdu.Pair{Key: "AuthMethod", Value: offer}))
	if err != nil {
		return err
	}
	if err := l.method(answer, "CHAP"); err != nil {
		if !l.opts.OfferNone || l.method(answer, "None") != nil {
			return err
		}
		return l.leave(ctx, stage)
	}
	x := &chapExchange{cred: l.opts.CHAP}
	answer, err = l.exchange(ctx, stage, false, []pdu.Pair{x.offer()})
	if err != nil {
		return err
	}
	response, err := x.respond(answer)
	if err != nil {
		return err
	}
	answer, err = l.exchange(ctx, stage, true, response)
	if err != nil {
		return err
	}
	if err := x.check(answer); err != nil {
		return err
	}
	return l.leave(ctx, stage)
}

// method checks which authentication method the target chose.
func (l *login) method(pairs []pdu.Pair, want string) error {
	for _, p := range pairs {
		if p.Key == "AuthMethod" {
			if p.Value != want {
				return violation(nil, "target chose AuthMethod=%s, want %s", p.Value, want)
			}
			return nil
		}
	}
	return violation(nil, "target did not answer AuthMethod")
}

// leave asks to end the stage until the target agrees.
func (l *login) leave(ctx context.Context, stage pdu.Stage) error {
	for !l.ended {
		if _, err := l.exchange(ctx, stage, true, nil); err != nil {
			return err
		}
	}
	l.ended = false
	return nil
}

// operational runs the operational stage.
func (l *login) operational(ctx context.Context, pairs []pdu.Pair) error {
	for {
		answer, err := l.exchange(ctx, pdu.LoginOperationalNegotiation, true, pairs)
		if err != nil {
			return err
		}
		if pairs, err = l.neg.take(answer); err != nil {
			return err
		}
		if !l.ended {
			continue
		}
		if len(pairs) > 0 {
			return violation(nil, "login ended while %v had yet to be answered", pairs)
		}
		return nil
	}
}

// exchange sends pairs in as many requests as they take and returns the
// pairs of the whole answer. transit asks to end the stage, and l.ended is
// whether the target agreed.
func (l *login) exchange(ctx context.Context, stage pdu.Stage, transit bool, pairs []pdu.Pair) ([]pdu.Pair, error) {
	text := pdu.AppendText(nil, pairs...)
	for len(text) > defaultDataSegment {
		resp, data, err := l.round(ctx, &pdu.LoginRequest{Continue: true, CSG: stage}, text[:defaultDataSegment])
		if err != nil {
			return nil, err
		}
		if len(data) > 0 {
			return nil, violation(resp, "text in the answer to a continued request")
		}
		text = text[defaultDataSegment:]
	}
	req := &pdu.LoginRequest{Transit: transit, CSG: stage}
	if transit {
		req.NSG = next(stage)
	}
	resp, answer, err := l.round(ctx, req, text)
	for err == nil && resp.Continue {
		var more []byte
		resp, more, err = l.round(ctx, req, nil)
		answer = append(answer, more...)
	}
	if err != nil {
		return nil, err
	}
	l.ended = resp.Transit
	got, err := pdu.ParseText(answer)
	if err != nil {
		return nil, violation(resp, "%v", err)
	}
	l.params.Keys = append(l.params.Keys, got...)
	if stage == pdu.SecurityNegotiation {
		return got, l.neg.takeEarly(got)
	}
	return got, nil
}

func next(stage pdu.Stage) pdu.Stage {
	if stage == pdu.SecurityNegotiation {
		return pdu.LoginOperationalNegotiation
	}
	return pdu.FullFeaturePhase
}

// round sends one request and receives its response.
func (l *login) round(ctx context.Context, req *pdu.LoginRequest, text []byte) (*pdu.LoginResponse, []byte, error) {
	l.rounds++
	if l.rounds > maxLoginRounds {
		return nil, nil, violation(req, "login did not end after %d requests", maxLoginRounds)
	}
	req.ISID, req.TSIH, req.CID = l.opts.ISID, l.as.tsih, l.as.cid
	req.InitiatorTaskTag, req.CmdSN, req.ExpStatSN = loginTag, l.as.cmdSN, l.params.ExpStatSN
	if err := l.wire.Send(ctx, req, text, Fault{}); err != nil {
		return nil, nil, fmt.Errorf("initiator: can't send login request: %w", err)
	}
	p, data, err := l.wire.Receive(ctx)
	if err != nil {
		var v *Violation
		if errors.As(err, &v) {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("initiator: no login response: %w", err)
	}
	resp, ok := p.(*pdu.LoginResponse)
	if !ok {
		return nil, nil, violation(p, "not a login response")
	}
	return resp, data, l.check(req, resp)
}

// check judges one login response (RFC 7143 11.13).
func (l *login) check(req *pdu.LoginRequest, resp *pdu.LoginResponse) error {
	if l.answered && resp.StatSN != l.params.ExpStatSN {
		return violation(resp, "StatSN %d, want %d", resp.StatSN, l.params.ExpStatSN)
	}
	switch {
	case resp.InitiatorTaskTag != req.InitiatorTaskTag:
		return violation(resp, "task tag %#x, want %#x", resp.InitiatorTaskTag, req.InitiatorTaskTag)
	case resp.ISID != req.ISID:
		return violation(resp, "ISID %x, want %x", resp.ISID, req.ISID)
	case resp.Status != pdu.LoginSuccess:
		return &LoginError{Status: resp.Status}
	case resp.VersionActive != 0 || resp.VersionMax != 0:
		return violation(resp, "version %d of at most %d", resp.VersionActive, resp.VersionMax)
	case resp.CSG != req.CSG:
		return violation(resp, "stage %d, want %d", resp.CSG, req.CSG)
	case resp.Transit && (!req.Transit || resp.Continue):
		return violation(resp, "T bit without having been asked, or with the C bit")
	case resp.Transit && resp.NSG != req.NSG:
		return violation(resp, "next stage %d, want %d", resp.NSG, req.NSG)
	case !resp.Transit && resp.NSG != 0:
		return violation(resp, "next stage %d without T bit", resp.NSG)
	case req.Continue && (resp.Transit || resp.Continue):
		return violation(resp, "T or C bit in the answer to a continued request")
	case pdu.SNLess(resp.MaxCmdSN, resp.ExpCmdSN-1):
		return violation(resp, "MaxCmdSN before ExpCmdSN-1")
	case l.as.session == nil && resp.ExpCmdSN != req.CmdSN:
		return violation(resp, "ExpCmdSN %d, want %d: a login does not advance it", resp.ExpCmdSN, req.CmdSN)
	}
	l.answered = true
	l.params.ExpStatSN = resp.StatSN + 1
	l.params.ExpCmdSN, l.params.MaxCmdSN = resp.ExpCmdSN, resp.MaxCmdSN
	return l.handle(req, resp)
}

// handle checks and keeps the session handle: a new one comes with the last
// response of a leading login, and an old one never changes.
func (l *login) handle(req *pdu.LoginRequest, resp *pdu.LoginResponse) error {
	last := resp.Transit && resp.NSG == pdu.FullFeaturePhase
	switch {
	case req.TSIH != 0 && resp.TSIH != req.TSIH && (last || resp.TSIH != 0):
		return violation(resp, "TSIH %d, want %d", resp.TSIH, req.TSIH)
	case last && resp.TSIH == 0:
		return violation(resp, "login ended without a TSIH")
	case req.TSIH == 0 && !last && resp.TSIH != 0:
		return violation(resp, "TSIH %d before the login's end", resp.TSIH)
	}
	l.params.TSIH = resp.TSIH
	return nil
}
