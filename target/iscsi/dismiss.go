// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"context"
	"errors"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
)

// errDismissed ends a session that did not log out when it was asked to.
var errDismissed = tally.Endingf(tally.Dismissed, "did not log out when asked to")

// errDropped ends a session that was not asked to log out.
var errDropped = tally.Endingf(tally.Dismissed, "it was dropped")

// Dismiss asks the initiator of a session to log out (RFC 7143 11.9.1, event
// 1) and ends the session if it has not after the grace. A session that a
// predecessor has asked already goes on with the time that it was given. Dismiss
// returns at once.
func (n *Node) Dismiss(tsih uint16, grace time.Duration) {
	s := n.session(tsih)
	if s == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.freeze.is(nodeEnding) {
		return
	}
	n.wg.Add(1)
	go n.dismiss(s, grace)
}

// ErrNoSession is the answer to a TSIH that no session has.
var ErrNoSession = errors.New("iscsi: no such session")

// An Ending is how a session has ended that was to.
type Ending struct {
	Initiator string
	Target    string // empty for a discovery session
	LoggedOut bool   // as it was asked to; if not, the target has ended it
	Reason    string // why it ended if it has not logged out
}

// End is Dismiss that waits until the session has ended, or ctx has. reject is
// how long its initiator may not log in to the target again from now on, 0 for
// not at all. After ErrClosed a successor may have the session, which goes on with
// what was begun.
func (n *Node) End(ctx context.Context, tsih uint16, grace, reject time.Duration) (Ending, error) {
	s := n.session(tsih)
	if s == nil {
		return Ending{}, ErrNoSession
	}
	e := Ending{Initiator: s.initiator, Target: s.targetName()}
	if reject > 0 && e.Target == "" {
		return e, errors.New("a discovery session has no target that its initiator could be rejected from")
	}
	if reject > 0 {
		if err := n.Reject(e.Target, e.Initiator, reject); err != nil {
			return e, err
		}
	}
	n.Dismiss(tsih, grace)
	return n.awaitEnd(ctx, s, e)
}

// Drop ends a session without asking its initiator, and waits until it has ended, or ctx
// has. The errors are those of End.
func (n *Node) Drop(ctx context.Context, tsih uint16) (Ending, error) {
	s := n.session(tsih)
	if s == nil {
		return Ending{}, ErrNoSession
	}
	n.freeze.outside(func() { s.end(errDropped) })
	return n.awaitEnd(ctx, s, Ending{Initiator: s.initiator, Target: s.targetName()})
}

// awaitEnd waits for the end of a session and says how it was.
func (n *Node) awaitEnd(ctx context.Context, s *session, e Ending) (Ending, error) {
	select {
	case <-s.gone:
	case <-n.stop:
		return e, ErrClosed
	case <-ctx.Done():
		return e, context.Cause(ctx)
	}
	if why := s.reason(); why != nil {
		e.Reason = why.Error()
	} else {
		e.LoggedOut = true
	}
	return e, nil
}

func (n *Node) dismiss(s *session, grace time.Duration) {
	defer n.wg.Done()
	var left time.Duration
	n.freeze.outside(func() { left = s.askToLeave(grace) })
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-s.gone:
	case <-n.stop:
	case <-timer.C:
		n.freeze.outside(func() { s.end(errDismissed) })
	}
}

// askToLeave asks the initiator to log out, and returns how long it has for that.
func (s *session) askToLeave(grace time.Duration) time.Duration {
	s.mu.Lock()
	left := time.Until(s.leave.Time())
	asked := left > -grace // one of long ago is over
	if !asked {
		left = grace
		s.leave = boottime.Of(time.Now().Add(grace))
	}
	s.mu.Unlock()
	if !asked {
		s.requestLogout()
	}
	return left
}

// Reject refuses logins of an initiator to a target for so long: the service is
// not available, which makes initiators try again later (RFC 7143 11.13.5,
// Status-Class 3). A second call replaces the first.
func (n *Node) Reject(target, initiator string, d time.Duration) error {
	err := ErrClosed
	until := time.Now().Add(d)
	n.freeze.outside(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		err = n.rejections.add(Rejection{target, initiator, until.UnixNano(), boottime.Of(until)})
	})
	return err
}

// Rejections returns those that have not expired, with Until by the clock as it is set now.
func (n *Node) Rejections() []Rejection {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rejections.all()
}
