// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"fmt"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
	"github.com/gotgtd/gotgtd/target/iscsi/login"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// maxRejections is how many initiators may be kept out at a time.
const maxRejections = 1024

// Rejection keeps an initiator from logging in to a target for a while.
type Rejection struct {
	Target    string `cbor:"1,keyasint"`
	Initiator string `cbor:"2,keyasint"`
	Until     int64  `cbor:"3,keyasint"` // nanoseconds since 1970

	// Stamp is Until by a clock that nobody sets, 0 from a process that did not tell it. It counts.
	Stamp boottime.Stamp `cbor:"4,keyasint,omitempty"`
}

// until is when the initiator is let in again.
func (r *Rejection) until() time.Time { return r.Stamp.Or(time.Unix(0, r.Until)) }

// Reject refuses logins of an initiator to a target for so long: the service is
// not available, which makes initiators try again later (RFC 7143 11.13.5,
// Status-Class 3). A second call replaces the first.
func (n *Node) Reject(target, initiator string, d time.Duration) error {
	err := ErrClosed
	until := time.Now().Add(d)
	n.outside(func() { err = n.reject(Rejection{target, initiator, until.UnixNano(), boottime.Of(until)}) })
	return err
}

func (n *Node) reject(r Rejection) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireRejectionsLocked()
	n.rejections = slices.DeleteFunc(n.rejections, r.concerns)
	if len(n.rejections) >= maxRejections {
		return fmt.Errorf("iscsi: %d initiators are rejected already, the limit", len(n.rejections))
	}
	n.rejections = append(n.rejections, r)
	return nil
}

// concerns reports whether o is about the same initiator and target.
func (r Rejection) concerns(o Rejection) bool {
	return r.Target == o.Target && r.Initiator == o.Initiator
}

func (n *Node) expireRejectionsLocked() {
	n.rejections = slices.DeleteFunc(n.rejections, func(r Rejection) bool { return time.Until(r.until()) <= 0 })
}

// refusal is why an initiator that is rejected may not log in, nil for others.
func (n *Node) refusal(target, initiator string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireRejectionsLocked()
	i := slices.IndexFunc(n.rejections, Rejection{Target: target, Initiator: initiator}.concerns)
	if i < 0 {
		return nil
	}
	left := time.Until(n.rejections[i].until()).Round(time.Second)
	return login.Errorf(pdu.ServiceUnavailable, "the initiator is rejected for another %v, as its session was ended", left)
}

// Rejections returns those that have not expired, with Until by the clock as it is set now.
func (n *Node) Rejections() []Rejection {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expireRejectionsLocked()
	list := slices.Clone(n.rejections)
	for i := range list {
		list[i].Until = list[i].until().UnixNano()
	}
	return list
}

// restoreRejections takes over those of another process. What an older one has told in wall
// time is measured by the other clock from here on.
func (n *Node) restoreRejections(list []Rejection) {
	n.rejections = slices.Clone(list[:min(len(list), maxRejections)])
	for i := range n.rejections {
		r := &n.rejections[i]
		r.Stamp = boottime.Of(r.until())
	}
}
