// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
	_ = unix.Madvise(whole, unix.MADV_DONTNEED) // where it fails, it is only kept
}
