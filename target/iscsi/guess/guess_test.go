// SPDX-License-Identifier: Apache-2.0

package guess

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
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

// TestHandedOn: the delays of a process are those of the one before. What that could not have remembered is
// left out, and nothing that it says takes more than the bound.
func TestHandedOn(t *testing.T) {
	var f, next Failures
	now, a, six := time.Now(), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/64")
	for range Free {
		f.Proved(now, a, "alice", false)
		f.Proved(now, six, "b\xff", false)
	}
	f.Proved(now.Add(-memory), netip.MustParsePrefix("192.0.2.9/32"), "old", false)
	list := f.Snapshot(now)
	if len(list) != 4 {
		t.Errorf("%d are handed on, want 4", len(list))
	}
	b, err := cbor.Marshal(append(list,
		Failed{Times: -1, Account: []byte("never")}, Failed{Times: 9, From: []byte{1, 2, 3}, Last: list[0].Last},
		Failed{Times: 9, Account: []byte("future"), Last: list[0].Last + 1<<60},
		Failed{Times: 9, Account: make([]byte, MaxAccountLen+1), Last: list[0].Last}))
	if err == nil {
		err = cbor.Unmarshal(b, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	next.SetDelays(Within(15 * time.Second))
	next.Restore(now, list)
	if len(next.by) != 5 {
		t.Errorf("%d are remembered, want 5: %v", len(next.by), next.by)
	}
	for _, tt := range []struct {
		from    netip.Prefix
		account string
		want    time.Duration
	}{{a, "x", time.Second}, {six, "x", time.Second}, {netip.MustParsePrefix("192.0.2.2/32"), "b\xff", time.Second / 4}, {netip.MustParsePrefix("192.0.2.9/32"), "old", 0}} {
		if got := next.Delay(now, tt.from, tt.account); got != tt.want {
			t.Errorf("from %s as %q: %v, want %v", tt.from, tt.account, got, tt.want)
		}
	}
	if now = now.Add(2 * memory); next.Delay(now, a, "future") != 0 {
		t.Error("a failure in the future counts for ever")
	}
	var many []Failed
	for i := range 3 * maxGuessers {
		many = append(many, Failed{Account: []byte(fmt.Sprint("account", i)), Times: 1, Last: list[0].Last})
	}
	if next.Restore(now.Add(-2*memory), many); len(next.by) > maxGuessers {
		t.Errorf("%d are remembered", len(next.by))
	}
}
