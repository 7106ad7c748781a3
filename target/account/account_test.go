// SPDX-License-Identifier: Apache-2.0

package account

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// loan is what a model of the accounts remembers.
type loan struct {
	account *Account
	bytes   int64
}

// biggest is the most that is asked for at once.
const biggest = 8 << 20

// check compares the sums with what the loans come to, and the sums with their bounds.
func check(t rapid.TB, p *Process, accounts []*Account, loans []loan) {
	t.Helper()
	used := make(map[*Account]int64)
	for _, l := range loans {
		used[l.account] += l.bytes
	}
	var shared, total int64
	of := make(map[*initiator]int64)
	for _, a := range accounts {
		if a.Used() != used[a] {
			t.Fatalf("an account says %d bytes, its loans are %d", a.Used(), used[a])
		}
		over := max(used[a]-p.reserve, 0)
		shared += over
		of[a.initiator] += over
		total += used[a]
	}
	if p.shared.Load() != shared || p.Used() != total {
		t.Fatalf("%d of %d bytes are said to be shared, it is %d of %d", p.shared.Load(), p.Used(), shared, total)
	}
	for i, n := range of {
		if i.shared.Load() != n {
			t.Fatalf("an initiator is said to have %d shared bytes, it is %d", i.shared.Load(), n)
		}
		if n > max(p.limit/2, biggest) {
			t.Fatalf("an initiator has %d of %d bytes that all share", n, p.limit)
		}
	}
	if shared > max(p.limit, biggest) {
		t.Fatalf("%d bytes are shared, the limit is %d", shared, p.limit)
	}
}

// TestAccounts lends and takes back at random, and compares each step with a model.
func TestAccounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 12
		p := New(rapid.Int64Range(1<<20, 64<<20).Draw(t, "limit"), most)
		var accounts []*Account
		for n := range rapid.IntRange(1, most).Draw(t, "accounts") {
			accounts = append(accounts, p.Open(fmt.Sprint(n%rapid.IntRange(1, 4).Draw(t, "initiators"))))
		}
		var loans []loan
		t.Repeat(map[string]func(*rapid.T){
			"admit": func(t *rapid.T) {
				a := rapid.SampledFrom(accounts).Draw(t, "account")
				n := rapid.Int64Range(1, biggest).Draw(t, "bytes")
				before := a.Used()
				own, shared := a.initiator.shared.Load(), p.shared.Load()
				over := max(before+n-p.reserve, 0) - max(before-p.reserve, 0)
				ok := a.Admit(n)
				if want := over == 0 || shared == 0 || own+over <= p.limit-shared-over; ok != want {
					t.Fatalf("%d bytes beside %d, with %d of %d shared: admitted %v", n, before, own, shared, ok)
				}
				if ok {
					loans = append(loans, loan{a, n})
				}
			},
			"release": func(t *rapid.T) {
				if len(loans) == 0 {
					return
				}
				i := rapid.IntRange(0, len(loans)-1).Draw(t, "loan")
				loans[i].account.Release(loans[i].bytes)
				loans[i] = loans[len(loans)-1]
				loans = loans[:len(loans)-1]
			},
			"": func(t *rapid.T) { check(t, p, accounts, loans) },
		})
	})
}

// TestLimitIsTold has accounts take all that they can, with limits that are enough for the reserves
// and one that is not: it is as much as Limit says, and no byte more.
func TestLimitIsTold(t *testing.T) {
	const accounts = 10
	for _, limit := range []int64{1, Least(accounts), 3 * Least(accounts)} {
		p := New(limit, accounts)
		if p.Limit() != max(limit, Least(accounts)) {
			t.Errorf("Limit of %d is %d", limit, p.Limit())
		}
		var list []*Account
		for i := range accounts {
			list = append(list, p.Open(string(rune('a'+i))))
		}
		for again := true; again; {
			again = false
			for _, a := range list {
				for n := int64(1 << 14); n > 0; n /= 2 {
					again = a.Admit(n) || again
				}
			}
		}
		if used := p.Used(); used > p.Limit() || used < p.Limit()*9/10 {
			t.Errorf("all accounts have %d of %d bytes", used, p.Limit())
		}
	}
}

