// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

func TestGuessDelays(t *testing.T) {
	var g guesses
	g.init(15 * time.Second)
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	now := time.Now()
	wait := func(from netip.Prefix, account string, want time.Duration) {
		t.Helper()
		if got := g.delay(now, from, account); got != want {
			t.Errorf("from %s as %s: %v, want %v", from, account, got, want)
		}
	}
	for i := range 12 {
		want := []time.Duration{0, 0, 0, 0, 0, 1, 2, 4, 7500, 7500, 7500, 7500}[i]
		if want < 100 {
			want *= 1000
		}
		wait(a, "alice", want*time.Millisecond)
		begins, again := g.proved(now, a, "alice", false)
		if begins != (i == 4) || again != (i > 4) {
			t.Errorf("failure %d: begins %v, again %v", i, begins, again)
		}
	}
	wait(a, "bob", 7500*time.Millisecond)
	wait(b, "alice", 2*time.Second) // her own login, from elsewhere
	wait(b, "bob", 0)
	g.proved(now, b, "alice", true)
	wait(b, "alice", 0)
	wait(a, "alice", 7500*time.Millisecond) // a proof that is right does not make up for those of others
	now = now.Add(guessMemory)
	wait(a, "alice", 0)
}

// TestGuessersBounded: whoever fails from however many addresses, memory is bounded, and who fails
// most is remembered longest.
func TestGuessersBounded(t *testing.T) {
	var g guesses
	g.init(15 * time.Second)
	now, worst := time.Now(), netip.MustParsePrefix("192.0.2.1/32")
	for range 10 {
		g.proved(now, worst, "alice", false)
	}
	for i := range 3 * maxGuessers {
		now = now.Add(time.Millisecond)
		g.proved(now, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), fmt.Sprint("account", i), false)
		g.proved(now, worst, strings.Repeat("x", maxAccountLen+1), false)
		if len(g.by) > maxGuessers {
			t.Fatalf("%d are remembered", len(g.by))
		}
	}
	if g.delay(now, worst, "") == 0 || g.delay(now, netip.Prefix{}, "alice") == 0 {
		t.Error("those who guess most were forgotten")
	}
	now = now.Add(guessMemory)
	g.proved(now, worst, "alice", false)
	if n := g.delay(now, worst, "alice"); n != 0 {
		t.Errorf("a delay of %v for what is long ago", n)
	}
}

// delay sets the delays after failed proofs.
func (r *rig) delay(forAddress, forAccount delays) {
	g := &r.node.guesses
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forAddress, g.forAccount = forAddress, forAccount
}

// proves reports whether the one login that is under way has sent its proof.
func (r *rig) proves() bool {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	return len(r.node.logins) == 1 && r.node.logins[0].heard.Load() == 3
}

// TestGuessing: after five failures a proof waits, even the right one, and nothing else does. The log
// has one line of it.
func TestGuessing(t *testing.T) {
	var log bytes.Buffer
	r := newRigOf(t, Limits{}, twoAccounts(), realSystem, 0, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	r.delay(delays{time.Hour, time.Hour}, delays{})
	guess := func(ip, user, secret string) initiator.Options {
		return initiator.Options{DialContext: from(ip), CHAP: chapOf(user, secret)}
	}
	for i := range freeGuesses {
		r.refused(guess("127.0.0.2", "alice", fmt.Sprint("a wrong secret ", i)), pdu.AuthenticationFailure)
	}
	r.none()
	waiting := make(chan error, 1)
	go func() {
		_, err := r.try(guess("127.0.0.2", "bob", bobsSecret))
		waiting <- err
	}()
	r.until("the login waits", r.proves)
	other, err := r.try(guess("127.0.0.3", "alice", alicesSecret))
	if err != nil {
		t.Fatalf("from another address: %v", err)
	}
	state, socks := r.freeze(t) // a login that waits keeps nobody from an upgrade
	r.move(t, state, socks)
	if err := <-waiting; err != nil {
		t.Errorf("the login that waited, in the next process: %v", err)
	}
	if err := other.TestUnitReady(t.Context(), initiator.LUN(1)); err == nil {
		t.Error("a session without its first unit attention")
	}
	r.close()
	if n := strings.Count(log.String(), "is delayed from now on"); n != 1 {
		t.Errorf("%d lines of the log tell of the delay:\n%s", n, &log)
	}
}

// TestGuessDisplaced: a login that waits is ended like any other.
func TestGuessDisplaced(t *testing.T) {
	r := newRigOf(t, Limits{}, twoAccounts(), realSystem, 0, Options{Limits: NodeLimits{LoginsPerAddress: 1}})
	r.delay(delays{time.Hour, time.Hour}, delays{})
	for range freeGuesses {
		r.refused(initiator.Options{CHAP: chapOf("alice", "a wrong secret")}, pdu.AuthenticationFailure)
	}
	r.none()
	waiting := make(chan error, 1)
	go func() {
		_, err := r.try(initiator.Options{CHAP: chapOf("alice", alicesSecret)})
		waiting <- err
	}()
	r.until("the login waits", r.proves)
	next := r.raw()
	if err := <-waiting; err == nil {
		t.Error("a proof was taken without the delay")
	}
	next.c.Close()
	r.none()
}
