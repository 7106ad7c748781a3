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

// handleText handles a Text Request (RFC 7143 11.10), of which SendTargets is
// the only use.
func (n *Node) handleText(s *session, c *transport, h *pdu.BHS, data []byte) {
	var req pdu.TextRequest
	req.Decode(h)
	if fault := n.answerText(s, c, &req, data); fault != 0 {
		c.reject(fault, h)
	}
}

// answerText takes the session's text negotiation one request further, and queues the response. It
// returns why the request is rejected, 0 if it is not.
func (n *Node) answerText(s *session, c *transport, req *pdu.TextRequest, data []byte) pdu.RejectReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.text.takes(req) {
		return pdu.ProtocolError
	}
	part, final, fault := s.text.step(req, data, c.agreed.SendLimit, sendTargets{n, s, c})
	if fault != 0 {
		s.text.begin(pdu.ReservedTag)
		return fault
	}
	ttt := uint32(pdu.ReservedTag)
	if !final {
		ttt = s.window.NewTag()
	}
	p := s.text.response(len(part), final, ttt)
	var b *mem.Buffer
	if len(part) > 0 {
		b = c.pool.Get(len(part)) // what is on the account already, once more while it waits
		copy(b.B, part)
	}
	c.out.SendData(header(&p), true, b)
	s.text.settle()
	return 0
}

// sendTargets answers the keys of a Text Request that a session sends on one of its connections;
// it is an [answerer].
type sendTargets struct {
	node *Node
	sess *session
	conn *transport
}

// answer implements [answerer].
func (a sendTargets) answer(pairs []pdu.Pair) []byte {
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
func (a sendTargets) appendTargets(out []byte, which string) []byte {
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
func (a sendTargets) visible() []*Target {
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
func (a sendTargets) appendTarget(out []byte, t *Target) []byte {
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
