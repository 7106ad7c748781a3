// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Name(os.Getpid()), fmt.Sprintf("%s (PID %d)", strings.TrimSpace(string(comm)), os.Getpid()); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Name(1 << 30); got != "PID 1073741824" {
		t.Errorf("of no process: %q", got)
	}
}

// Who listens is named, whatever form of the address is asked for.
func TestExplainListen(t *testing.T) {
	for _, has := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		l, err := net.Listen("tcp", has)
		if err != nil {
			t.Fatal(err)
		}
		host, _, _ := net.SplitHostPort(has)
		address := net.JoinHostPort(host, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		again, err := net.Listen("tcp", address)
		if err == nil {
			again.Close()
			t.Fatalf("two listeners at %s", address)
		}
		if got := ExplainListen("tcp", address, err).Error(); !strings.Contains(got, Name(os.Getpid())+" listens there") {
			t.Errorf("%s: %s", address, got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := ExplainListen("tcp", "x", os.ErrPermission); err != os.ErrPermission {
		t.Errorf("another error: %v", err)
	}
}

func TestListening(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0CBC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:0CBC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
   2: 00000000:0CBD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0
   3: 00000000000000000000000001000000:0CBE 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1 0 100 0 0 10 0
`
	for at, want := range map[string][]string{
		"127.0.0.1:3260": {"11"}, "192.0.2.1:3260": nil, "0.0.0.0:3260": {"11"}, "127.0.0.1:3261": {"13"}, "[::1]:3262": {"14"}, "[::2]:3262": nil,
	} {
		if got := listening(strings.NewReader(table), netip.MustParseAddrPort(at)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}
