// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/memfile"
	"github.com/gotgtd/gotgtd/target/account"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newArena(t testing.TB, o ArenaOptions) *Arena {
	t.Helper()
	a, err := NewArena(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// abandon ends an Arena that has buffers on loan, as the death of its process does.
func abandon(t *testing.T, a *Arena) {
	t.Helper()
	if err := a.Close(); !errors.Is(err, ErrOnLoan) {
		t.Errorf("closed with blocks on loan: %v", err)
	}
	t.Cleanup(func() {
		arenas.remove(a)
		if err := errors.Join(unix.Munmap(a.m), a.file.Close()); err != nil {
			t.Error(err)
		}
	})
}

// pages is how many bytes of memory the Arena's file has.
func pages(t testing.TB, a *Arena) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(a.file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// loans has the ranges of the arena that are on loan, as a model of it.
type loans struct {
	t  *testing.T
	mu sync.Mutex // protects what follows
	at map[int64]int64
}

// lend notes a block, which must overlap with none.
func (l *loans) lend(b *Buffer) {
	off, ok := b.Offset()
	if !ok {
		return // of the heap
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for at, n := range l.at {
		if off < at+n && at < off+b.size() {
			l.t.Errorf("block %d+%d is lent while %d+%d is", off, b.size(), at, n)
		}
	}
	l.at[off] = b.size()
}

func (l *loans) release(b *Buffer) {
	if off, ok := b.Offset(); ok {
		l.mu.Lock()
		delete(l.at, off)
		l.mu.Unlock()
	}
	b.Release()
}

// mark writes into both ends of a buffer what only its holder knows.
func mark(b *Buffer, n uint64) {
	p := b.B
	binary.LittleEndian.PutUint64(p, n)
	binary.LittleEndian.PutUint64(p[len(p)-8:], n)
}

func marked(b *Buffer, n uint64) bool {
	p := b.B
	return binary.LittleEndian.Uint64(p) == n && binary.LittleEndian.Uint64(p[len(p)-8:]) == n
}

// churn lends and releases at random, and has something on loan in the end.
func churn(t *testing.T, p *Pool, l *loans, seed uint64, rounds int) (held []*Buffer) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range rounds {
		if len(held) > 0 && (len(held) == 40 || rnd.IntN(2) == 0) {
			j := rnd.IntN(len(held))
			if !marked(held[j], seed) {
				t.Errorf("a buffer of %d bytes does not hold what its holder wrote", len(held[j].B))
			}
			l.release(held[j])
			held = slices.Delete(held, j, j+1)
			continue
		}
		n := 16 + rnd.IntN(MinSize<<rnd.IntN(8)-16)
		if i%100 == 0 {
			n = 16 + rnd.IntN(MaxSize-16)
		}
		b := p.Get(n)
		if len(b.B) != n || cap(b.B) != int(b.size()) {
			t.Errorf("a buffer of %d bytes has %d, of a block of %d", n, len(b.B), cap(b.B))
		}
		l.lend(b)
		mark(b, seed)
		held = append(held, b)
	}
	return held
}

// Several goroutines lend and release at random while idle blocks lose their pages; then
// another Arena claims what is on loan, and they go on with that. At no time do two blocks
// overlap, nobody sees what another one writes, nothing is lost, and all memory is given back.
func TestArenaModel(t *testing.T) {
	const workers, rounds = 4, 2000
	first, err := NewArena(ArenaOptions{Size: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l := &loans{t: t, at: make(map[int64]int64)}
	held := make([][]*Buffer, workers)
	run := func(a *Arena, f func(i int)) {
		var group sync.WaitGroup
		for i := range workers {
			group.Go(func() { f(i) })
		}
		ended := make(chan struct{})
		go func() { group.Wait(); close(ended) }()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			default:
			}
			switch i % 3 {
			case 0:
				a.age()
			case 1:
				a.reclaim(4 << 20)
			default:
				a.Trim()
			}
			a.balance()
		}
	}
	run(first, func(i int) { held[i] = churn(t, first.Pool(), l, uint64(i), rounds) })

	abandon(t, first)
	second, err := AdoptArena(again(t, first), ArenaOptions{Size: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	claimed := make([][]*Buffer, workers)
	run(second, func(i int) {
		for _, b := range held[i] {
			off, ok := b.Offset()
			if !ok {
				continue
			}
			c, err := second.Claim(off, len(b.B), nil)
			if err != nil {
				t.Errorf("a block on loan can't be claimed: %v", err)
				continue
			}
			if at, _ := c.Offset(); at != off || !marked(c, uint64(i)) {
				t.Errorf("the block at %d is at %d, or has other data", off, at)
			}
			claimed[i] = append(claimed[i], c)
		}
	})
	if err := second.Settle(); err != nil {
		t.Fatal(err)
	}
	run(second, func(i int) {
		for _, b := range churn(t, second.Pool(), l, uint64(i+workers), rounds) {
			l.release(b)
		}
		for _, c := range claimed[i] {
			if !marked(c, uint64(i)) {
				t.Errorf("a claimed buffer of %d bytes does not hold what was written before", len(c.B))
			}
			l.release(c)
		}
	})
	second.Trim()
	if n, u := second.resident.Load(), second.Pool().Used(); n != 0 || u != 0 || len(l.at) != 0 || pages(t, second) != 0 {
		t.Errorf("in the end %d bytes are resident, %d lent, %d blocks are on loan and the file has %d bytes", n, u, len(l.at), pages(t, second))
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

// again opens the Arena's file once more, as another process has it.
func again(t testing.TB, a *Arena) *os.File {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", a.file.Fd()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Who has looked at the topmost block of a stack, and would take the one below for the next, notices if
// the topmost one was taken and put back meanwhile, without the other.
func TestStackNoticesChanges(t *testing.T) {
	a := newArena(t, ArenaOptions{Size: 1 << 20})
	k, s := &a.kinds[0], new(stack)
	for range 3 {
		s.pushDeep(k, a.takeCold(k))
	}
	seen := s.head.Load()
	top, below := s.popDeep(k), s.popDeep(k)
	s.pushDeep(k, top)
	if s.head.Load() == seen {
		t.Error("the stack looks as before, and is not")
	}
	if n := s.len(k); n != 2 {
		t.Errorf("of two blocks there are %d", n)
	}
	s.pushDeep(k, below)
	for b := s.pop(k); b != nil; b = s.pop(k) {
		a.put(b)
	}
}

// What can't be a block on loan is refused, and says why.
func TestClaim(t *testing.T) {
	first := newArena(t, ArenaOptions{Size: 32 << 20})
	b := first.Pool().Get(10000)
	off, _ := b.Offset()
	mark(b, 7)
	if _, err := first.Claim(off, 10000, nil); err == nil {
		t.Error("a block of an arena that was not adopted is claimed")
	}
	second, err := AdoptArena(again(t, first), ArenaOptions{})
	if err != nil {
		t.Fatal(err)
	}
	payer := account.New(1<<30, 1).Open("a")
	c, err := second.Claim(off, 10000, payer)
	if err != nil || !marked(c, 7) || payer.Used() != 16<<10 {
		t.Fatalf("claimed: %v; %d bytes are charged", err, payer.Used())
	}
	size := int64(len(second.m))
	for name, bad := range map[string]struct {
		off int64
		n   int
	}{
		"twice":      {off, 10000},
		"misaligned": {off + 4096, 10000},
		"too long":   {off + 16384, 16385},
		"negative":   {off + 16384, -1},
		"before":     {-16384, 1},
		"behind":     {size, 1},
		"far behind": {1 << 62, 1},
	} {
		if b, err := second.Claim(bad.off, bad.n, payer); err == nil {
			t.Errorf("%s: %d bytes at %d are claimed", name, len(b.B), bad.off)
		}
	}
	if h := second.Pool().Get(1); h.mapped {
		t.Error("a block is lent before all are claimed")
	} else {
		h.Release()
	}
	if err := second.Settle(); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Claim(off+16384, 1, payer); err == nil {
		t.Error("a block is claimed after all are")
	}
	abandon(t, second)
	c.Release()
	if payer.Used() != 0 {
		t.Errorf("%d bytes are charged in the end", payer.Used())
	}
	b.Release()
}

// A file that could fail under the mapping is refused, and says what is wrong.
func TestAdoptRefuses(t *testing.T) {
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	fd, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "unsealed")
	defer memory.Close()
	for _, f := range []*os.File{plain, memory} {
		for _, size := range []int64{0, 4096, classes * MaxSize} {
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			if _, err := AdoptArena(f, ArenaOptions{}); err == nil {
				t.Errorf("an unsealed file of %d bytes is adopted: %s", size, f.Name())
			}
		}
	}
}

// What the system has no room for is refused, and the reason names what is short. Otherwise the kernel
// would end the process.
func TestArenaRefused(t *testing.T) {
	if _, err := NewArena(ArenaOptions{Size: 1 << 62}); err == nil {
		t.Error("an arena of 4 EiB is made")
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 30, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}()
	if _, err := NewArena(ArenaOptions{Size: 1 << 30}); err == nil || !strings.Contains(err.Error(), "RLIMIT_FSIZE") {
		t.Errorf("beyond the limit of the size of files: %v", err)
	}
}

// FuzzClaim claims whatever an input says. No claim panics, overlaps with another, or reaches outside.
func FuzzClaim(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0})
	f.Add(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(nil, 5*32<<20), 128<<10))
	f.Fuzz(func(t *testing.T, in []byte) {
		file, err := memfile.New("test", classes*2*MaxSize)
		if err != nil {
			t.Fatal(err)
		}
		a, err := AdoptArena(file, ArenaOptions{})
		if err != nil {
			t.Fatal(err)
		}
		l := &loans{t: t, at: make(map[int64]int64)}
		var held []*Buffer
		for ; len(in) >= 12; in = in[12:] {
			off, n := int64(binary.LittleEndian.Uint64(in)), int(int32(binary.LittleEndian.Uint32(in[8:])))
			b, err := a.Claim(off, n, nil)
			if err != nil {
				continue
			}
			if at, _ := b.Offset(); at != off || len(b.B) != n || off+b.size() > int64(len(a.m)) {
				t.Fatalf("%d bytes at %d are claimed, the block is %d bytes at %d", n, off, b.size(), at)
			}
			l.lend(b)
			if n > 0 {
				b.B[0], b.B[n-1] = 1, 2
			}
			held = append(held, b)
		}
		if err := a.Settle(); err != nil {
			t.Fatal(err)
		}
		for range 4 { // what is free does not overlap either
			b := a.Pool().Get(1)
			l.lend(b)
			held = append(held, b)
		}
		for _, b := range held {
			l.release(b)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Idle blocks lose their pages by and by, without anybody asking.
func TestIdleMemoryIsGivenBack(t *testing.T) {
	told := make(chan int64, 100)
	a := newArena(t, ArenaOptions{Size: 64 << 20, Resident: func(n int64) { told <- n }})
	b := a.Pool().Get(MaxSize)
	clear(b.B)
	if n := pages(t, a); n < MaxSize {
		t.Errorf("the file has %d bytes, of a buffer of %d", n, MaxSize)
	}
	b.Release()
	for n := range told {
		if n == 0 {
			break
		}
	}
	if n := pages(t, a); n != 0 {
		t.Errorf("the file has %d bytes when nothing was used for long", n)
	}
}

// What is idle makes room for what is lent, and for what initiators have elsewhere.
func TestIdleMemoryIsBounded(t *testing.T) {
	const size = 32 << 20
	var used int64
	var mu sync.Mutex // protects used
	a := newArena(t, ArenaOptions{Size: size, Used: func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return used
	}})
	for c := range classes {
		var held []*Buffer
		for lent := 0; lent < size; lent += MinSize << c {
			b := a.Pool().Get(MinSize << c)
			b.B[0] = 1
			held = append(held, b)
			if n := a.resident.Load(); n > size {
				t.Fatalf("%d bytes are resident while there are blocks of %d bytes", n, MinSize<<c)
			}
		}
		if b := a.Pool().Get(MinSize << c); b.mapped {
			t.Errorf("more blocks of %d bytes than a part of the arena has", MinSize<<c)
		} else {
			b.Release()
		}
		for _, b := range held {
			b.Release()
		}
	}
	mu.Lock()
	used = size - 8<<20
	mu.Unlock()
	for deadline := time.Now().Add(time.Minute); a.resident.Load() > 8<<20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are resident while all but %d are used elsewhere", a.resident.Load(), 8<<20)
		}
	}
}

// A block is page aligned, and is given back by Forget as well.
func TestForget(t *testing.T) {
	a := newArena(t, ArenaOptions{Size: 1 << 20})
	b := a.Pool().Get(1 << 20)
	defer b.Release()
	clear(b.B)
	Forget(b.B[1 : 1<<20-1])
	if n := pages(t, a); n != 2*4096 {
		t.Errorf("the file has %d bytes when all but the first and last page is forgotten", n)
	}
	b.B[5000] = 1
	heap := make([]byte, 1<<20)
	Forget(heap)
}

// A buffer that is released twice is a fault that shows.
func TestReleasedTwice(t *testing.T) {
	for name, p := range map[string]*Pool{"heap": new(Pool), "arena": newArena(t, ArenaOptions{Size: 1 << 20}).Pool()} {
		b := p.Get(1)
		b.Release()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: a buffer can be released twice", name)
				}
			}()
			b.Release()
		}()
	}
}

// To take a block that others have released costs no allocation, also if it takes one of
// another size whose memory has to be given back first.
func TestNothingIsAllocated(t *testing.T) {
	a := newArena(t, ArenaOptions{Size: MaxSize})
	p := a.Pool()
	large, small := func() { p.Get(MaxSize).Release() }, func() { p.Get(1).Release() }
	for range 3 {
		large()
		small()
	}
	if n := testing.AllocsPerRun(100, func() { large(); small() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