// TestReserveIsNobodyElses lets many initiators take all that they can and keep it: each leaves half
// of what it has found, and a new one has its reserve.
func TestReserveIsNobodyElses(t *testing.T) {
	const most = 100
	p := New(64<<20, most)
	for i := range most - 1 {
		a, left := p.Open(fmt.Sprint(i)), p.limit-p.shared.Load()
		for _, n := range []int64{biggest, 1 << 20, 64 << 10, 4 << 10} {
			for a.Admit(n) {
			}
		}
		if over := a.Used() - p.reserve; over > left/2 || over < left/2-4<<10 {
			t.Fatalf("initiator %d has found %d bytes and has taken %d", i, left, over)
		}
	}
	last := p.Open("last")
	if !last.Admit(p.reserve) {
		t.Error("the reserve was taken by others")
	}
	if !last.Short() {
		t.Error("nobody is short of anything")
	}
}

// TestAwait has waiters on several goroutines that live on what others give back: none is
// forgotten, and in the end nothing is left on any account.
func TestAwait(t *testing.T) {
	p := New(1<<20, 8)
	wake := sync.NewCond(new(sync.Mutex))
	stop := make(chan struct{})
	var server, workers sync.WaitGroup
	server.Go(func() {
		for {
			select {
			case <-p.Freed():
				wake.L.Lock()
				wake.Broadcast()
				wake.L.Unlock()
			case <-stop:
				return
			}
		}
	})
	for i := range 8 {
		workers.Go(func() {
			a := p.Open(fmt.Sprint(i % 3))
			defer a.Close()
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 300 {
				n := 1 + random.Int64N(p.limit/2)
				wake.L.Lock()
				for !a.Admit(n) {
					if p.Await(); a.Admit(n) {
						break
					}
					wake.Wait() // others may have asked since: they want any number of bytes
				}
				wake.L.Unlock()
				if random.IntN(50) == 0 {
					time.Sleep(time.Millisecond)
				}
				a.Release(n)
			}
		})
	}
	workers.Wait()
	close(stop)
	server.Wait()
	if p.Used() != 0 || p.shared.Load() != 0 || len(p.accounts)+len(p.initiators) != 0 {
		t.Errorf("%d bytes, %d of them shared, and %d accounts of %d initiators are left", p.Used(), p.shared.Load(), len(p.accounts), len(p.initiators))
	}
}

// TestCharge goes beyond the bounds without asking, and closes an account that is not empty.
func TestCharge(t *testing.T) {
	p := New(1<<20, 1)
	a := p.Open("a")
	a.Charge(4 << 20)
	if a.Admit(1) || !a.Short() || p.Used() != 4<<20 {
		t.Errorf("admitted beyond the limit, or not short, with %d bytes used", p.Used())
	}
	a.Close()
	if b := p.Open("a"); b.initiator != a.initiator || b.Admit(p.reserve+1) {
		t.Error("an initiator gets rid of its debts by closing its account")
	} else {
		b.Close()
	}
	a.Release(4 << 20)
	a.Close()
	if p.Used() != 0 || len(p.accounts)+len(p.initiators) != 0 {
		t.Error("something is left of a closed account")
	}
}

