// SPDX-License-Identifier: Apache-2.0

package scsi

import (
	"slices"
	"sync"
	"sync/atomic"
)

// An itl is an I_T_L nexus: what one logical unit keeps for one I_T nexus.
type itl struct {
	lu      *LogicalUnit
	home    *attachment
	pending atomic.Bool // queue is not empty; lets the hot path skip mu
	prevent atomic.Bool // PREVENT ALLOW MEDIUM REMOVAL is in force
	gone    atomic.Bool // the logical unit was detached or the nexus lost

	mu    sync.Mutex
	queue []uint16 // pending unit attentions in order, ASC<<8 | ASCQ; protected by mu; no duplicates, so bounded
}

// raise adds a unit attention condition. One that is pending already is not
// added again. A reset comes before everything else, since it explains the
// rest, and of several resets the first stands for all (SAM-5 5.14).
func (t *itl) raise(code uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	isReset := func(c uint16) bool { return c>>8 == ascPowerOnOrReset>>8 }
	switch {
	case slices.Contains(t.queue, code):
	case !isReset(code):
		t.queue = append(t.queue, code)
	case !slices.ContainsFunc(t.queue, isReset):
		t.queue = slices.Insert(t.queue, 0, code)
	}
	t.pending.Store(true)
}

// take removes the first pending unit attention.
func (t *itl) take() (code uint16, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		return 0, false
	}
	code = t.queue[0]
	t.queue = slices.Delete(t.queue, 0, 1)
	t.pending.Store(len(t.queue) > 0)
	return code, true
}

// drop removes one kind of unit attention.
func (t *itl) drop(code uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = slices.DeleteFunc(t.queue, func(c uint16) bool { return c == code })
	t.pending.Store(len(t.queue) > 0)
}

// list returns the pending unit attentions in order.
func (t *itl) list() []uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.queue)
}

// replace puts codes in place of what is pending.
func (t *itl) replace(codes []uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = nil
	for _, code := range codes {
		if !slices.Contains(t.queue, code) {
			t.queue = append(t.queue, code)
		}
	}
	t.pending.Store(len(t.queue) > 0)
}
