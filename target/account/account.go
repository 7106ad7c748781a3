// SPDX-License-Identifier: Apache-2.0

// Package account keeps the accounts of the memory that initiators make a target use.
// Whoever needs memory on an initiator's behalf asks an [Account] first, and does without
// if that says no: admission comes before allocation.
//
// An account belongs to a session, or to a connection that has not logged in. It has a
// reserve that nobody else can take. What it needs beyond that comes from what all share,
// and there the bound is its initiator's: an initiator may have no more of it than it leaves
// for the others. One alone may have half. If it keeps that, the next may have half of the
// rest, and if all give back as they go on, each comes to have as much as is free.
//
// Within its reserve an account costs one atomic operation, and nobody waits for a lock.
package account

import (
	"sync"
	"sync/atomic"
)

const (
	// MinReserve is the least that an account has of its own, in bytes: a buffer to read
	// into, a command with 4 KiB of data, and an answer.
	MinReserve = 16 << 10
	maxReserve = 1 << 20
	// Reserves take one part of the limit in so many.
	reserveShare = 4
	// An account that could not have so many bytes more is short.
	shortOf = 64 << 10
)

// A Process has the accounts of all initiators.
type Process struct {
	total   int64 // of all accounts, bytes
	limit   int64 // of what is beyond the reserves, bytes
	reserve int64 // of each account, bytes
	freed   chan struct{}
	waiting atomic.Bool  // somebody was refused, and wants to hear of what is given back
	until   atomic.Int64 // bytes of shared that one of these would not be refused for
	shared  atomic.Int64 // bytes of all accounts beyond their reserves

	sharing sync.Mutex // held by who is admitted to what all share

	mu         sync.Mutex // protects the fields below
	initiators map[string]*initiator
	accounts   map[*Account]struct{} // that are open or not empty
	closed     map[*Account]struct{} // those of them that are not open
}

// initiator is what the accounts of one initiator have in common.
type initiator struct {
	shared   atomic.Int64 // bytes of its accounts beyond their reserves
	waiting  atomic.Int32 // accounts for which somebody waits
	accounts int          // protected by Process.mu
}

// An Account is what a session, or a connection without one, has of the memory. It is
// safe for concurrent use. A nil Account admits everything and counts nothing.
type Account struct {
	process   *Process
	key       string
	initiator *initiator
	reserve   int64        // bytes
	used      atomic.Int64 // bytes
	waiting   atomic.Bool  // somebody waits for it
}

// Least is the least limit for so many accounts: twice what their reserves need.
func Least(accounts int) int64 { return 2 * MinReserve * max(int64(accounts), 1) }

// New returns a Process of limit bytes with room for the reserves of so many accounts. A limit
// that is too small for these counts as [Least]; see [Process.Limit].
func New(limit int64, accounts int) *Process {
	n := max(int64(accounts), 1)
	limit = max(limit, Least(accounts))
	reserve := min(max(limit/reserveShare/n&^(MinReserve-1), MinReserve), maxReserve)
	return &Process{
		total: limit, limit: limit - n*reserve, reserve: reserve, freed: make(chan struct{}, 1),
		initiators: make(map[string]*initiator), accounts: make(map[*Account]struct{}), closed: make(map[*Account]struct{}),
	}
}

// Open opens an account of the initiator that key names.
func (p *Process) Open(key string) *Account { return p.open(key, p.reserve) }

// Spare returns an account for n bytes that its owner can do without, which are never in the way of
// what the reserve of a is for. It is a itself if the reserve has room for both, and one of
// the same initiator without a reserve otherwise. Closing a does not close that one.
func (a *Account) Spare(n int64) *Account {
	if a == nil || n <= a.reserve-MinReserve {
		return a
	}
	return a.process.open(a.key, 0)
}

func (p *Process) open(key string, reserve int64) *Account {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.initiators[key]
	if i == nil {
		i = new(initiator)
		p.initiators[key] = i
	}
	i.accounts++
	a := &Account{process: p, key: key, initiator: i, reserve: reserve}
	p.accounts[a] = struct{}{}
	return a
}

// Close says that nobody will use the account's reserve any more. What is on it is given back
// as it is released, and counts as the initiator's until then.
func (a *Account) Close() {
	if a == nil {
		return
	}
	p := a.process
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, there := p.accounts[a]; there {
		p.closed[a] = struct{}{}
		p.sweepLocked()
	}
}

// sweepLocked forgets the accounts that are closed and empty.
func (p *Process) sweepLocked() {
	for a := range p.closed {
		if a.used.Load() != 0 {
			continue
		}
		delete(p.closed, a)
		delete(p.accounts, a)
		if a.initiator.accounts--; a.initiator.accounts == 0 {
			delete(p.initiators, a.key)
		}
	}
}

