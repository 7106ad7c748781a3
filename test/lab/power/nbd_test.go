// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// TestQEMUWrites: what QEMU has flushed outlasts the power cut that ends it, and what it has not
// flushed does not.
func TestQEMUWrites(t *testing.T) {
	peer.Need(t, "qemu-io")
	d, err := newDisk(4<<20, testBlock)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	socket := filepath.Join(t.TempDir(), "disk")
	s, err := serve(d, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-io", "-f", "raw", "-t", "writeback", "nbd+unix:///?socket="+socket,
		"-c", "write -P 7 0 64k", "-c", "write -z 128k 64k", "-c", "flush", "-c", "read -P 7 0 64k", "-c", "write -P 8 64k 64k",
		"-c", "write -P 9 0 4k", "-c", "abort").CombinedOutput()
	if err == nil || ctx.Err() != nil || bytes.Contains(out, []byte("fail")) || bytes.Contains(out, []byte("error")) {
		t.Fatalf("%v\n%s", err, out)
	}
	s.drain()
	want := func(when string, value byte, off int64) {
		t.Helper()
		p := make([]byte, 4096)
		if err := d.read(p, off); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{value}, len(p))) {
			t.Errorf("%s: %d at %d, %v, want %d", when, p[0], off, err, value)
		}
	}
	want("before the cut", 9, 0)
	want("before the cut", 8, 64<<10)
	if lost := d.cut(rand.New(rand.NewPCG(1, 2)), 0); lost != 68<<10/testBlock {
		t.Errorf("%d sectors lost, want %d", lost, 68<<10/testBlock)
	}
	want("after the cut", 7, 0)
	want("after the cut", 0, 64<<10)
}