// TestRefusalsWakeNobody has accounts that are refused while somebody waits: only what is given back
// is told.
func TestRefusalsWakeNobody(t *testing.T) {
	p := New(1<<20, 3)
	a, b := p.Open("a"), p.Open("b")
	for _, x := range []*Account{a, b} {
		for x.Admit(64 << 10) {
		}
	}
	told := func() bool {
		select {
		case <-p.Freed():
			return true
		default:
			return false
		}
	}
	p.Await()
	if a.Admit(1<<20) || b.Admit(1<<20) || told() {
		t.Error("a refusal is told as if something had been given back")
	}
	if a.Release(64 << 10); !told() {
		t.Error("what was given back is not told")
	}
	if a.Release(64 << 10); told() {
		t.Error("told without having been asked for")
	}
	c := p.Open("c")
	refused := p.Await()
	refused(c.Until(p.limit/2 + p.reserve))
	if a.Release(64 << 10); told() {
		t.Error("told of what is too little")
	}
	c.Charge(8 << 10)
	if c.Release(4 << 10); told() {
		t.Error("told of what is another's reserve")
	}
	if c.Await(true); told() {
		t.Error("told of nothing")
	}
	if c.Release(4 << 10); !told() {
		t.Error("who waits is not told of its own reserve")
	}
	refused = p.Await()
	refused(c.Until(p.limit/2 + p.reserve))
	c.Await(false)
	a.Release(a.Used())
	b.Release(b.Used())
	if !told() {
		t.Error("not told of enough")
	}
	c.Close()
}

// TestOthersAreNoNews lets an initiator wait for more than its share, while another one takes and gives back what
// it needs for each command: that is no news for who waits, until it is enough.
func TestOthersAreNoNews(t *testing.T) {
	p := New(64<<20, 1)
	hoarder, second, other := p.Open("hoarder"), p.Open("hoarder"), p.Open("other")
	if !second.Admit(2 << 20) {
		t.Fatal("there is no room for 2 MiB")
	}
	most := int64(0)
	for n := int64(8 << 20); n > 0; n /= 2 {
		for hoarder.Admit(n) {
			most += n
		}
	}
	told := func() bool { return len(p.Freed()) > 0 }
	hoarder.Await(true)
	p.Await()(hoarder.Until(8 << 20))
	for range 3 {
		if !other.Admit(4 << 20) {
			t.Fatal("the other initiator has no share")
		}
		if other.Release(4 << 20); told() {
			t.Fatal("who waits is told of what does not help it")
		}
	}
	if second.Release(2 << 20); !told() {
		t.Error("who waits is not told of what its initiator gives back")
	}
	<-p.Freed()
	p.Await()(hoarder.Until(8 << 20))
	hoarder.Release(most)
	if !told() || !hoarder.Admit(8<<20) {
		t.Error("who waits is not told of enough")
	}
}

func TestNoAccount(t *testing.T) {
	var a *Account
	a.Charge(1)
	a.Release(1)
	a.Close()
	if !a.Admit(1<<40) || a.Short() || a.Used() != 0 {
		t.Error("no account is not one without bounds")
	}
}

func BenchmarkAdmit(b *testing.B) {
	p := New(1<<30, 1024)
	a := p.Open("a")
	b.ReportAllocs()
	for range b.N {
		a.Admit(8 << 10)
		a.Release(8 << 10)
	}
}

// TestSpare has accounts take what they can do without while there is enough: their reserves are there for
// the rest, whatever others have taken since.
func TestSpare(t *testing.T) {
	const n = 64 << 10
	for _, limit := range []int64{1 << 20, 64 << 20} {
		p := New(limit, 4)
		a := p.Open("a")
		s := a.Spare(n)
		if (s == a) != (p.reserve >= n+MinReserve) {
			t.Errorf("reserves of %d bytes: an account of its own is %v", p.reserve, s != a)
		}
		if !s.Admit(n) {
			t.Error("nothing to spare")
		}
		b := p.Open("b")
		b.Charge(limit)
		if !a.Admit(MinReserve) || a.Admit(maxReserve) || s != a && s.Admit(1) {
			t.Error("an account does not have its reserve, all of it and no more")
		}
		b.Release(limit)
		s.Release(n)
		a.Release(MinReserve)
		for _, a := range []*Account{a, s, b} {
			a.Close()
		}
		if p.Used() != 0 || p.Len() != 0 || len(p.initiators) != 0 {
			t.Error("something is left of closed accounts")
		}
	}
	if (*Account)(nil).Spare(n) != nil {
		t.Error("no account has a spare one")
	}
}
