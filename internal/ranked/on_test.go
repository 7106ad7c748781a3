// SPDX-License-Identifier: Apache-2.0

//go:build ranked

package ranked

import "testing"

// refused reports whether f panics.
func refused(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func TestOrder(t *testing.T) {
	var low, high, other, none Mutex
	low.SetRank(1)
	high.SetRank(2)
	other.SetRank(2)
	low.Lock()
	high.Lock()
	none.Lock() // has no place in the order
	if !refused(other.Lock) {
		t.Error("two of one rank are held")
	}
	none.Unlock()
	low.Unlock()
	if !refused(low.Lock) {
		t.Error("one of a lower rank is locked")
	}
	done := make(chan bool)
	go func() { done <- refused(low.Lock) || refused(low.Unlock) }()
	if <-done {
		t.Error("what one goroutine holds concerns another")
	}
	if !refused(low.Unlock) {
		t.Error("a mutex that another goroutine had is unlocked")
	}
	high.Unlock()
	if len(held.what) > 0 {
		t.Errorf("%v are still held", held.what)
	}
}
