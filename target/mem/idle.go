// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Blocks that are idle keep their pages for a while, since what was needed a moment ago will be
// needed again, and pages are made anew at some cost. They are given back in two ways. By
// and by: what has not been lent for between one and two idlePeriods. At once: what would be too much
// together with what is on loan, and with what initiators have elsewhere.

const (
	balancePeriod = 250 * time.Millisecond
	idlePeriod    = 2 * time.Second
	news          = 8 << 20 // bytes that Resident is told of; more in a large Arena
	punched       = 1 << 20 // bytes that are given back at a time, so that nobody waits for long
)

// own is the Arena's goroutine. It sleeps while there are no pages.
func (a *Arena) own() {
	defer close(a.done)
	tick := time.NewTicker(balancePeriod)
	defer tick.Stop()
	aged := time.Now()
	for {
		due := tick.C
		if a.resident.Load() == 0 {
			due = nil
		}
		select {
		case <-a.stop:
			return
		case <-a.grown:
		case now := <-due:
			if now.Sub(aged) >= idlePeriod {
				a.age()
				aged = now
			}
		}
		a.balance()
	}
}

// grow counts bytes that are lent and had no pages, and has others give up theirs if that is too much.
func (a *Arena) grow(n int64) {
	r := a.resident.Add(n)
	if over := r - a.keep.Load(); over > 0 {
		a.reclaim(over)
	}
	if r == n || a.isNews(r) {
		select {
		case a.grown <- struct{}{}:
		default:
		}
	}
}

// balance finds out how much may be kept.
func (a *Arena) balance() {
	r := a.resident.Load()
	if a.o.Used != nil {
		lent := r - a.idle()
		elsewhere := max(a.o.Used()-lent, 0)
		keep := max(a.part-elsewhere, 0)
		a.keep.Store(keep)
		if r > keep {
			a.reclaim(r - keep)
		}
	}
	if a.o.Resident == nil {
		return
	}
	if r = a.resident.Load(); a.isNews(r) {
		a.told.Store(r)
		a.o.Resident(r)
	}
}

// isNews reports whether Resident is to be told that so many bytes have memory.
func (a *Arena) isNews(r int64) bool {
	d := r - a.told.Load()
	return max(d, -d) >= max(news, a.part/64)
}

// idle is how many bytes are not on loan and have pages.
func (a *Arena) idle() (n int64) {
	for i := range a.kinds {
		k := &a.kinds[i]
		blocks := k.warm.len(k)
		for j := range k.hot {
			blocks += k.hot[j].len(k)
		}
		n += blocks * k.size
	}
	return n
}

// age gives back what was warm, and what is hot is warm from now on.
func (a *Arena) age() {
	for i := range a.kinds {
		k := &a.kinds[i]
		a.punchSome(k, &k.warm, k.warm.len(k)*k.size)
		for j := range k.hot {
			a.cool(k, &k.hot[j])
		}
	}
}

// cool makes warm what is hot.
func (a *Arena) cool(k *kind, hot *stack) {
	for n := hot.len(k); n > 0; n-- {
		a.moving.Lock()
		if b := hot.pop(k); b != nil {
			k.warm.push(k, b)
		}
		a.moving.Unlock()
	}
}

// Trim gives back all that is idle, at once.
func (a *Arena) Trim() {
	if a != nil {
		a.reclaim(1 << 62)
	}
}

// reclaim gives back so many idle bytes, or all: what has been idle for long first, and large blocks first.
func (a *Arena) reclaim(n int64) {
	for i := classes - 1; i >= 0; i-- {
		k := &a.kinds[i]
		n -= a.punchSome(k, &k.warm, n)
	}
	for i := classes - 1; i >= 0; i-- {
		k := &a.kinds[i]
		for j := range k.hot {
			n -= a.punchSome(k, &k.hot[j], n)
		}
	}
}

// punchSome gives back the pages of n bytes on a stack, if there are so many, and returns of how many.
func (a *Arena) punchSome(k *kind, s *stack, n int64) (freed int64) {
	if k.size < a.page {
		return 0 // a page has blocks that may be on loan
	}
	for freed < n && s.len(k) > 0 {
		m := a.punch(k, s, n-freed)
		if m == 0 {
			break
		}
		freed += m
	}
	return freed
}

// punch gives back the pages of n bytes, or of some, or of none. Others who do so wait meanwhile: they
// would not find the blocks that are neither on a stack nor on loan.
func (a *Arena) punch(k *kind, s *stack, n int64) int64 {
	a.moving.Lock()
	defer a.moving.Unlock()
	var list [64]*Buffer // on the goroutine's stack: this may be within a command
	blocks := list[:0]
	for at := int64(0); at < min(n, punched) && len(blocks) < len(list); at += k.size {
		b := s.pop(k)
		if b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	slices.SortFunc(blocks, func(a, b *Buffer) int { return cmp.Compare(a.index, b.index) })
	var freed int64
	for len(blocks) > 0 {
		run := 1
		for run < len(blocks) && blocks[run].index == blocks[0].index+uint32(run) {
			run++
		}
		freed += a.punchRun(k, blocks[:run])
		blocks = blocks[run:]
	}
	return freed
}

// punchRun gives back the pages of blocks that lie side by side.
func (a *Arena) punchRun(k *kind, run []*Buffer) int64 {
	n, to := int64(len(run))*k.size, &k.cold
	if err := a.hole(k.offset(run[0].index), n); err != nil {
		n, to = 0, &k.warm // they are kept for now
	}
	a.resident.Add(-n)
	for _, b := range run {
		b.guard.forgotten()
		to.push(k, b)
	}
	return n
}

// hole gives the pages of a range back, which reads as zeros afterwards.
func (a *Arena) hole(off, n int64) error {
	return unix.Fallocate(a.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}
