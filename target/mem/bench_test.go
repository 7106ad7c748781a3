// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/account"
)

// pools are those that the benchmarks compare.
func pools(b *testing.B) map[string]*Pool {
	a, err := NewArena(ArenaOptions{Size: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := a.Close(); err != nil {
			b.Error(err)
		}
	})
	return map[string]*Pool{"heap": new(Pool), "arena": a.Pool()}
}

// BenchmarkGet lends a buffer and takes it back: one at a time, many at once as a deep queue
// does, and on several goroutines.
func BenchmarkGet(b *testing.B) {
	for name, p := range pools(b) {
		for _, who := range []string{"", "-account"} {
			if who != "" {
				p = p.For(account.New(1<<30, 16).Open("a"))
			}
			b.Run(name+who+"/alone", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.Get(4096).Release()
				}
			})
			b.Run(name+who+"/deep", func(b *testing.B) {
				b.ReportAllocs()
				var held [32]*Buffer
				for b.Loop() {
					for i := range held {
						held[i] = p.Get(4096)
					}
					for _, h := range held {
						h.Release()
					}
				}
			})
			b.Run(name+who+"/parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						p.Get(4096).Release()
					}
				})
			})
		}
	}
}
