// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"cmp"
	"net/netip"
	"sync"
	"time"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

const (
	freeGuesses   = 5                // failed proofs that cost nothing
	maxGuessers   = 1024             // addresses and accounts that are remembered
	guessMemory   = 10 * time.Minute // since the last failure
	maxAccountLen = 255              // bytes of a CHAP name that can be an account's
)

// guesses remembers whose proofs have failed: those from an address, and those of an account
// from anywhere. From the sixth on, the next proof is looked at after a delay that doubles.
// The delay for an account is short: a stranger can cause it, and its owner has it too.
// What was guessed is forgotten with the process.
type guesses struct {
	forAddress, forAccount delays

	mu sync.Mutex // protects by
	by map[guesser]failed
}

// delays are the first and the longest delay.
type delays struct{ first, longest time.Duration }

// guesser is an address or an account.
type guesser struct {
	from    netip.Prefix
	account string
}

type failed struct {
	times int
	last  time.Time
}

func (g *guesses) init(loginTimeout time.Duration) {
	g.forAddress = delays{time.Second, min(8*time.Second, loginTimeout/2)}
	g.forAccount = delays{time.Second / 4, min(2*time.Second, loginTimeout/4)}
	g.by = make(map[guesser]failed)
}

// of is the delay after a number of failures.
func (d delays) of(times int) time.Duration {
	if times < freeGuesses {
		return 0
	}
	delay := d.first
	for range times - freeGuesses {
		if delay >= d.longest {
			break
		}
		delay *= 2
	}
	return min(delay, d.longest)
}

// delay is how long a proof of an account from an address waits.
func (g *guesses) delay(now time.Time, from netip.Prefix, account string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	times := func(who guesser) int {
		if f := g.by[who]; now.Sub(f.last) < guessMemory {
			return f.times
		}
		return 0
	}
	return max(g.forAddress.of(times(guesser{from: from})), g.forAccount.of(times(guesser{account: account})))
}

// proved notes what has come of a proof. begins says that from now on the next has to wait, and
// again that this one had to.
func (g *guesses) proved(now time.Time, from netip.Prefix, account string, ok bool) (begins, again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ok {
		// Not those of the address: who has an account could guess at others in between.
		delete(g.by, guesser{account: account})
		return false, false
	}
	most := g.failLocked(now, guesser{from: from})
	if len(account) <= maxAccountLen {
		most = max(most, g.failLocked(now, guesser{account: account}))
	}
	return most == freeGuesses, most > freeGuesses
}

// failLocked counts a failure and returns how many there are.
func (g *guesses) failLocked(now time.Time, who guesser) int {
	f := g.by[who]
	if now.Sub(f.last) >= guessMemory {
		f.times = 0
	}
	f.times, f.last = f.times+1, now
	if f.times == 1 && len(g.by) >= maxGuessers {
		g.forgetLocked(now)
	}
	g.by[who] = f
	return f.times
}

// forgetLocked makes room: what is over goes, or else who has failed least often, and of those
// the one who has longest ago.
func (g *guesses) forgetLocked(now time.Time) {
	var least guesser
	var found failed
	for who, f := range g.by {
		if now.Sub(f.last) >= guessMemory {
			delete(g.by, who)
			continue
		}
		if found.times == 0 || cmp.Or(cmp.Compare(f.times, found.times), f.last.Compare(found.last)) < 0 {
			least, found = who, f
		}
	}
	if len(g.by) >= maxGuessers {
		delete(g.by, least)
	}
}

// Prove waits until a proof of an account may be looked at.
func (n loginNode) Prove(account string) error {
	c := n.c
	d := c.node.guesses.delay(time.Now(), c.origin(), account)
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closing:
		return c.ended
	case <-c.node.freezing():
		return errFrozen
	}
}

// Proved counts proofs that have failed. The log has the first delay; what fails after it is of
// no further interest.
func (n loginNode) Proved(account string, ok bool) {
	c := n.c
	begins, again := c.node.guesses.proved(time.Now(), c.origin(), account, ok)
	c.quiet = again
	if begins {
		c.node.log.Warn("authentication fails again and again and is delayed from now on", "remote", c.remote.String(), "account", iscsiname.Printable(account, maxAccountLen))
	}
}
