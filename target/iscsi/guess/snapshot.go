// SPDX-License-Identifier: Apache-2.0

package guess

import (
	"time"

	"github.com/gotgtd/gotgtd/internal/boottime"
)

// maxTimes is more failures than make a difference.
const maxTimes = 1 << 16

// Failed is what another process gets to know of an address or an account whose proofs have failed.
// Fields are only ever added.
type Failed struct {
	From    []byte         `cbor:"1,keyasint,omitempty"` // a network, as MarshalBinary of net/netip has it; empty for an account
	Account []byte         `cbor:"2,keyasint,omitempty"` // a CHAP name, any bytes
	Times   int            `cbor:"3,keyasint"`
	Last    boottime.Stamp `cbor:"4,keyasint"`
}

// Snapshot returns what is remembered at a time, in no order.
func (f *Failures) Snapshot(now time.Time) (list []Failed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for who, n := range f.by {
		if now.Sub(n.last) >= memory {
			continue
		}
		s := Failed{Account: []byte(who.account), Times: min(n.times, maxTimes), Last: boottime.Of(n.last)}
		if who.from.IsValid() {
			s.From, _ = who.from.MarshalBinary()
		}
		list = append(list, s)
	}
	return list
}

// Restore remembers what another process did. What this one has no use for is left out.
func (f *Failures) Restore(now time.Time, list []Failed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range list {
		who, n := guesser{account: string(s.Account)}, failed{times: min(s.Times, maxTimes), last: s.Last.Time()}
		if n.last.After(now) {
			n.last = now
		}
		bad := len(s.From) > 0 && who.from.UnmarshalBinary(s.From) != nil
		if bad || n.times < 1 || len(s.Account) > MaxAccountLen || now.Sub(n.last) >= memory || len(f.by) >= maxGuessers {
			continue
		}
		if f.by == nil {
			f.by = make(map[guesser]failed)
		}
		f.by[who] = n
	}
}
