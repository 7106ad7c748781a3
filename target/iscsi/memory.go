// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/gotgtd/gotgtd/internal/ranked"
)

// What a command and another request cost while they are there, in bytes, besides their data.
const (
	taskCost    = int64(unsafe.Sizeof(task{}) + unsafe.Sizeof(request{}))
	requestCost = int64(unsafe.Sizeof(request{}))
)

// memoryQueue has the sessions with tasks that wait for memory: writes before their first
// R2T, reads before they run. Whatever frees memory wakes the goroutine that serves it
// (package account), and each session's tasks have their turn by then.
type memoryQueue struct {
	waiting atomic.Int32 // tasks

	mu   ranked.Mutex // protects ring
	ring []*session   // each once, in the order of their turns
}

// awaitMemoryLocked lets a task wait. The caller holds the session's mutex.
func (s *session) awaitMemoryLocked(t *task) {
	q := &s.node.wait
	t.memoryWait = true
	q.waiting.Add(1)
	s.starved = append(s.starved, t)
	s.memory.Await(true)
	if len(s.starved) == 1 {
		q.add(s)
	}
	s.node.memory.Retry() // something may have been given back in between
}

// forgetWaitLocked ends the wait of a task.
func (s *session) forgetWaitLocked(t *task) {
	if i := slices.Index(s.starved, t); i >= 0 {
		s.starved = slices.Delete(s.starved, i, i+1)
	}
	t.memoryWait = false
	s.memory.Await(len(s.starved) > 0)
	s.node.wait.waiting.Add(-1)
}

func (q *memoryQueue) add(s *session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Contains(q.ring, s) {
		q.ring = append(q.ring, s)
	}
}

// lendMemory is a goroutine of the Node: it serves the tasks that wait for memory.
func (n *Node) lendMemory() {
	defer n.wg.Done()
	for {
		select {
		case <-n.stop:
			return
		case <-n.memory.Freed():
			n.freeze.outside(n.serveMemory)
		}
	}
}

// serveMemory gives memory to the tasks that wait, as far as their sessions may have it.
func (n *Node) serveMemory() {
	q := &n.wait
	if q.waiting.Load() == 0 {
		return
	}
	wanted := n.memory.Await()
	q.mu.Lock()
	ring := q.ring
	q.ring = nil
	q.mu.Unlock()
	var least int64
	for _, s := range ring {
		if need := s.serveMemory(); need > 0 && (least == 0 || need < least) {
			least = need
		}
	}
	wanted(least)
}
