// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// request runs a control request on the connection with that number (zero: in
// turn) and waits for its answer. As with Do, a missing answer ends the
// session.
func (s *Session) request(ctx context.Context, connection int, immediate bool, c *control) error {
	c.done = make(chan struct{})
	s.mu.Lock()
	t, err := s.newTaskLocked(connection)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	t.control, t.immediate = c, immediate
	s.enterLocked(t)
	out := t.conn.out
	s.mu.Unlock()
	out.flush()
	select {
	case <-c.done:
	case <-ctx.Done():
		s.fail(fmt.Errorf("initiator: no answer to %s: %w", c.request, context.Cause(ctx)))
		<-c.done
	}
	return c.err
}

// Ping sends a NOP-Out with data on a connection (zero: in turn) and checks that
// the answer brings it back, as far as MaxRecvDataSegmentLength allows
// (RFC 7143 11.18). data must be short enough for the target's limit.
func (s *Session) Ping(ctx context.Context, connection int, immediate bool, data []byte) error {
	return s.request(ctx, connection, immediate, &control{request: &pdu.NOPOut{TargetTransferTag: pdu.ReservedTag}, data: data})
}

// TaskManagement runs a task management function on a logical unit and returns
// the response (RFC 7143 11.6.1). victim is the command of AbortTask, nil for
// the other functions; the request goes over its connection. When the
// function is complete, the commands it ended are done with [ErrAborted].
func (s *Session) TaskManagement(ctx context.Context, function pdu.TaskFunction, lun uint64, victim *Command) (uint8, error) {
	p := &pdu.TaskManagementRequest{Function: function, LUN: lun, ReferencedTaskTag: pdu.ReservedTag}
	if function == pdu.TargetWarmReset || function == pdu.TargetColdReset {
		p.LUN = 0
	}
	connection := 0
	if victim != nil {
		s.mu.Lock()
		p.ReferencedTaskTag, p.RefCmdSN = victim.tag, victim.cmdSN
		for _, t := range s.tasks.underWay() {
			if t.cmd == victim {
				connection = t.conn.index
			}
		}
		s.mu.Unlock()
	}
	c := &control{request: p}
	if err := s.request(ctx, connection, true, c); err != nil {
		return 0, err
	}
	return c.answer.(*pdu.TaskManagementResponse).Response, nil
}

