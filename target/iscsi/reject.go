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

// concerns reports whether o is about the same initiator and target.
func (r Rejection) concerns(o Rejection) bool {
	return r.Target == o.Target && r.Initiator == o.Initiator
}

// rejections are those of a Node, whose mutex protects them.
type rejections struct{ list []Rejection } // at most maxRejections

func (r *rejections) expire() {
	r.list = slices.DeleteFunc(r.list, func(o Rejection) bool { return time.Until(o.until()) <= 0 })
}

// add adds one, in the place of another about the same initiator and target.
func (r *rejections) add(o Rejection) error {
	r.expire()
	r.list = slices.DeleteFunc(r.list, o.concerns)
	if len(r.list) >= maxRejections {
		return fmt.Errorf("iscsi: %d initiators are rejected already, the limit", len(r.list))
	}
	r.list = append(r.list, o)
	return nil
}

// refusal is why an initiator that is rejected may not log in, nil for others.
func (r *rejections) refusal(target, initiator string) error {
	r.expire()
	i := slices.IndexFunc(r.list, Rejection{Target: target, Initiator: initiator}.concerns)
	if i < 0 {
		return nil
	}
	left := time.Until(r.list[i].until()).Round(time.Second)
	return login.Errorf(pdu.ServiceUnavailable, "the initiator is rejected for another %v, as its session was ended", left)
}

// all returns those that have not expired, with Until by the clock as it is set now.
func (r *rejections) all() []Rejection {
	r.expire()
	list := slices.Clone(r.list)
	for i := range list {
		list[i].Until = list[i].until().UnixNano()
	}
	return list
}

// restore takes over those of another process. What an older one has told in wall
// time is measured by the other clock from here on.
func (r *rejections) restore(list []Rejection) {
	r.list = slices.Clone(list[:min(len(list), maxRejections)])
	for i := range r.list {
		o := &r.list[i]
		o.Stamp = boottime.Of(o.until())
	}
}
