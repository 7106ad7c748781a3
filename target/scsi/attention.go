// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"slices"
	"sync"
	"sync/atomic"
)

// attentions are the unit attention conditions that are pending for one I_T
// nexus, by logical unit number: ASC<<8 | ASCQ, in order, each once, so a queue
// is bounded. With a thousand nexuses and logical units there are a million
// queues, nearly all of them equal: POWER ON until the initiator has looked
// at the logical unit, nothing afterwards. So one of these is kept as a bit.
type attentions struct {
	quiet atomic.Pointer[bitmap] // logical units with an empty queue; changes with mu held, the hot path reads it without

	mu      sync.Mutex          // protects the fields below
	initial []uint16            // queue of all that are neither quiet nor in own
	own     map[uint16][]uint16 // queues that differ
}

// bitmap is a set of logical unit numbers.
type bitmap []atomic.Uint64

func (b bitmap) has(u uint16) bool {
	i := int(u >> 6)
	return i < len(b) && b[i].Load()>>(u&63)&1 != 0
}

// numbersOf returns the logical unit numbers of attachments.
func numbersOf(attachments map[uint16]*attachment) bitmap {
	var b bitmap
	for u := range attachments {
		if i := int(u >> 6); i >= len(b) {
			b = b.clone(i + 1)
		}
		b[u>>6].Or(1 << (u & 63))
	}
	return b
}

// clone returns a copy with room for so many words.
func (b bitmap) clone(words int) bitmap {
	c := make(bitmap, max(words, len(b)))
	for i := range b {
		c[i].Store(b[i].Load())
	}
	return c
}

// init makes code pending on every logical unit but those of quiet.
func (a *attentions) init(code uint16, quiet bitmap) {
	quiet = quiet.clone(0)
	a.quiet.Store(&quiet)
	a.initial = []uint16{code}
}

// pending reports whether u may have something pending. It takes no lock.
func (a *attentions) pending(u uint16) bool { return !a.quiet.Load().has(u) }

// raise adds a unit attention condition, unless the logical unit was detached:
// its number may be another one's by now.
func (a *attentions) raise(at *attachment, code uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !at.gone.Load() {
		u := at.number
		a.setLocked(u, addAttention(slices.Clone(a.queueLocked(u)), code))
	}
}

// raiseAll adds a unit attention condition for every logical unit, those of
// those included that have nothing pending.
func (a *attentions) raiseAll(attachments map[uint16]*attachment, code uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for u := range attachments {
		if q, ok := a.own[u]; ok || a.quiet.Load().has(u) {
			a.setLocked(u, addAttention(q, code))
		}
	}
	a.initial = addAttention(slices.Clone(a.initial), code)
}

// addAttention puts a condition into a queue. One that is pending already is
// not added again. A reset comes before everything else, since it explains the
// rest, and of several resets the first stands for all (SAM-5 5.14).
func addAttention(queue []uint16, code uint16) []uint16 {
	isReset := func(c uint16) bool { return c>>8 == ascPowerOnOrReset>>8 }
	switch {
	case slices.Contains(queue, code):
		return queue
	case !isReset(code):
		return append(queue, code)
	case slices.ContainsFunc(queue, isReset):
		return queue
	}
	return slices.Insert(queue, 0, code)
}

// unmet stands in a queue, and in a snapshot, where an I_T nexus was there before
// the logical unit was: what an initiator sends to the number may be meant for
// another one that had it. It is no code of SPC-4. Nothing takes it but [attentions.meet].
const unmet = 0xffff

// attentionSense is what a command ends with for the head of a queue.
func attentionSense(code uint16) sense {
	if code == unmet {
		return illegal(ascUnitNotSupported)
	}
	return sense{key: keyUnitAttention, code: code}
}

// isUnmet reports whether the nexus has not met the logical unit u yet.
func (a *attentions) isUnmet(u uint16) bool {
	return a.pending(u) && slices.Contains(a.list(u), unmet)
}

// meet notes that the initiator has asked which logical unit u is.
func (a *attentions) meet(u uint16) {
	if !a.pending(u) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if q := a.queueLocked(u); slices.Contains(q, unmet) {
		a.setLocked(u, slices.DeleteFunc(slices.Clone(q), func(c uint16) bool { return c == unmet }))
	}
}

// take removes the first pending unit attention of a logical unit, none when
// that was detached. unmet stays.
func (a *attentions) take(at *attachment) (code uint16, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at.gone.Load() {
		return 0, false
	}
	u := at.number
	q := a.queueLocked(u)
	if len(q) > 0 && q[0] == unmet {
		return unmet, true
	}
	if len(q) > 0 {
		code, ok = q[0], true
		q = slices.Clone(q[1:])
	}
	a.setLocked(u, q)
	return code, ok
}

// dropAll removes one kind of unit attention for every logical unit.
func (a *attentions) dropAll(code uint16) {
	a.mu.Lock()
	defer a.mu.Unlock()
	is := func(c uint16) bool { return c == code }
	for u, q := range a.own {
		a.setLocked(u, slices.DeleteFunc(q, is))
	}
	a.initial = slices.DeleteFunc(slices.Clone(a.initial), is)
}

// list returns the pending unit attentions of u in order.
func (a *attentions) list(u uint16) []uint16 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.queueLocked(u))
}

// replace puts codes in place of what is pending for u.
func (a *attentions) replace(u uint16, codes []uint16) {
	var q []uint16
	for _, code := range codes {
		if !slices.Contains(q, code) {
			q = append(q, code)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setLocked(u, q)
}

func (a *attentions) queueLocked(u uint16) []uint16 {
	if a.quiet.Load().has(u) {
		return nil
	}
	if q, ok := a.own[u]; ok {
		return q
	}
	return a.initial
}

// setLocked makes q the queue of u.
func (a *attentions) setLocked(u uint16, q []uint16) {
	if len(q) == 0 {
		delete(a.own, u)
		a.quietLocked(u, true)
		return
	}
	if !slices.Equal(q, a.initial) {
		if a.own == nil {
			a.own = make(map[uint16][]uint16)
		}
		a.own[u] = q
	} else {
		delete(a.own, u)
	}
	a.quietLocked(u, false)
}

// quietLocked sets or clears the bit of u.
func (a *attentions) quietLocked(u uint16, on bool) {
	b, i := *a.quiet.Load(), int(u>>6)
	if i >= len(b) {
		if !on {
			return
		}
		b = b.clone(i + 1)
		a.quiet.Store(&b)
	}
	if on {
		b[i].Or(1 << (u & 63))
	} else {
		b[i].And(^uint64(1 << (u & 63)))
	}
}
