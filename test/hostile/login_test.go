// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
)

var (
	attacker  = netip.MustParseAddr("127.0.0.2")
	elsewhere = netip.MustParseAddr("127.0.0.3")
)

// attack runs f in n goroutines, until the end of the test or of the attack.
func attack(t testing.TB, n int, f func(ctx context.Context, i int)) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			for ctx.Err() == nil {
				f(ctx, i)
			}
		})
	}
	end = func() {
		cancel()
		all.Wait()
	}
	t.Cleanup(end)
	return end
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// logIn logs in from an address, and out by closing the connection. It returns how long the login took.
func logIn(ctx context.Context, d *Daemon, from netip.Addr, name, target string) (time.Duration, error) {
	begin := time.Now()
	c, err := Dial(ctx, d.Portal(), from)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	c.Timeout = 10 * time.Second
	err = c.Login(name, target)
	return time.Since(begin), err
}

// logins logs in n times from an address, and tells how many have succeeded, and how long they took.
func logins(t testing.TB, d *Daemon, n int, from netip.Addr) int {
	t.Helper()
	var took []time.Duration
	var failed error
	for i := range n {
		one, err := logIn(t.Context(), d, from, fmt.Sprintf("iqn.2026-11.test:innocent-%d", i), Target)
		if err != nil {
			failed = err
			continue
		}
		took = append(took, one)
	}
	slices.Sort(took)
	within := len(took)
	for within > 0 && took[within-1] > time.Second {
		within--
	}
	if len(took) == 0 {
		t.Fatalf("no login from %s has succeeded: %v", from, failed)
	}
	Figure(t, "from %s %d of %d logins, %d within 1 s: median %v, longest %v; last error %v", from, len(took), n, within, took[len(took)/2], took[len(took)-1], failed)
	return within
}

// TestLoginSlots: connections of one address that say nothing, or a byte at a time, take every login
// slot that they can get, and come again when they are ended.
func TestLoginSlots(t *testing.T) {
	d := Start(t, gotgtd, Config(""))
	attack(t, 128, func(ctx context.Context, i int) {
		c, err := Dial(ctx, d.Portal(), attacker)
		if err != nil {
			pause(ctx, 100*time.Millisecond)
			return
		}
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		if i%2 == 0 {
			p := c.LoginPDU(Text("InitiatorName="+Initiator, "TargetName="+Target))
			for _, b := range p.Bytes() {
				if c.SendBytes([]byte{b}) != nil {
					break
				}
				pause(ctx, 200*time.Millisecond)
			}
		}
		_, _ = c.Receive() // its end
		pause(ctx, 500*time.Millisecond)
	})
	pause(t.Context(), 2*time.Second) // all have had their first turn
	if n := logins(t, d, 100, elsewhere); n != 100 {
		t.Errorf("%d of 100 logins from elsewhere", n)
	}
	if n := logins(t, d, 100, attacker); n < 95 {
		t.Errorf("%d of 100 logins from the address of the attack", n)
	}
}

// TestDiscoverySessions: as many discovery sessions as there may be sessions.
func TestDiscoverySessions(t *testing.T) {
	d := Start(t, gotgtd, Config("limits:\n  discovery-timeout: 20s\n"))
	var held []*Client
	for i := range 1024 {
		c := d.DialFrom(t, attacker)
		c.ISID[4], c.ISID[5] = byte(i>>8), byte(i)
		if err := c.Login(Initiator, ""); err != nil {
			t.Fatalf("discovery session %d: %v", i, err)
		}
		held = append(held, c)
	}
	if n := logins(t, d, 100, elsewhere); n != 100 {
		t.Errorf("%d of 100 logins to a target", n)
	}
	for _, from := range []netip.Addr{elsewhere, attacker} {
		if took, err := logIn(t.Context(), d, from, "iqn.2026-11.test:innocent", ""); err != nil || took > 5*time.Second {
			t.Errorf("discovery from %s: %v, %v", from, took, err)
		}
	}
	list, err := d.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	Figure(t, "1,024 discovery sessions of one address: %d are left", len(list))
	if len(list) > 64+1 {
		t.Errorf("%d sessions are left, want 64 of discovery", len(list))
	}
	last := held[len(held)-1]
	last.Timeout = 60 * time.Second
	begin := time.Now()
	for err == nil { // NOP-Ins come before the end
		_, err = last.Receive()
	}
	if time.Since(begin) > 50*time.Second {
		t.Errorf("the last discovery session has not ended: %v", err)
	}
}

