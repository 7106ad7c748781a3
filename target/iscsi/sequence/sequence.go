// SPDX-License-Identifier: Apache-2.0

// Package sequence orders the requests of one iSCSI session by their command
// sequence numbers (RFC 7143 4.2.2.1) and gives out its target transfer tags. It
// knows of no socket, no goroutine and no lock.
package sequence

import (
	"fmt"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// A Turn says when a request is handled.
type Turn int

const (
	Now   Turn = iota
	Later      // ahead of ExpCmdSN: the caller gives the request to [Window.Keep] or its place to [Window.Skip]
	Never      // outside the window, or a duplicate: ignored (RFC 7143 4.2.2.1)
)

// A Window is the command window of one session, with the requests of type R
// that have come ahead of their turn. Whoever owns it serializes the calls; only
// [Window.Numbers] may be called at any time. The zero Window is of no use
// before [Window.Start] or [Window.Restore].
type Window[R any] struct {
	exp, max uint32       // ExpCmdSN and MaxCmdSN
	waiting  []Waiting[R] // in the order of CmdSN, all in exp+1..max
	lastTag  uint32

	published atomic.Uint64 // exp<<32 | max, as PDUs on their way out carry them
}

// Waiting is a request that is ahead of its turn.
type Waiting[R any] struct {
	CmdSN   uint32
	Request R
	Skip    bool // nothing is to be handled: the number only has to be used up
}

// Start sets the number of the first command. There is no room for any before [Window.Open].
func (w *Window[R]) Start(cmdSN uint32) {
	w.exp, w.max = cmdSN, cmdSN-1
	w.publish()
}

// Numbers returns ExpCmdSN and MaxCmdSN as PDUs carry them.
func (w *Window[R]) Numbers() (exp, max uint32) {
	v := w.published.Load()
	return uint32(v >> 32), uint32(v)
}

func (w *Window[R]) publish() { w.published.Store(uint64(w.exp)<<32 | uint64(w.max)) }

// Open moves MaxCmdSN to room commands from ExpCmdSN on. It never goes back.
func (w *Window[R]) Open(room int) {
	if next := w.exp + uint32(room) - 1; pdu.SNLess(w.max, next) {
		w.max = next
	}
	w.publish()
}

// Admit gives a request its turn. Now uses up the number of a non-immediate
// request, and the ones after it may have their turn: see [Window.Next].
func (w *Window[R]) Admit(immediate bool, cmdSN uint32) Turn {
	switch {
	case immediate:
		return Now
	case !w.Expects(cmdSN):
		return Never
	case cmdSN != w.exp:
		return Later
	}
	w.advance()
	return Now
}

// Expects reports whether a number is in the window and has not come yet.
func (w *Window[R]) Expects(cmdSN uint32) bool {
	if pdu.SNLess(cmdSN, w.exp) || pdu.SNLess(w.max, cmdSN) {
		return false
	}
	_, there := w.find(cmdSN)
	return !there
}

func (w *Window[R]) advance() {
	w.exp++
	w.publish()
}

// Keep holds a request until its turn comes. Its number is one for which
// [Window.Admit] has said Later.
func (w *Window[R]) Keep(cmdSN uint32, r R) { w.insert(Waiting[R]{CmdSN: cmdSN, Request: r}) }

// Skip uses up a number, when its turn comes, for which there is nothing to
// handle. The number is one that the window expects.
func (w *Window[R]) Skip(cmdSN uint32) { w.insert(Waiting[R]{CmdSN: cmdSN, Skip: true}) }

func (w *Window[R]) insert(q Waiting[R]) {
	i, _ := w.find(q.CmdSN)
	w.waiting = slices.Insert(w.waiting, i, q)
}

func (w *Window[R]) find(cmdSN uint32) (int, bool) {
	return slices.BinarySearchFunc(w.waiting, cmdSN, func(q Waiting[R], sn uint32) int { return int(int32(q.CmdSN - sn)) })
}

// Next takes the first waiting request if its turn has come.
func (w *Window[R]) Next() (q Waiting[R], ok bool) {
	if len(w.waiting) == 0 || w.waiting[0].CmdSN != w.exp {
		return q, false
	}
	q = w.waiting[0]
	w.waiting = slices.Delete(w.waiting, 0, 1)
	w.advance()
	return q, true
}

// Len returns how many requests wait.
func (w *Window[R]) Len() int { return len(w.waiting) }

// All yields the requests that wait, in the order of CmdSN.
func (w *Window[R]) All() iter.Seq[Waiting[R]] { return slices.Values(w.waiting) }

// Drop forgets the waiting requests for which gone returns true. What becomes
// of their numbers is for the initiator to say: it can only end the session.
func (w *Window[R]) Drop(gone func(R) bool) {
	w.waiting = slices.DeleteFunc(w.waiting, func(q Waiting[R]) bool { return !q.Skip && gone(q.Request) })
}

// NewTag returns a target transfer tag, never the reserved one.
func (w *Window[R]) NewTag() uint32 {
	w.lastTag++
	if w.lastTag == pdu.ReservedTag {
		w.lastTag = 0
	}
	return w.lastTag
}

// LastTag returns the tag that was given out last.
func (w *Window[R]) LastTag() uint32 { return w.lastTag }

// Restore goes on with the window of another process. It refuses waiting requests
// that are not in the order of CmdSN, or not within the window.
func (w *Window[R]) Restore(exp, max, lastTag uint32, waiting []Waiting[R]) error {
	before := exp
	for _, q := range waiting {
		if !pdu.SNLess(before, q.CmdSN) || pdu.SNLess(max, q.CmdSN) {
			return fmt.Errorf("CmdSN %d of a waiting request is not in %d..%d, behind the one before it", q.CmdSN, before+1, max)
		}
		before = q.CmdSN
	}
	w.exp, w.max, w.lastTag, w.waiting = exp, max, lastTag, waiting
	w.publish()
	return nil
}
