// SPDX-License-Identifier: Apache-2.0

package descriptor

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// The number of a socket that others hold is found out without a change for them.
func TestNumberLeavesTheSocketNonBlocking(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File() // a descriptor of the same description
	if err != nil {
		t.Fatal(err)
	}
	n := Number(f)
	if flags, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v: the listener has become blocking", flags, err)
	}
	if n != Number(f) {
		t.Errorf("descriptor %d, then %d", n, Number(f))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n := Number(f); n != -1 {
		t.Errorf("a closed file has descriptor %d", n)
	}
}