// TestManyKeys: logins of 64 KiB that are as many keys as fit, one after the other.
func TestManyKeys(t *testing.T) {
	const count = 100
	d := Start(t, gotgtd, Config(""))
	text := []byte("InitiatorName=" + Initiator + "\x00TargetName=" + Target + "\x00")
	keys := 2
	for ; len(text) < 64<<10-16; keys++ {
		text = fmt.Appendf(text, "%c%x=\x00", 'a'+keys%26, keys/26)
	}
	login := func() {
		c, err := Dial(t.Context(), d.Portal(), attacker)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var pdus []PDU
		for part := range slices.Chunk(text, 8<<10) {
			p := c.LoginPDU(part)
			p.Header[1] = 0x40 | 1<<2 // C
			p.Set(16, 1)
			pdus = append(pdus, p)
		}
		pdus[len(pdus)-1].Header[1] = 0x80 | 1<<2 | 3
		if err := c.Send(pdus...); err != nil {
			return // the target has had enough
		}
		for err == nil {
			_, err = c.Receive()
		}
	}
	before := d.CPU(t)
	for range count {
		login()
	}
	each := (d.CPU(t) - before) / count
	if each > 5*time.Millisecond {
		t.Errorf("%v of CPU a login", each)
	}
	i := LogIn(t, d)
	alone := i.For(t, 2*time.Second)
	for try := 1; ; try++ {
		disturbed := i.While(t, func() {
			for range count {
				login()
				pause(t.Context(), 10*time.Millisecond)
			}
		})
		Figure(t, "%d keys: %v of CPU a login; innocent alone %v; disturbed %v", keys, each, alone, disturbed)
		if disturbed.P99() <= max(5*time.Millisecond, 3*alone.P99()) {
			return
		}
		if try == tries {
			t.Fatalf("innocent's p99 is %v, and %v alone", disturbed.P99(), alone.P99())
		}
	}
}

// upgrade replaces the daemon by a successor with the same configuration, and returns what it tells.
func upgrade(t testing.TB, d *Daemon) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), gotgtd.Path(t), "upgrade", "--control", d.Control()).CombinedOutput()
	if err != nil {
		t.Fatalf("upgrade: %v\n%s\n%s", err, out, d.Log())
	}
	return string(out)
}

