// SPDX-License-Identifier: Apache-2.0

package iscsi

import "sync/atomic"

// deferred is what a response waits for: it goes out when the tasks that its request has
// aborted have stopped running. What it waits for is in the tasks, and what is to be
// answered then is in the responder as data.
type deferred struct {
	waiting atomic.Int32 // running tasks, and one for the request itself
	to      responder
}

// A responder has a request whose response is deferred.
type responder interface {
	// respond sends the response. The caller holds no lock.
	respond()
}

// begin makes the response wait for the request itself.
func (d *deferred) begin(to responder) {
	d.to = to
	d.waiting.Store(1)
}

// release ends one of the waits. After the last one the response goes out. The
// caller holds no lock.
func (d *deferred) release() {
	if d.waiting.Add(-1) == 0 {
		d.to.respond()
	}
}

func releaseAll(list []*deferred) {
	for _, d := range list {
		d.release()
	}
}
