// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// TestGather shows that others than the reader leave what they queue to it
// while it gathers, and that what must be out at once goes out.
func TestGather(t *testing.T) {
	r := newRig(t, Limits{}, Auth{})
	c := r.raw()
	c.login()
	out := &r.node.connList()[0].out
	out.mu.Lock()
	for out.flushing { // the answer is here, but its writer has not come back yet
		out.room.Wait()
	}
	out.mu.Unlock()
	waiting := func() int {
		out.mu.Lock()
		defer out.mu.Unlock()
		return len(out.queue) - out.head
	}
	ping := header(&pdu.NOPIn{InitiatorTaskTag: pdu.ReservedTag, TargetTransferTag: 7})
	out.gather()
	out.send(ping, false)
	out.flush()
	if n := waiting(); n != 1 {
		t.Errorf("%d PDUs wait for the reader, not 1", n)
	}
	out.flushNow()
	if n := waiting(); n != 0 {
		t.Errorf("%d PDUs wait after all", n)
	}
	p, _ := c.receive()
	if _, ok := p.(*pdu.NOPIn); !ok {
		t.Errorf("got %v", p)
	}
	out.send(ping, false)
	out.flush()
	if n := waiting(); n != 0 {
		t.Errorf("%d PDUs wait, and nobody gathers", n)
	}
	c.receive()
}