// TestNames: names that can't be written and read again are refused, and a file of reservations that
// can't be read costs no more than what is in it.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	d := StartIn(t, gotgtd, dir, Config(""), upgraded.Path(t), "run", "--control", filepath.Join(dir, "upgraded.sock"), "--")
	for _, name := range []string{"iqn.a b", "iqn.a,b", "iqn.a\x1b[2J", "iqn.a\u2003b", "iqn.\xff\xfe", "iqn." + strings.Repeat("a", 220)} {
		if _, err := logIn(t.Context(), d, attacker, name, Target); err == nil {
			t.Errorf("%q has logged in", name)
		}
	}
	c := d.DialFrom(t, attacker)
	if err := c.Login(Initiator, Target, "InitiatorAlias=\xff\xfe caf\xe9 \x1b[2J"); err != nil {
		t.Fatal(err)
	}
	half := d.DialFrom(t, attacker)
	p := half.LoginPDU(Text("InitiatorName="+Initiator, "InitiatorAlias=\xff\xfe", "TargetName="+Target))
	p.Header[1] = 1 << 2 // it stays in operational negotiation
	if err := half.Send(p); err != nil {
		t.Fatal(err)
	}
	if _, err := half.Expect(LoginResp); err != nil {
		t.Fatal(err)
	}
	if err := c.Settle(); err != nil {
		t.Fatal(err)
	}
	// PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY, with APTPL.
	list := make([]byte, 24)
	list[15], list[20] = 1, 1
	if err := c.Send(c.Command([]byte{0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0}, true, 24, list)); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Expect(SCSIResponse); err != nil || p.Header[3] != 0 {
		t.Fatalf("registering: status %#x, %v", p.Header[3], err)
	}
	upgrade(t, d)
	if err := c.Send(c.NOP(true, []byte("there"))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Expect(NOPIn); err != nil {
		t.Errorf("the session has not moved: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(d.Dir, "*.reservations"))
	if err != nil || len(files) != 1 {
		t.Fatalf("reservations are kept in %q, %v", files, err)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], []byte("not reservations"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := StartIn(t, gotgtd, d.Dir, Config(""))
	LogIn(t, again).For(t, 100*time.Millisecond)
	if n := again.CountLog("reservations are lost"); n != 1 {
		t.Errorf("%d lines of the log tell that reservations are lost:\n%s", n, again.Log())
	}
}

const twoUsers = `    auth:
      users:
        - {user: alice, secret: wonderland-1865, initiators: ["iqn.2026-11.test:alice"]}
        - {user: bob, secret: looking-glass-1871}
`

// TestAccounts: who has an account has no other's session, and no name that is bound to one.
func TestAccounts(t *testing.T) {
	d := Start(t, gotgtd, Config("")+twoUsers)
	login := func(name, user, secret string) (*initiator.Session, error) {
		return initiator.Dial(t.Context(), initiator.Options{
			Address: d.Portal(), TargetName: Target, InitiatorName: name, ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, CHAP: initiator.CHAP{User: user, Secret: secret},
		})
	}
	bobs, err := login("iqn.2026-11.test:bob", "bob", "looking-glass-1871")
	if err != nil {
		t.Fatal(err)
	}
	defer bobs.Close()
	if err := bobs.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	if s, err := login("iqn.2026-11.test:bob", "alice", "wonderland-1865"); err == nil {
		s.Close()
		t.Error("alice has logged in under a name that her account is not bound to")
	}
	if err := bobs.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Errorf("bob's session: %v", err)
	}
	alices, err := login("iqn.2026-11.test:alice", "alice", "wonderland-1865")
	if err != nil {
		t.Fatal(err)
	}
	defer alices.Close()
	if err := alices.Settle(t.Context(), initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	var refused *initiator.LoginError
	if s, err := login("iqn.2026-11.test:alice", "bob", "looking-glass-1871"); err == nil {
		s.Close()
		t.Error("bob has taken the place of alice's session")
	} else if !errors.As(err, &refused) {
		t.Errorf("bob under the name of alice: %v", err)
	}
	if err := alices.TestUnitReady(t.Context(), initiator.LUN(1)); err != nil {
		t.Errorf("alice's session: %v", err)
	}
}

// TestGuessing: one address guesses at a secret, on as many connections as it likes.
func TestGuessing(t *testing.T) {
	d := Start(t, gotgtd, Config("")+twoUsers)
	var mu sync.Mutex
	guesses := 0
	guess := func(ctx context.Context, from netip.Addr, secret string) error {
		s, err := initiator.Dial(ctx, initiator.Options{
			Address: d.Portal(), TargetName: Target, InitiatorName: Initiator, CHAP: initiator.CHAP{User: "bob", Secret: secret},
			DialContext: (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}).DialContext,
		})
		if err == nil {
			s.Close()
		}
		return err
	}
	end := attack(t, 4, func(ctx context.Context, i int) {
		var refused *initiator.LoginError
		if err := guess(ctx, attacker, fmt.Sprintf("a wrong secret %d", i)); errors.As(err, &refused) {
			mu.Lock()
			guesses++
			mu.Unlock()
		}
	})
	const watched = 10 * time.Second
	pause(t.Context(), watched)
	begin := time.Now()
	if err := guess(t.Context(), elsewhere, "looking-glass-1871"); err != nil {
		t.Errorf("who has the account logs in from elsewhere: %v", err)
	}
	took := time.Since(begin)
	end()
	Figure(t, "%d guesses in %v on 4 connections of one address; its owner's login from elsewhere took %v", guesses, watched, took)
	if guesses < 5 || guesses > 40 {
		t.Errorf("%d guesses in %v", guesses, watched)
	}
	if n := d.CountLog("is delayed from now on"); n == 0 || n > 2 {
		t.Errorf("%d lines of the log tell of the guesses", n)
	}
	if n := d.CountLog("0x0201"); n > 2*5+2 {
		t.Errorf("%d lines of the log tell of failed proofs", n)
	}
}

// TestSessionShares: one initiator opens sessions until it is refused.
func TestSessionShares(t *testing.T) {
	d := Start(t, gotgtd, Config("limits:\n  sessions: 128\n"))
	opened := 0
	for i := range 129 {
		c := d.DialFrom(t, attacker)
		c.ISID[4], c.ISID[5] = byte(i>>8), byte(i)
		if err := c.Login(fmt.Sprintf("%s-%d", Initiator, i/32), Target); err != nil {
			if !strings.Contains(err.Error(), "status 0302") {
				t.Fatalf("session %d: %v", i, err)
			}
			break
		}
		opened++
	}
	Figure(t, "of 128 sessions one address has got %d", opened)
	if opened != 64 {
		t.Errorf("one address has %d sessions of 128, want 64", opened)
	}
	if n := logins(t, d, 20, elsewhere); n != 20 {
		t.Errorf("%d of 20 logins from elsewhere", n)
	}
}
