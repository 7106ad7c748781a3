// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"github.com/gotgtd/gotgtd/target/account"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

const maxText = 64 << 10 // bytes of one text request in all its parts

// exchange is the text negotiation of a session that is under way (RFC 7143 11.10), with what it has of
// the session's account. The mutex of the session protects it.
type exchange struct {
	textExchange
	account *account.Account
	held    int64 // bytes that are on the account
}

// An answerer answers the keys of a text request.
type answerer interface {
	answer(pairs []pdu.Pair) []byte
}

// begin forgets the exchange under way and begins another.
func (x *exchange) begin(itt uint32) {
	x.textExchange = textExchange{ITT: itt}
	x.release()
}

func (x *exchange) release() {
	x.account.Release(x.held)
	x.held = 0
}

// hold puts n bytes more on the account, false if that has no room for them.
func (x *exchange) hold(n int) bool {
	ok := x.account.Admit(int64(n))
	if ok {
		x.held += int64(n)
	}
	return ok
}

// takes reports whether a request begins an exchange, which ends the one before, or goes on with
// the one under way.
func (x *exchange) takes(req *pdu.TextRequest) bool {
	if req.TargetTransferTag == pdu.ReservedTag {
		x.begin(req.InitiatorTaskTag)
		return true
	}
	return x.Open && req.TargetTransferTag == x.TTT && req.InitiatorTaskTag == x.ITT
}

// step takes the exchange one request further. It returns what the response carries, of limit bytes at
// most, and whether that is the last one; or why the request is rejected, 0 if it is not.
func (x *exchange) step(req *pdu.TextRequest, data []byte, limit int, a answerer) (part []byte, final bool, fault pdu.RejectReason) {
	switch {
	case len(data) > 0 && len(x.Out) > 0:
		return nil, false, pdu.ProtocolError // RFC 7143 11.10: the answer is fetched with empty requests
	case len(x.In)+len(data) > maxText:
		return nil, false, pdu.ProtocolError
	case !x.hold(2 * len(data)): // a slice that grows
		return nil, false, pdu.LongOperationReject
	}
	x.In = append(x.In, data...)
	if req.Continue {
		return nil, false, 0
	}
	if len(x.In) > 0 {
		pairs, err := pdu.ParseText(x.In)
		x.In = nil
		if err != nil || repeats(pairs) {
			return nil, false, pdu.ProtocolError
		}
		out := a.answer(pairs)
		x.begin(x.ITT)
		if !x.hold(len(out)) {
			return nil, false, pdu.LongOperationReject
		}
		x.Out = out
	}
	n := min(len(x.Out), limit, maxText)
	part, x.Out = x.Out[:n], x.Out[n:]
	return part, len(x.Out) == 0 && req.Final, 0
}

// repeats reports whether a key is there twice (RFC 7143 6.2: an error).
func repeats(pairs []pdu.Pair) bool {
	seen := make(map[string]struct{}, len(pairs))
	for _, p := range pairs {
		seen[p.Key] = struct{}{}
	}
	return len(seen) < len(pairs)
}

// response makes the header of a Text Response with n bytes of text. One that is not final has a
// target transfer tag for the initiator to come back with.
func (x *exchange) response(n int, final bool, ttt uint32) pdu.TextResponse {
	if x.Open = !final; x.Open {
		x.TTT = ttt
	}
	return pdu.TextResponse{
		Final: final, Continue: len(x.Out) > 0, DataLength: uint32(n),
		InitiatorTaskTag: x.ITT, TargetTransferTag: ttt,
	}
}

// settle gives back what the exchange has of the account if nothing of it is left to be sent.
func (x *exchange) settle() {
	if len(x.Out) == 0 && len(x.In) == 0 {
		x.release()
	}
}

// restore goes on with the exchange of another process.
func (x *exchange) restore(t textExchange) {
	x.textExchange = t
	x.held = int64(len(t.In) + len(t.Out))
	x.account.Charge(x.held)
}
