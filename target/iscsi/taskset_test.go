// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// line has a task set, and its tasks in the order of delivery.
type line struct {
	*testing.T
	set     taskSet
	list    []*task // those in the set
	running []*task
}

// start runs a task, and checks that it overtakes nobody that it must not (SAM-5 8.9).
func (l *line) start(t *task) {
	for _, o := range l.list[:slices.Index(l.list, t)] {
		if o.req.LUN != t.req.LUN || t.req.Attribute == pdu.HeadOfQueue {
			continue
		}
		if t.req.Attribute == pdu.Ordered || o.req.Attribute == pdu.Ordered {
			l.Fatalf("task %d with attribute %d has overtaken %d with %d", t.order, t.req.Attribute, o.order, o.req.Attribute)
		}
	}
	t.moveLocked(taskRunning)
	l.running = append(l.running, t)
}

// TestTaskAttributes delivers tasks with attributes to a few logical units, and ends them in any order.
func TestTaskAttributes(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		l := &line{T: t, set: taskSet{byTag: make(map[uint32]*task)}}
		waited := 0
		for n := uint32(0); n < 200 || len(l.list) > 0; n++ {
			if n < 200 && r.IntN(2) == 0 {
				o := &task{req: pdu.SCSICommand{InitiatorTaskTag: n, LUN: r.Uint64N(2), Attribute: []pdu.TaskAttribute{pdu.Simple, pdu.Simple, pdu.Ordered, pdu.HeadOfQueue}[r.IntN(4)]}}
				l.set.enter(o)
				l.set.deliver(o)
				l.list = append(l.list, o)
				if !l.set.mustWait(o) {
					l.start(o)
					continue
				}
				waited++
				o.moveLocked(taskBlocked)
				l.set.blocked = append(l.set.blocked, o)
				continue
			}
			if len(l.running) == 0 {
				if len(l.list) > 0 {
					t.Fatalf("seed %d: %d tasks wait for nobody", seed, len(l.list))
				}
				continue
			}
			i := r.IntN(len(l.running))
			done := l.running[i]
			l.running = slices.Delete(l.running, i, i+1)
			l.set.leave(done, taskAnswered)
			l.list = slices.DeleteFunc(l.list, func(o *task) bool { return o == done })
			for o := l.set.next(); o != nil; o = l.set.next() {
				o.moveLocked(taskReady)
				l.start(o)
			}
		}
		if waited == 0 || len(l.set.byTag)+len(l.set.blocked)+l.set.ordered > 0 {
			t.Fatalf("seed %d: %d tasks have waited; what is left: %+v", seed, waited, l.set)
		}
	}
}

// TestImmediateTasks fills the places of immediate commands, and asks for a tag that is taken.
func TestImmediateTasks(t *testing.T) {
	set := taskSet{byTag: make(map[uint32]*task)}
	may := func(req pdu.SCSICommand, want bool, why pdu.RejectReason) {
		t.Helper()
		if reason, ok := set.mayEnter(&req); ok != want || reason != why {
			t.Errorf("tag %d, immediate %v: %v, %#x", req.InitiatorTaskTag, req.Immediate, ok, reason)
		}
	}
	for tag := range uint32(maxImmediate) {
		req := pdu.SCSICommand{InitiatorTaskTag: tag, Immediate: true}
		may(req, true, 0)
		set.enter(&task{req: req})
	}
	may(pdu.SCSICommand{InitiatorTaskTag: 3}, false, pdu.TaskInProgress)
	may(pdu.SCSICommand{InitiatorTaskTag: pdu.ReservedTag}, false, pdu.TaskInProgress)
	may(pdu.SCSICommand{InitiatorTaskTag: maxImmediate, Immediate: true}, false, pdu.ImmediateCmdReject)
	may(pdu.SCSICommand{InitiatorTaskTag: maxImmediate}, true, 0)
	set.leave(set.byTag[3], taskEnded)
	may(pdu.SCSICommand{InitiatorTaskTag: 3, Immediate: true}, true, 0)
}
