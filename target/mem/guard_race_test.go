// SPDX-License-Identifier: Apache-2.0

//go:build race

package mem

import (
	"strings"
	"testing"
)

// Who writes into a buffer after its release is found when the block is lent again, wherever it lies.
func TestWrittenAfterRelease(t *testing.T) {
	a, err := NewArena(ArenaOptions{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]*Pool{"heap": new(Pool), "arena": a.Pool()} {
		found := false
		// A pool of the heap may drop what it is given, with the race detector.
		for i := 0; i < 100 && !found; i++ {
			b := p.Get(1)
			data := b.B
			b.Release()
			data[0] = 1
			func() {
				defer func() {
					r, _ := recover().(string)
					found = strings.Contains(r, "written after its release")
				}()
				p.Get(1)
			}()
		}
		if !found {
			t.Errorf("%s: nothing shows that a buffer is written after its release", name)
		}
	}
	abandon(t, a) // the block that was written is lost
}
