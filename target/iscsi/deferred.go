// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"sync/atomic"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// deferredTo is the request that a deferred response is to.
type deferredTo uint8

const (
	toManagement       deferredTo = iota // a task management function (RFC 7143 11.5)
	toLogout                             // of the session (11.14)
	toConnectionLogout                   // of one connection
	toCommand                            // PREEMPT AND ABORT
)

// deferred is a response that goes out when the tasks that its request has
// aborted have stopped running. What it waits for is in the tasks, and what is
// to happen then is here as data.
type deferred struct {
	waiting atomic.Int32 // running tasks, and one for the request itself

	to   deferredTo
	conn *conn  // the response goes out on
	tag  uint32 // InitiatorTaskTag of the request
	code uint8  // of the response
	cold bool   // toManagement: the sessions of the target end afterwards
	ends *conn  // toConnectionLogout: the connection that logs out
	task *task  // toCommand
}

func newDeferred(to deferredTo, c *conn, tag uint32) *deferred {
	d := &deferred{to: to, conn: c, tag: tag}
	d.waiting.Store(1)
	return d
}

// release ends one of the waits. After the last one the response goes out. The
// caller holds no lock.
func (d *deferred) release() {
	if d.waiting.Add(-1) > 0 {
		return
	}
	c := d.conn
	switch d.to {
	case toManagement:
		c.out.Send(header(&pdu.TaskManagementResponse{Response: d.code, InitiatorTaskTag: d.tag}), true)
		c.out.FlushNow()
		if d.cold {
			c.sess.dropSessions()
		}
	case toLogout:
		if c.sess.nexus != nil {
			c.sess.nexus.Close()
		}
		c.respondLogout(pdu.LogoutSuccess, d.tag)
		c.out.Finish()
		c.out.FlushNow()
	case toConnectionLogout:
		c.respondLogout(pdu.LogoutSuccess, d.tag)
		if d.ends == c {
			c.out.Finish()
		}
		c.out.FlushNow()
		if d.ends != c {
			d.ends.close(errLoggedOut)
		}
	case toCommand:
		d.task.sess.answer(d.task)
		c.out.Flush()
	}
}
