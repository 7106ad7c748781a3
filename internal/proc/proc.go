// SPDX-License-Identifier: Apache-2.0

// Package proc tells of other processes what Linux tells of them in /proc, for messages that
// name who is in the way.
package proc

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
)

const maxCommand = 64 // bytes, as many as the kernel's own threads have at the most

// Name is a process for people, such as "tgtd (PID 812)", or "PID 812" if its command can't be read.
func Name(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("PID %d", pid)
	}
	// A program names itself as it likes.
	return fmt.Sprintf("%s (PID %d)", iscsiname.Printable(strings.TrimSuffix(string(text), "\n"), maxCommand), pid)
}

// ExplainListen adds to an error of net.Listen for a TCP address that is in use who listens there.
func ExplainListen(network, address string, err error) error {
	if !errors.Is(err, unix.EADDRINUSE) || !strings.HasPrefix(network, "tcp") {
		return err
	}
	who := "a process that this one can't see"
	if pid := listener(address); pid > 0 {
		who = Name(pid)
	}
	return fmt.Errorf("%w: %s listens there; end that, or choose another address", err, who)
}

// listener is the process that listens at a TCP address, 0 if it can't be told.
func listener(address string) int {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	addr, _ := netip.ParseAddr(host) // a name may be any address
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		inodes := listening(f, netip.AddrPortFrom(addr, uint16(number)))
		f.Close()
		for _, inode := range inodes {
			if pid := owner("socket:[" + inode + "]"); pid > 0 {
				return pid
			}
		}
	}
	return 0
}

// stateListen is TCP_LISTEN as the tables have it.
const stateListen = "0A"

// listening are the inodes of the sockets in a table of proc_net(5) that keep others from
// listening at an address; an invalid one is any of its port.
func listening(table io.Reader, at netip.AddrPort) (inodes []string) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		// sl: local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		have, ok := parseAddress(f[1])
		any := !at.Addr().IsValid() || at.Addr().IsUnspecified() || have.Addr().IsUnspecified()
		if ok && have.Port() == at.Port() && (any || have.Addr() == at.Addr().Unmap().WithZone("")) {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}

// parseAddress parses an address of a table: words of 32 bits in the byte order of the machine, in
// hexadecimal, and the port.
func parseAddress(s string) (netip.AddrPort, bool) {
	words, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(words)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), ok
}

// owner is a process that has a descriptor of what a link of /proc/PID/fd calls so, 0 if none
// can be seen.
func owner(link string) int {
	if list := owners(link); len(list) > 0 {
		return list[0]
	}
	return 0
}

// owners are all processes that owner may return.
func owners(link string) (pids []int) {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != link {
			continue
		}
		if pid, _ := strconv.Atoi(strings.Split(fd, "/")[2]); !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
