// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/target/mem"
)

const maxText = 64 << 10 // bytes of one text request in all its parts

// asker is who sends a Text Request: a session, on one of its connections.
type asker struct {
	node *Node
	sess *session
	conn *transport
}

// handleText handles a Text Request (RFC 7143 11.10), of which SendTargets is
// the only use.
func (n *Node) handleText(s *session, c *transport, h *pdu.BHS, data []byte) {
	var req pdu.TextRequest
	req.Decode(h)
	s.mu.Lock()
	x := &s.text
	if req.TargetTransferTag == pdu.ReservedTag {
		s.newTextLocked(req.InitiatorTaskTag) // a new exchange ends the one before
	} else if !x.Open || req.TargetTransferTag != x.TTT || req.InitiatorTaskTag != x.ITT {
		s.mu.Unlock()
		c.reject(pdu.ProtocolError, h)
		return
	}
	reason, ok := asker{n, s, c}.stepLocked(&req, data)
	if !ok {
		s.newTextLocked(pdu.ReservedTag)
	}
	s.mu.Unlock()
	if !ok {
		c.reject(reason, h)
	}
}

// stepLocked takes the text exchange one request further.
func (a asker) stepLocked(req *pdu.TextRequest, data []byte) (pdu.RejectReason, bool) {
	s := a.sess
	x := &s.text
	switch {
	case len(data) > 0 && len(x.Out) > 0:
		return pdu.ProtocolError, false // RFC 7143 11.10: the answer is fetched with empty requests
	case len(x.In)+len(data) > maxText:
		return pdu.ProtocolError, false
	case !s.holdTextLocked(2 * len(data)): // a slice that grows
		return pdu.LongOperationReject, false
	}
	x.In = append(x.In, data...)
	if req.Continue {
		a.respondLocked(nil, false)
		return 0, true
	}
	if len(x.In) > 0 {
		pairs, err := pdu.ParseText(x.In)
		x.In = nil
		if err != nil || repeats(pairs) {
			return pdu.ProtocolError, false
		}
		out := a.answer(pairs)
		s.newTextLocked(x.ITT)
		if !s.holdTextLocked(len(out)) {
			return pdu.LongOperationReject, false
		}
		x.Out = out
	}
	n := min(len(x.Out), a.conn.agreed.SendLimit, maxText)
	part := x.Out[:n]
	x.Out = x.Out[n:]
	a.respondLocked(part, len(x.Out) == 0 && req.Final)
	return 0, true
}

// repeats reports whether a key is there twice (RFC 7143 6.2: an error).
func repeats(pairs []pdu.Pair) bool {
	seen := make(map[string]struct{}, len(pairs))
	for _, p := range pairs {
		seen[p.Key] = struct{}{}
	}
	return len(seen) < len(pairs)
}

// respondLocked queues a Text Response. One that is not final has a
// target transfer tag for the initiator to come back with.
func (a asker) respondLocked(part []byte, final bool) {
	s := a.sess
	x := &s.text
	p := pdu.TextResponse{
		Final: final, Continue: len(x.Out) > 0, DataLength: uint32(len(part)),
		InitiatorTaskTag: x.ITT, TargetTransferTag: pdu.ReservedTag,
	}
	x.Open = !final
	if !final {
		x.TTT = s.window.NewTag()
		p.TargetTransferTag = x.TTT
	}
	var b *mem.Buffer
	if len(part) > 0 {
		b = a.conn.pool.Get(len(part)) // what is on the account already, once more while it waits
		copy(b.B, part)
	}
	a.conn.out.SendData(header(&p), true, b)
	if len(x.Out) == 0 && len(x.In) == 0 {
		s.memory.Release(s.textHeld)
		s.textHeld = 0
	}
}

// answer answers the keys of a text request.
func (a asker) answer(pairs []pdu.Pair) []byte {
	var out []byte
	for _, p := range pairs {
		if p.Key == "SendTargets" {
			out = a.appendTargets(out, p.Value)
			continue
		}
		out = pdu.AppendText(out, pdu.Pair{Key: p.Key, Value: login.Unexpected(p.Key)})
	}
	return out
}

// appendTargets answers SendTargets (RFC 7143 appendix C): in a discovery
// session all targets or one, in a normal session the session's own.
func (a asker) appendTargets(out []byte, which string) []byte {
	which = strings.ToLower(which)
	s := a.sess
	if s.target != nil {
		if which == "" || which == s.target.Name {
			return a.appendTarget(out, s.target)
		}
		return out
	}
	for _, t := range a.visible() {
		if which == "all" || which == strings.ToLower(t.Name) {
			out = a.appendTarget(out, t)
		}
	}
	return out
}

// visible returns the targets that the initiator of a discovery session may know
// of. What is for some accounts alone shows to one that was not asked for its own.
func (a asker) visible() []*Target {
	n := a.node
	n.mu.Lock()
	order := slices.Clone(n.order)
	n.mu.Unlock()
	return slices.DeleteFunc(order, func(t *Target) bool {
		p := Peer{Addr: a.conn.remote.Addr(), Initiator: a.sess.initiator, Account: a.sess.account}
		p.Unproven = p.Account == "" && t.Auth.Required()
		ok, _ := t.allows(p)
		return !ok
	})
}

// appendTarget adds a target's name and the addresses it is reached at.
func (a asker) appendTarget(out []byte, t *Target) []byte {
	out = pdu.AppendText(out, pdu.Pair{Key: "TargetName", Value: t.Name})
	a.node.mu.Lock()
	groups := a.node.groups
	a.node.mu.Unlock()
	var seen []string
	for _, g := range groups {
		if !t.reachedThrough(g.Tag) {
			continue
		}
		for _, addr := range g.addresses(a.conn.sock.Local()) {
			value := fmt.Sprintf("%s,%d", addr, g.Tag)
			if !slices.Contains(seen, value) {
				seen = append(seen, value)
				out = pdu.AppendText(out, pdu.Pair{Key: "TargetAddress", Value: value})
			}
		}
	}
	if len(seen) == 0 {
		out = pdu.AppendText(out, pdu.Pair{Key: "TargetAddress", Value: fmt.Sprintf("%s,%d", withoutZone(a.conn.sock.Local()), a.conn.group)})
	}
	return out
}
