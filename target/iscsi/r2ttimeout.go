// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"fmt"
	"time"
)

// slowestLink is the rate, in bytes a second, at which an initiator sends data at the least
// that has more R2Ts to answer than fit into the time for one. Its later ones are not yet late.
const slowestLink = 128 << 10

// unanswered is what the liveness loop remembers of a task with open R2Ts; a task whose oldest
// R2T has been answered in whole starts anew.
type unanswered struct {
	since    time.Time // when the loop first saw the oldest one
	gathered int64     // bytes that the session had sent by then
}

// checkR2Ts ends a session that leaves an R2T unanswered: the buffer that waits for the
// data is of use to nobody else meanwhile. It is late if the time is over, and the session does not
// send data for other tasks so busily that this one can't have had its turn.
func (s *session) checkR2Ts(now time.Time) {
	limit := s.node.opt.Limits.R2TTimeout
	var late *task
	s.mu.Lock()
	for _, t := range s.tasks {
		u := &t.unanswered
		switch {
		case t.openR2Ts == 0:
		case u.since.IsZero():
			*u = unanswered{now, s.gathered}
		case now.Sub(u.since) > limit && s.gathered-u.gathered < int64(now.Sub(u.since).Seconds()*slowestLink):
			late = t
		}
	}
	var why error
	if late != nil {
		r := &late.r2ts[0]
		why = fmt.Errorf("an R2T for %d bytes of command %#x was not answered for %v", r.Length, late.req.CDB[0], now.Sub(late.unanswered.since).Truncate(time.Millisecond))
	}
	s.mu.Unlock()
	if why != nil {
		s.end(why) // its connections log the reason
	}
}
