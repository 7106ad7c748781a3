// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"bytes"
	"fmt"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// sendControlLocked queues a control request, filling in what only the sender
// knows.
func (c *conn) sendControlLocked(t *task) {
	switch p := t.control.request.(type) {
	case *pdu.NOPOut:
		p.Immediate, p.InitiatorTaskTag, p.CmdSN, p.ExpStatSN = t.immediate, t.tag, t.cmdSN, c.expStatSN
	case *pdu.TaskManagementRequest:
		p.Immediate, p.InitiatorTaskTag, p.CmdSN, p.ExpStatSN = t.immediate, t.tag, t.cmdSN, c.expStatSN
	case *pdu.TextRequest:
		p.Immediate, p.InitiatorTaskTag, p.CmdSN, p.ExpStatSN = t.immediate, t.tag, t.cmdSN, c.expStatSN
	case *pdu.LogoutRequest:
		c.s.leaveLocked(p, c, true)
		p.Immediate, p.InitiatorTaskTag, p.CmdSN, p.ExpStatSN = t.immediate, t.tag, t.cmdSN, c.expStatSN
	}
	t.control.request.Encode(&c.head)
	t.noteData(c.out.put(&c.head, t.control.data, c.params.HeaderDigest, c.params.DataDigest), uint32(len(t.control.data)))
}

// onControl handles every PDU that does not belong to a command's data or
// status.
func (c *conn) onControl(p pdu.PDU, data []byte) error {
	var t *task
	var err error
	switch p := p.(type) {
	case *pdu.NOPIn:
		t, err = c.onNOPIn(p, data)
	case *pdu.TaskManagementResponse:
		t, err = c.onTaskManagement(p)
	case *pdu.TextResponse:
		t, err = c.onText(p, data)
	case *pdu.LogoutResponse:
		return c.onLogout(p)
	case *pdu.AsyncMessage:
		err = c.onAsync(p, data)
	case *pdu.Reject:
		t, err = c.onReject(p, data)
	}
	if err != nil {
		return err
	}
	c.advance()
	if t != nil {
		c.s.settle(t)
	}
	return nil
}

// answerLocked finds the control request of type R that p answers, and keeps p
// as its answer.
func answerLocked[R pdu.PDU](c *conn, p pdu.PDU, tag uint32, seq *pdu.Sequence, data []byte) (*task, R, error) {
	var request R
	t := c.s.tasks.find(tag, c)
	if t == nil || t.control == nil {
		return nil, request, violation(p, "no request with tag %#x waits on this connection", tag)
	}
	request, ok := t.control.request.(R)
	switch {
	case !ok:
		return nil, request, violation(p, "answer to another kind of request: %s", t.control.request)
	case !t.immediate && !pdu.SNLess(t.cmdSN, seq.ExpCmdSN):
		return nil, request, violation(p, "answer to request %d, which ExpCmdSN %d does not acknowledge", t.cmdSN, seq.ExpCmdSN)
	}
	t.answered = true
	t.control.answer, t.control.reply = p, data
	return t, request, nil
}

// onNOPIn handles an answered ping, or answers the target's (RFC 7143 11.19).
func (c *conn) onNOPIn(p *pdu.NOPIn, data []byte) (*task, error) {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.InitiatorTaskTag == pdu.ReservedTag {
		return nil, c.onPingLocked(p, data)
	}
	if err := c.arriveLocked(p, &p.Sequence, statOwn); err != nil {
		return nil, err
	}
	t, request, err := answerLocked[*pdu.NOPOut](c, p, p.InitiatorTaskTag, &p.Sequence, data)
	if err != nil {
		return nil, err
	}
	sent := t.control.data[:min(len(t.control.data), c.wire.maxReceive)]
	switch {
	case p.TargetTransferTag != pdu.ReservedTag:
		return nil, violation(p, "target transfer tag in the answer to a ping")
	case p.LUN != 0 && p.LUN != request.LUN:
		return nil, violation(p, "LUN in the answer to a ping")
	case !bytes.Equal(sent, data):
		return nil, violation(p, "ping data differs: sent %d bytes, came %d", len(sent), len(data))
	}
	return t, nil
}

// onPingLocked handles a NOP-In that the target began.
func (c *conn) onPingLocked(p *pdu.NOPIn, data []byte) error {
	if err := c.arriveLocked(p, &p.Sequence, statNext); err != nil {
		return err
	}
	switch {
	case len(data) > 0:
		return violation(p, "data in a NOP-In that is no answer")
	case p.TargetTransferTag == pdu.ReservedTag:
		if p.LUN != 0 {
			return violation(p, "LUN in a NOP-In that wants no answer")
		}
		return nil
	case c.out.flooded():
		return violation(p, "the target pings and does not read the answers")
	}
	c.nopLocked(p.TargetTransferTag, p.LUN)
	return nil
}

// nopLocked queues a NOP-Out that wants no answer.
func (c *conn) nopLocked(transferTag uint32, lun uint64) {
	p := pdu.NOPOut{Immediate: true, LUN: lun, InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: transferTag, CmdSN: c.s.cmdSN, ExpStatSN: c.expStatSN}
	p.Encode(&c.head)
	c.out.put(&c.head, nil, c.params.HeaderDigest, c.params.DataDigest)
}

