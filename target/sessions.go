// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/target/iscsi"
)

// MaxReject is the longest time that an initiator can be rejected for.
const MaxReject = 24 * time.Hour

// SessionEnd is how a session has ended that was to. Its JSON form is an
// interface: fields are only ever added.
type SessionEnd struct {
	TSIH      uint16     `json:"tsih"`
	Initiator string     `json:"initiator_name"`
	Target    string     `json:"target"`                   // empty for a discovery session
	LoggedOut bool       `json:"logged_out"`               // as it was asked to; if not, the target has ended it
	Reason    string     `json:"reason,omitempty"`         // why it ended if it has not logged out
	Rejected  *time.Time `json:"rejected_until,omitempty"` // until when the initiator may not log in to the target
}

// RejectionStatus is an initiator that may not log in to a target for a while.
type RejectionStatus struct {
	Initiator string    `json:"initiator_name"`
	Target    string    `json:"target"`
	Until     time.Time `json:"until"`
}

// NoSessionError is a TSIH that no session has. It names those there are.
type NoSessionError struct {
	TSIH   uint16
	Others []iscsi.SessionInfo
}

// maxNamed is how many sessions an error names.
const maxNamed = 16

func (e *NoSessionError) Error() string {
	if len(e.Others) == 0 {
		return fmt.Sprintf("there is no session with TSIH %d, and no other", e.TSIH)
	}
	var list []string
	for _, i := range e.Others[:min(len(e.Others), maxNamed)] {
		list = append(list, fmt.Sprintf("%d (%q)", i.TSIH, i.Initiator))
	}
	if n := len(e.Others) - maxNamed; n > 0 {
		list = append(list, fmt.Sprintf("and %d more", n))
	}
	return fmt.Sprintf("there is no session with TSIH %d; there are %s", e.TSIH, strings.Join(list, ", "))
}

// EndSession asks the initiator of a session to log out, ends the session if it
// has not after a few seconds, and returns when it has ended. With rejectFor more
// than zero, at most [MaxReject], the initiator may not log in to the target for so long:
// it is told that the service is not available, and tries again later. An error
// that is [iscsi.ErrClosed] says that a successor may have the session.
func (s *Server) EndSession(ctx context.Context, tsih uint16, rejectFor time.Duration) (SessionEnd, error) {
	if s == nil {
		return SessionEnd{}, ErrClosed
	}
	if rejectFor < 0 || rejectFor > MaxReject {
		return SessionEnd{}, fmt.Errorf("an initiator can be rejected for up to %v, not for %v", MaxReject, rejectFor)
	}
	began := time.Now()
	e, err := s.node.End(ctx, tsih, logoutGrace, rejectFor)
	if errors.Is(err, iscsi.ErrNoSession) {
		return SessionEnd{}, &NoSessionError{tsih, s.node.Sessions()}
	}
	end := SessionEnd{TSIH: tsih, Initiator: e.Initiator, Target: e.Target, LoggedOut: e.LoggedOut, Reason: e.Reason}
	if err != nil {
		return end, err
	}
	if rejectFor > 0 {
		end.Rejected = new(began.Add(rejectFor).Round(time.Second))
	}
	s.log.Info("session ended by command", "initiator", e.Initiator, "target", e.Target, "tsih", tsih, "logged-out", e.LoggedOut, "reject-for", rejectFor)
	return end, nil
}

// DropSession ends a session at once, without asking its initiator, and returns when
// it has ended: the commands under way are aborted or have finished. The initiator may log
// in again. The errors are those of EndSession.
func (s *Server) DropSession(ctx context.Context, tsih uint16) (SessionEnd, error) {
	if s == nil {
		return SessionEnd{}, ErrClosed
	}
	e, err := s.node.Drop(ctx, tsih)
	if errors.Is(err, iscsi.ErrNoSession) {
		return SessionEnd{}, &NoSessionError{tsih, s.node.Sessions()}
	}
	return SessionEnd{TSIH: tsih, Initiator: e.Initiator, Target: e.Target, LoggedOut: e.LoggedOut, Reason: e.Reason}, err
}

// endSessions asks the initiators of sessions to log out, and drops those that have not
// when the grace, or ctx, is over. It returns when no session is left, or ctx has ended
// and as much time again.
func (s *Server) endSessions(ctx context.Context, sessions []iscsi.SessionInfo, grace time.Duration) error {
	var ending sync.WaitGroup
	var errs sync.Map
	for _, i := range sessions {
		ending.Go(func() {
			if _, err := s.node.End(ctx, i.TSIH, grace, 0); err == nil || errors.Is(err, iscsi.ErrNoSession) {
				return
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			_, err := s.node.Drop(last, i.TSIH)
			if errors.Is(err, iscsi.ErrClosed) {
				err = ErrClosed
			}
			if err != nil && !errors.Is(err, iscsi.ErrNoSession) {
				errs.Store(i.TSIH, fmt.Errorf("session %d of %q has not ended: %w", i.TSIH, i.Initiator, err))
			}
		})
	}
	ending.Wait()
	var list []error
	for _, err := range errs.Range {
		list = append(list, err.(error))
	}
	return errors.Join(list...)
}

func (s *Server) rejections() []RejectionStatus {
	var list []RejectionStatus
	for _, r := range s.node.Rejections() {
		list = append(list, RejectionStatus{r.Initiator, r.Target, time.Unix(0, r.Until)})
	}
	return list
}