// Len returns the number of accounts that are open, or not empty.
func (p *Process) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.accounts)
}

// Limit returns the most bytes that all accounts together are admitted to.
func (p *Process) Limit() int64 { return p.total }

// Used returns the bytes that are on all accounts.
func (p *Process) Used() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range p.accounts {
		n += a.used.Load()
	}
	return n
}

// Await asks for a message in [Process.Freed] when something is given back that may help
// those who have been refused. Who serves them calls it, tries for each of them once more, and tells
// then the most of what [Account.Until] says of them: as long as more is shared, what others than their
// initiators give back is no news.
func (p *Process) Await() (until func(int64)) {
	p.until.Store(p.limit)
	p.waiting.Store(true)
	return p.until.Store
}

// Await says whether somebody waits for the account.
func (a *Account) Await(waits bool) {
	switch {
	case a == nil || a.waiting.Swap(waits) == waits:
	case waits:
		a.initiator.waiting.Add(1)
	default:
		a.initiator.waiting.Add(-1)
	}
}

// Until returns how many bytes all accounts together may have beyond their reserves for n more to be admitted to
// this one. It is less when the initiator has been given more, and more when it has given something back.
func (a *Account) Until(n int64) int64 {
	if a == nil {
		return 0
	}
	used := a.used.Load()
	return a.process.limit - a.initiator.shared.Load() - 2*(a.beyond(used+n)-a.beyond(used))
}

// Retry puts a message into [Process.Freed].
func (p *Process) Retry() {
	select {
	case p.freed <- struct{}{}:
	default:
	}
}

// Freed has a message when something was given back since [Process.Await], or after [Process.Retry].
func (p *Process) Freed() <-chan struct{} { return p.freed }

// notify tells of what an account has given back, if it may be of use.
func (p *Process) notify(a *Account, shared int64) {
	if !p.waiting.Load() || !a.waiting.Load() && (shared == 0 || !p.enough(a)) {
		return
	}
	if p.waiting.CompareAndSwap(true, false) {
		p.Retry()
	}
}

// enough reports whether what an account has given back may be of use to those who have been refused. What counts
// for them is what their own initiator has and what all have.
func (p *Process) enough(a *Account) bool {
	shared := p.shared.Load()
	return shared == 0 || a.initiator.waiting.Load() > 0 || shared <= p.until.Load()
}

// beyond is the part of used that the reserve does not cover.
func (a *Account) beyond(used int64) int64 { return max(used-a.reserve, 0) }

// Admit puts n bytes on the account, and reports false, with nothing changed, if it may not
// have them now. One that is refused never stands in another's way, not even for a moment: who waits
// is told of what is given back, and of nothing else.
func (a *Account) Admit(n int64) bool {
	if a == nil {
		return true
	}
	for {
		used := a.used.Load()
		if used+n > a.reserve {
			return a.admitShared(n)
		}
		if a.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// admitShared is Admit for what the reserve does not cover, or not alone.
func (a *Account) admitShared(n int64) bool {
	p := a.process
	p.sharing.Lock()
	defer p.sharing.Unlock()
	for {
		used := a.used.Load()
		over := a.beyond(used+n) - a.beyond(used)
		own, shared := a.initiator.shared.Load(), p.shared.Load()
		if shared > 0 && own+shared+2*over > p.limit { // what nobody else has, whoever asks may have
			return false
		}
		if a.used.CompareAndSwap(used, used+n) {
			a.unshare(-over)
			return true
		}
	}
}

// unshare gives n bytes back, or takes -n without asking.
func (a *Account) unshare(n int64) {
	if n == 0 {
		return
	}
	a.initiator.shared.Add(-n)
	a.process.shared.Add(-n)
}

// Charge puts n bytes on the account without asking: what is little, or what another process
// has admitted. The account may have more than its bound then, and gets nothing else until that is over.
func (a *Account) Charge(n int64) {
	if a == nil {
		return
	}
	used := a.used.Add(n)
	a.unshare(a.beyond(used-n) - a.beyond(used))
}

// Release takes n bytes from the account.
func (a *Account) Release(n int64) {
	if a == nil {
		return
	}
	used := a.used.Add(-n)
	over := a.beyond(used+n) - a.beyond(used)
	a.unshare(over)
	a.process.notify(a, over)
}

// Used returns the bytes that are on the account.
func (a *Account) Used() int64 {
	if a == nil {
		return 0
	}
	return a.used.Load()
}

// Short reports whether the account is near the end of what it may have.
func (a *Account) Short() bool {
	if a == nil {
		return false
	}
	used := a.used.Load()
	over := a.beyond(used+shortOf) - a.beyond(used)
	return over > 0 && a.initiator.shared.Load()+a.process.shared.Load()+2*over > a.process.limit
}
