// SPDX-License-Identifier: Apache-2.0

//go:build ranked

package ranked

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// A Mutex is a sync.Mutex with a rank. The zero Mutex has rank 0.
type Mutex struct {
	mu   sync.Mutex
	rank Rank
}

// SetRank gives the mutex its rank before it is used.
func (m *Mutex) SetRank(r Rank) { m.rank = r }

// held has the ranks of the mutexes that each goroutine holds.
var held = struct {
	mu    sync.Mutex
	what  map[uint64]ranks
	stack [40]byte // of the calling goroutine, of which the beginning is enough
}{what: make(map[uint64]ranks)}

// ranks are those that one goroutine holds at once, the last at [n-1].
type ranks struct {
	list [8]Rank
	n    int
}

func (r *ranks) held() []Rank { return r.list[:r.n] }

// goroutineLocked returns the number of the calling goroutine.
func goroutineLocked() (id uint64) {
	const before = len("goroutine ")
	for _, c := range held.stack[before:runtime.Stack(held.stack[:], false)] {
		if c < '0' || c > '9' {
			break
		}
		id = id*10 + uint64(c-'0')
	}
	return id
}

// Lock locks the mutex.
func (m *Mutex) Lock() {
	if m.rank > 0 {
		m.enter()
	}
	m.mu.Lock()
}

func (m *Mutex) enter() {
	held.mu.Lock()
	defer held.mu.Unlock()
	id := goroutineLocked()
	r := held.what[id]
	if r.n > 0 && slices.Max(r.held()) >= m.rank {
		panic(fmt.Sprintf("ranked: a mutex of rank %d is locked while those of ranks %d are held", m.rank, r.held()))
	}
	r.list[r.n] = m.rank
	r.n++
	held.what[id] = r
}

// Unlock unlocks the mutex. It must be called by the goroutine that has locked it.
func (m *Mutex) Unlock() {
	if m.rank > 0 {
		m.leave()
	}
	m.mu.Unlock()
}

func (m *Mutex) leave() {
	held.mu.Lock()
	defer held.mu.Unlock()
	id := goroutineLocked()
	r := held.what[id]
	i := slices.Index(r.held(), m.rank)
	if i < 0 {
		panic(fmt.Sprintf("ranked: a mutex of rank %d is unlocked by a goroutine that has not locked it", m.rank))
	}
	copy(r.list[i:], r.list[i+1:r.n])
	if r.n--; r.n == 0 {
		delete(held.what, id)
		return
	}
	held.what[id] = r
}
