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
	"github.com/gotgtd/gotgtd/target/iscsi/guess"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
)

// proves reports whether the one login that is under way has sent its proof.
func (r *rig) proves() bool {
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	return len(r.node.conns.logins) == 1 && r.node.conns.logins[0].heard.Load() == 3
}

// TestGuessing: after five failures a proof waits, even the right one, and nothing else does. The log
// has one line of it.
func TestGuessing(t *testing.T) {
	var log bytes.Buffer
	r := newRigOf(t, Limits{}, twoAccounts(), realSystem, 0, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	r.node.guesses.SetDelays(guess.Delays{First: time.Hour, Longest: time.Hour}, guess.Delays{})
	guessing := func(ip, user, secret string) initiator.Options {
		return initiator.Options{DialContext: from(ip), CHAP: chapOf(user, secret)}
	}
	for i := range guess.Free {
		r.refused(guessing("127.0.0.2", "alice", fmt.Sprint("a wrong secret ", i)), pdu.AuthenticationFailure)
	}
	r.none()
	waiting := make(chan error, 1)
	go func() {
		_, err := r.try(guessing("127.0.0.2", "bob", bobsSecret))
		waiting <- err
	}()
	r.until("the login waits", r.proves)
	other, err := r.try(guessing("127.0.0.3", "alice", alicesSecret))
	if err != nil {
		t.Fatalf("from another address: %v", err)
	}
	state, socks := r.freeze(t) // a login that waits keeps nobody from an upgrade
	r.move(t, state, socks)
	if d := r.node.guesses.Delay(time.Now(), netip.MustParsePrefix("127.0.0.2/32"), "bob"); d < time.Second {
		t.Errorf("in the next process the next proof waits for %v", d)
	}
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
	r.node.guesses.SetDelays(guess.Delays{First: time.Hour, Longest: time.Hour}, guess.Delays{})
	for range guess.Free {
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
