// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"path/filepath"
	"testing"

	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

type namedStore struct {
	name string
	storage.Store
}

// hotStores returns one store of each kind, with 1 MiB written.
func hotStores(tb testing.TB) []namedStore {
	tb.Helper()
	dir := tb.TempDir()
	stores := []namedStore{{"ram", storagetest.NewRAM(1 << 20)}}
	for name, direct := range map[string]bool{"file": false, "direct": true} {
		s, err := storage.OpenFile(storage.Options{
			Path: filepath.Join(dir, name), Size: 1 << 20, Create: true, Direct: direct,
		})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { s.Close() })
		stores = append(stores, namedStore{name, s})
	}
	for _, s := range stores {
		if _, err := s.WriteAt(tb.Context(), make([]byte, 1<<20), 0); err != nil {
			tb.Fatal(err)
		}
	}
	return stores
}

// hotCalls returns the calls of which steady-state I/O is made.
func hotCalls(tb testing.TB, s storage.Store, p []byte) map[string]func() {
	must := func(n int, err error) {
		if err != nil && err != storage.ErrWouldBlock {
			tb.Fatal(n, err)
		}
	}
	return map[string]func(){
		"ReadAt":         func() { must(s.ReadAt(tb.Context(), p, 4096)) },
		"TryReadAt":      func() { must(s.(storage.TryReader).TryReadAt(p, 4096)) },
		"WriteAt":        func() { must(s.WriteAt(tb.Context(), p, 4096)) },
		"WriteDurableAt": func() { must(s.(storage.DurableWriter).WriteDurableAt(tb.Context(), p, 4096)) },
	}
}

func TestNoAllocations(t *testing.T) {
	var pool mem.Pool
	buf := pool.Get(4096)
	defer buf.Release()
	for _, s := range hotStores(t) {
		for name, call := range hotCalls(t, s.Store, buf.B) {
			if n := testing.AllocsPerRun(20, call); n != 0 {
				t.Errorf("%s of %s allocates %v times", name, s.name, n)
			}
		}
	}
}

func BenchmarkIO(b *testing.B) {
	var pool mem.Pool
	buf := pool.Get(4096)
	defer buf.Release()
	for _, s := range hotStores(b) {
		for name, call := range hotCalls(b, s.Store, buf.B) {
			b.Run(s.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(buf.B)))
				for b.Loop() {
					call()
				}
			})
		}
	}
}