// onTaskManagement takes the response to a function, and ends the commands
// that the function ended.
func (c *conn) onTaskManagement(p *pdu.TaskManagementResponse) (*task, error) {
	s := c.s
	s.mu.Lock()
	if err := c.arriveLocked(p, &p.Sequence, statOwn); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	t, request, err := answerLocked[*pdu.TaskManagementRequest](c, p, p.InitiatorTaskTag, &p.Sequence, nil)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	var ended []*task
	switch victim := s.tasks.find(request.ReferencedTaskTag, c); {
	case p.Response == pdu.FunctionComplete:
		ended = s.abortLocked(request, t.cmdSN)
	case p.Response == pdu.TaskDoesNotExist && victim != nil && victim.sent:
		err = violation(p, "the task still waits for its response: %s", victim.cmd)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	for _, victim := range ended {
		s.settle(victim)
	}
	return t, nil
}

// abortLocked ends the commands that a completed function covers: those sent before
// it. It returns those that are to be settled here; one whose data is just
// being stored is left to its reader.
func (s *Session) abortLocked(request *pdu.TaskManagementRequest, before uint32) []*task {
	var ended []*task
	for _, t := range s.tasks.underWay() {
		if t.cmd == nil || t.answered || !t.sent || !t.immediate && !pdu.SNLess(t.cmdSN, before) || !covers(request, t) {
			continue
		}
		t.answered, t.aborted = true, true
		t.cmd.Err = ErrAborted
		if t.conn.storing != t {
			ended = append(ended, t)
		}
	}
	return ended
}

// covers reports whether a task management function is about t.
func covers(request *pdu.TaskManagementRequest, t *task) bool {
	switch request.Function {
	case pdu.AbortTask:
		return t.tag == request.ReferencedTaskTag
	case pdu.AbortTaskSet, pdu.ClearTaskSet, pdu.LogicalUnitReset:
		return t.cmd.LUN == request.LUN
	case pdu.TargetWarmReset, pdu.TargetColdReset:
		return true
	}
	return false
}

// Logout ends the session with a logout. What is still under way then ends with
// [ErrLoggedOut].
func (s *Session) Logout(ctx context.Context) error {
	c := &control{request: &pdu.LogoutRequest{Reason: pdu.CloseSession}}
	if err := s.logout(ctx, 0, c); err != nil {
		return err
	}
	<-s.done
	return nil
}

// LogoutConnection logs connection number n out over connection number over; they
// may be the same.
func (s *Session) LogoutConnection(ctx context.Context, n, over int) error {
	s.mu.Lock()
	which, err := s.pickLocked(n)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.logout(ctx, over, &control{request: &pdu.LogoutRequest{Reason: pdu.CloseConnection, CID: which.cid}})
}

func (s *Session) logout(ctx context.Context, connection int, c *control) error {
	if err := s.request(ctx, connection, false, c); err != nil {
		return err
	}
	if r := c.answer.(*pdu.LogoutResponse).Response; r != pdu.LogoutSuccess {
		return fmt.Errorf("initiator: logout failed with response %d", r)
	}
	return nil
}

// maxTextRounds bounds the answer to one text request.
const maxTextRounds = 4096

// Text runs a text negotiation that the initiator begins and ends in one
// request, and returns the target's whole answer (RFC 7143 11.10).
func (s *Session) Text(ctx context.Context, pairs ...pdu.Pair) ([]pdu.Pair, error) {
	text := pdu.AppendText(nil, pairs...)
	if len(text) > defaultDataSegment {
		return nil, errors.New("initiator: text request too long for one PDU")
	}
	var answer []byte
	request := &pdu.TextRequest{Final: true, TargetTransferTag: pdu.ReservedTag}
	for range maxTextRounds {
		c := &control{request: request, data: text}
		if err := s.request(ctx, 0, false, c); err != nil {
			return nil, err
		}
		p := c.answer.(*pdu.TextResponse)
		answer = append(answer, c.reply...)
		if p.Final {
			got, err := pdu.ParseText(answer)
			if err != nil {
				return nil, violation(p, "%v", err)
			}
			return got, nil
		}
		request, text = &pdu.TextRequest{Final: true, TargetTransferTag: p.TargetTransferTag, LUN: p.LUN}, nil
	}
	return nil, violation(request, "text answer did not end after %d parts", maxTextRounds)
}

// A Portal is one address at which a target is reached.
type Portal struct {
	Target  string
	Address string // host:port
	Group   string // portal group tag
}

// SendTargets asks which targets there are: "All", one target's name, or "" for
// the session's own target (RFC 7143 appendix C). A target without addresses
// is returned once with an empty Address.
func (s *Session) SendTargets(ctx context.Context, which string) ([]Portal, error) {
	pairs, err := s.Text(ctx, pdu.Pair{Key: "SendTargets", Value: which})
	if err != nil {
		return nil, err
	}
	var portals []Portal
	open := false // the last entry still waits for its first address
	for _, p := range pairs {
		switch p.Key {
		case "TargetName":
			portals = append(portals, Portal{Target: p.Value})
			open = true
		case "TargetAddress":
			if len(portals) == 0 {
				return nil, violation(nil, "TargetAddress=%s before any TargetName", p.Value)
			}
			address, group, ok := strings.Cut(p.Value, ",")
			if !ok {
				return nil, violation(nil, "TargetAddress=%s has no portal group tag", p.Value)
			}
			if !open {
				portals = append(portals, Portal{Target: portals[len(portals)-1].Target})
			}
			open = false
			last := &portals[len(portals)-1]
			last.Address, last.Group = address, group
		default:
			return nil, violation(nil, "key %s=%s in the answer to SendTargets", p.Key, p.Value)
		}
	}
	return portals, nil
}