func (c *conn) onText(p *pdu.TextResponse, data []byte) (*task, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err := c.arriveLocked(p, &p.Sequence, statOwn); err != nil {
		return nil, err
	}
	t, _, err := answerLocked[*pdu.TextRequest](c, p, p.InitiatorTaskTag, &p.Sequence, data)
	switch {
	case err != nil:
		return nil, err
	case p.Final && (p.Continue || p.TargetTransferTag != pdu.ReservedTag):
		return nil, violation(p, "F bit with C bit or with a target transfer tag")
	case !p.Final && p.TargetTransferTag == pdu.ReservedTag:
		return nil, violation(p, "no target transfer tag to go on with")
	}
	return t, nil
}

// onReject ends the request that was rejected; a rejected PDU that nothing
// waits for ends the session.
func (c *conn) onReject(p *pdu.Reject, data []byte) (*task, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err := c.arriveLocked(p, &p.Sequence, statOwn); err != nil {
		return nil, err
	}
	if len(data) < pdu.BHSLen {
		return nil, violation(p, "a Reject with %d bytes of the rejected header", len(data))
	}
	rejected := &RejectError{Reason: p.Reason, Header: pdu.BHS(data)}
	t := c.s.tasks.find(rejected.Header.InitiatorTaskTag(), c)
	if t == nil {
		return nil, rejected
	}
	t.answered = true
	c.s.setError(t, rejected)
	return t, nil
}

// onAsync acts on an asynchronous message (RFC 7143 11.9).
func (c *conn) onAsync(p *pdu.AsyncMessage, data []byte) error {
	s := c.s
	s.mu.Lock()
	err := c.arriveLocked(p, &p.Sequence, statOwn)
	s.draining = s.draining || err == nil && p.Event == pdu.AsyncLogoutRequest
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if s.opts.OnAsync != nil {
		s.opts.OnAsync(*p, data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p.Event {
	case pdu.AsyncSCSI:
		if len(data) < 2 {
			return violation(p, "SCSI event without sense data")
		}
	case pdu.AsyncLogoutRequest:
		if s.tasks.used == 0 {
			s.logoutLocked()
		}
	case pdu.AsyncDropConnection, pdu.AsyncDropSession:
		return fmt.Errorf("initiator: the target is dropping connections: %s", p)
	case pdu.AsyncNegotiateRequest:
		return c.emptyTextLocked()
	case pdu.AsyncTasksTerminated:
		return violation(p, "fast abort was not negotiated")
	default:
		if p.Event < 248 {
			return violation(p, "undefined event %d", p.Event)
		}
	}
	return nil
}

// emptyTextLocked answers a request to negotiate with nothing to negotiate.
func (c *conn) emptyTextLocked() error {
	t := c.s.tasks.get()
	if t == nil {
		return ErrTooManyCommands
	}
	t.conn, t.immediate = c, true
	t.control = &control{request: &pdu.TextRequest{Final: true, TargetTransferTag: pdu.ReservedTag}}
	c.s.sendLocked(t)
	return nil
}

// logoutLocked asks to close the session, once, without anyone to wait for the
// answer. No task is under way.
func (s *Session) logoutLocked() {
	if s.asked {
		return
	}
	s.asked = true
	t := s.tasks.get()
	t.conn, t.immediate = s.conns[0], true
	t.control = &control{request: &pdu.LogoutRequest{Reason: pdu.CloseSession}}
	s.sendLocked(t)
}

// onLogout ends the connection, or all of them, after the logout's success. Nothing
// may follow on the wire.
func (c *conn) onLogout(p *pdu.LogoutResponse) error {
	s := c.s
	s.mu.Lock()
	if err := c.arriveLocked(p, &p.Sequence, statOwn); err != nil {
		s.mu.Unlock()
		return err
	}
	t, request, err := answerLocked[*pdu.LogoutRequest](c, p, p.InitiatorTaskTag, &p.Sequence, nil)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	if p.Response == pdu.LogoutSuccess {
		err = c.endLocked(p, request)
	} else {
		s.leaveLocked(request, c, false)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	s.settle(t)
	return nil
}

// leaveLocked notes which connections the target may close before the response
// to a logout over c is seen: all that the request is about, but for c itself.
func (s *Session) leaveLocked(request *pdu.LogoutRequest, c *conn, leaving bool) {
	for _, other := range s.conns {
		if other != c && (request.Reason == pdu.CloseSession || request.CID == other.cid) {
			other.leaving = leaving
		}
	}
}

// endLocked closes what a successful logout request closes.
func (c *conn) endLocked(p pdu.PDU, request *pdu.LogoutRequest) error {
	s := c.s
	if request.Reason == pdu.CloseSession {
		if c.wire.w > c.wire.r {
			return violation(p, "%d bytes follow the end of the session", c.wire.w-c.wire.r)
		}
		s.failLocked(ErrLoggedOut)
		return nil
	}
	for i, other := range s.conns {
		if other.cid != request.CID {
			continue
		}
		if len(s.conns) == 1 {
			s.failLocked(ErrLoggedOut)
			return nil
		}
		s.conns = append(append([]*conn(nil), s.conns[:i]...), s.conns[i+1:]...)
		other.closeLocked()
		for _, t := range s.waiting {
			if t.conn == other {
				t.conn = s.conns[0]
			}
		}
		return nil
	}
	return violation(p, "logout of connection %d, which does not exist, succeeded", request.CID)
}
