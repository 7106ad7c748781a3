// SPDX-License-Identifier: Apache-2.0

package guess

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestDelays(t *testing.T) {
	var f Failures
	f.SetDelays(Within(15 * time.Second))
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	now := time.Now()
	wait := func(from netip.Prefix, account string, want time.Duration) {
		t.Helper()
		if got := f.Delay(now, from, account); got != want {
			t.Errorf("from %s as %s: %v, want %v", from, account, got, want)
		}
	}
	for i := range 12 {
		want := []time.Duration{0, 0, 0, 0, 0, 1, 2, 4, 7500, 7500, 7500, 7500}[i]
		if want < 100 {
			want *= 1000
		}
		wait(a, "alice", want*time.Millisecond)
		begins, again := f.Proved(now, a, "alice", false)
		if begins != (i == 4) || again != (i > 4) {
			t.Errorf("failure %d: begins %v, again %v", i, begins, again)
		}
	}
	wait(a, "bob", 7500*time.Millisecond)
	wait(b, "alice", 2*time.Second) // her own login, from elsewhere
	wait(b, "bob", 0)
	f.Proved(now, b, "alice", true)
	wait(b, "alice", 0)
	wait(a, "alice", 7500*time.Millisecond) // a proof that is right does not make up for those of others
	now = now.Add(memory)
	wait(a, "alice", 0)
}

// TestBounded: whoever fails from however many addresses, memory is bounded, and who fails
// most is remembered longest.
func TestBounded(t *testing.T) {
	var f Failures
	f.SetDelays(Within(15 * time.Second))
	now, worst := time.Now(), netip.MustParsePrefix("192.0.2.1/32")
	for range 10 {
		f.Proved(now, worst, "alice", false)
	}
	for i := range 3 * maxGuessers {
		now = now.Add(time.Millisecond)
		f.Proved(now, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), fmt.Sprint("account", i), false)
		f.Proved(now, worst, strings.Repeat("x", MaxAccountLen+1), false)
		if len(f.by) > maxGuessers {
			t.Fatalf("%d are remembered", len(f.by))
		}
	}
	if f.Delay(now, worst, "") == 0 || f.Delay(now, netip.Prefix{}, "alice") == 0 {
		t.Error("those who guess most were forgotten")
	}
	now = now.Add(memory)
	f.Proved(now, worst, "alice", false)
	if n := f.Delay(now, worst, "alice"); n != 0 {
		t.Errorf("a delay of %v for what is long ago", n)
	}
}
