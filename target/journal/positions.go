// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Position is how many bytes a process, and those before it, have read from a socket and written to it.
type Position struct{ Read, Written uint64 }

const (
	tcpEstablished = 1
	positionTries  = 10000
)

// Positions asks the kernel for the position of a TCP socket. It is right only for who does not read from it and
// write to it at the time. The answer is of two questions, between which the peer may send or acknowledge, so they are
// asked until nothing has changed meanwhile. A FIN counts as a byte in some of the kernel's counters and not in
// others: a connection that is not established any more, in both directions, is an error.
func Positions(fd int) (p Position, err error) {
	var before, after tcpCounters
	for range positionTries {
		if err := before.ask(fd); err != nil {
			return p, err
		}
		in, errIn := unix.IoctlGetInt(fd, unix.SIOCINQ)
		out, errOut := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err := errors.Join(errIn, errOut, after.ask(fd)); err != nil {
			return p, fmt.Errorf("journal: the kernel does not tell what it has of a socket: %w", err)
		}
		if after.state != tcpEstablished {
			return p, fmt.Errorf("journal: a connection that ends, in TCP state %d, can't go on", after.state)
		}
		if before == after {
			return Position{after.received - uint64(in), after.acked + uint64(out)}, nil
		}
	}
	return p, fmt.Errorf("journal: the counters of a socket have changed %d times while they were asked for", positionTries)
}

// tcpCounters is what is needed of TCP_INFO.
type tcpCounters struct {
	state           uint8
	acked, received uint64 // bytes
}

func (c *tcpCounters) ask(fd int) error {
	var info unix.TCPInfo
	n := uint32(unsafe.Sizeof(info))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return fmt.Errorf("journal: TCP_INFO: %w", e)
	}
	if n < uint32(unsafe.Offsetof(info.Bytes_received)+8) {
		return errors.New("journal: this kernel's TCP_INFO has no counters of bytes: Linux 4.1 or later is needed")
	}
	*c = tcpCounters{info.State, info.Bytes_acked, info.Bytes_received}
	return nil
}

// Cookie returns what tells a socket from all others of this boot (SO_COOKIE).
func Cookie(fd int) (uint64, error) {
	v, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("journal: SO_COOKIE: %w", err)
	}
	return v, nil
}
