// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime/debug"
	"testing"
)

// TestHeapLeavesRoomForBuffers: what buffers take, the heap may not have as well; and what it
// needs for itself it has in any case.
func TestHeapLeavesRoomForBuffers(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	const memory = 1 << 30
	t.Setenv("GOMEMLIMIT", "")
	resident := boundHeap(memory)
	for _, c := range []struct{ buffers, heap int64 }{
		{0, memory + heapBeside},
		{memory / 2, memory/2 + heapBeside},
		{memory + 1, heapBeside},
		{0, memory + heapBeside},
	} {
		resident(c.buffers)
		if n := debug.SetMemoryLimit(-1); n != c.heap {
			t.Errorf("the heap may have %d bytes while buffers take %d, want %d", n, c.buffers, c.heap)
		}
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	if boundHeap(memory) != nil {
		t.Error("GOMEMLIMIT does not go before")
	}
}
