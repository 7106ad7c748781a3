// SPDX-License-Identifier: Apache-2.0

// Package guess remembers whose CHAP proofs have failed, and says how long the next one waits: those
// who guess at secrets get no further by many connections or many accounts.
package guess

import (
	"cmp"
	"net/netip"
	"sync"
	"time"
)

const (
	Free          = 5                // failed proofs that cost nothing
	MaxAccountLen = 255              // bytes of a CHAP name that can be an account's
	maxGuessers   = 1024             // addresses and accounts that are remembered
	memory        = 10 * time.Minute // since the last failure
)

// Failures are the proofs that have failed: those from an address, and those of an account
// from anywhere. From the sixth on, the next proof is looked at after a delay that doubles.
// The delay for an account is short: a stranger can cause it, and its owner has it too.
// What has failed is handed on at an upgrade ([Failures.Snapshot]), and forgotten at a restart. The
// zero Failures delay nothing before [Failures.SetDelays].
type Failures struct {
	mu                     sync.Mutex // protects the fields below
	forAddress, forAccount Delays
	by                     map[guesser]failed
}

// Delays are the first and the longest delay.
type Delays struct{ First, Longest time.Duration }

// Within returns delays that leave room for a login within its time limit.
func Within(loginTimeout time.Duration) (forAddress, forAccount Delays) {
	return Delays{time.Second, min(8*time.Second, loginTimeout/2)}, Delays{time.Second / 4, min(2*time.Second, loginTimeout/4)}
}

// guesser is an address or an account.
type guesser struct {
	from    netip.Prefix
	account string
}

type failed struct {
	times int
	last  time.Time
}

// SetDelays says how long proofs wait from now on.
func (f *Failures) SetDelays(forAddress, forAccount Delays) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forAddress, f.forAccount = forAddress, forAccount
}

// of is the delay after a number of failures.
func (d Delays) of(times int) time.Duration {
	if times < Free {
		return 0
	}
	delay := d.First
	for range times - Free {
		if delay >= d.Longest {
			break
		}
		delay *= 2
	}
	return min(delay, d.Longest)
}

// Delay is how long a proof of an account from an address waits.
func (f *Failures) Delay(now time.Time, from netip.Prefix, account string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := func(who guesser) int {
		if failed := f.by[who]; now.Sub(failed.last) < memory {
			return failed.times
		}
		return 0
	}
	return max(f.forAddress.of(times(guesser{from: from})), f.forAccount.of(times(guesser{account: account})))
}

// Proved notes what has come of a proof. begins says that from now on the next has to wait, and
// again that this one had to.
func (f *Failures) Proved(now time.Time, from netip.Prefix, account string, ok bool) (begins, again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ok {
		// Not those of the address: who has an account could guess at others in between.
		delete(f.by, guesser{account: account})
		return false, false
	}
	most := f.failLocked(now, guesser{from: from})
	if len(account) <= MaxAccountLen {
		most = max(most, f.failLocked(now, guesser{account: account}))
	}
	return most == Free, most > Free
}

// failLocked counts a failure and returns how many there are.
func (f *Failures) failLocked(now time.Time, who guesser) int {
	n := f.by[who]
	if now.Sub(n.last) >= memory {
		n.times = 0
	}
	n.times, n.last = n.times+1, now
	if n.times == 1 && len(f.by) >= maxGuessers {
		f.forgetLocked(now)
	}
	if f.by == nil {
		f.by = make(map[guesser]failed)
	}
	f.by[who] = n
	return n.times
}

// forgetLocked makes room: what is over goes, or else who has failed least often, and of those
// the one who has longest ago.
func (f *Failures) forgetLocked(now time.Time) {
	var least guesser
	var found failed
	for who, n := range f.by {
		if now.Sub(n.last) >= memory {
			delete(f.by, who)
			continue
		}
		if found.times == 0 || cmp.Or(cmp.Compare(n.times, found.times), n.last.Compare(found.last)) < 0 {
			least, found = who, n
		}
	}
	if len(f.by) >= maxGuessers {
		delete(f.by, least)
	}
}
