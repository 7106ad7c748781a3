// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"sync"
	"sync/atomic"
	"testing"
)

// One goroutine takes numbers while others give them back: nobody has a number that another one has, each is within the
// bound, and in the end all are free.
func TestPlaces(t *testing.T) {
	const n, rounds = 130, 20000
	p := newPlaces(n)
	var holders [n + 1]atomic.Int32
	taken := make(chan int, n)
	var givers sync.WaitGroup
	for range 3 {
		givers.Go(func() {
			for i := range taken {
				holders[i].Add(-1)
				p.give(i)
			}
		})
	}
	for got := 0; got < rounds; {
		i, ok := p.take()
		if !ok {
			continue
		}
		if i < 1 || i > n || holders[i].Add(1) != 1 {
			t.Fatalf("number %d is taken twice, or is none", i)
		}
		taken <- i
		got++
	}
	close(taken)
	givers.Wait()
	for i := range n {
		if got, ok := p.take(); !ok || got != i+1 {
			t.Errorf("the lowest free number is %d, not %d", got, i+1)
		}
	}
	if i, ok := p.take(); ok {
		t.Errorf("%d is one too many", i)
	}
}
