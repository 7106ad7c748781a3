// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arenas are those that there are.
var arenas registry

// registry is a list that is read without a lock.
type registry struct {
	mu   sync.Mutex // protects changes
	list atomic.Pointer[[]*Arena]
}

func (r *registry) all() []*Arena {
	if p := r.list.Load(); p != nil {
		return *p
	}
	return nil
}

func (r *registry) add(a *Arena) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := append(slices.Clone(r.all()), a)
	r.list.Store(&l)
}

func (r *registry) remove(a *Arena) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := slices.DeleteFunc(slices.Clone(r.all()), func(b *Arena) bool { return a == b })
	r.list.Store(&l)
}

// Forget gives the memory that lies wholly in b back to the kernel at once. b holds arbitrary bytes
// afterwards, and may be used again.
func Forget(b []byte) {
	page := uintptr(os.Getpagesize())
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	skip := (page - start%page) % page
	if uintptr(len(b)) < skip+page {
		return
	}
	whole := b[skip:]
	whole = whole[:uintptr(len(whole))/page*page]
	advice := unix.MADV_DONTNEED
	for _, a := range arenas.all() {
		if from := uintptr(unsafe.Pointer(unsafe.SliceData(a.m))); start >= from && start-from < uintptr(len(a.m)) {
			advice = unix.MADV_REMOVE // without it the file would keep the pages
		}
	}
	_ = unix.Madvise(whole, advice) // where it fails, it is only kept
}
