// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// An initiator is near if a round trip has taken no longer than this.
	nearTrip = 500 * time.Microsecond
	// The send buffer for it, in bytes; the kernel doubles that for its own structures. In
	// half a millisecond that carries more than 8 Gbit/s, and it stays in a processor's cache.
	nearBuffer = 512 << 10
)

// BoundSendBuffer keeps the send buffer small if the initiator is near, by
// the shortest round trip so far. Left alone the kernel lets it grow to megabytes, and
// a copy that has left the caches by the time that it is sent costs more. For
// an initiator that is far it needs those megabytes.
func (s *Socket) BoundSendBuffer() error {
	info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || time.Duration(info.Min_rtt)*time.Microsecond > nearTrip {
		return err
	}
	return unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, nearBuffer)
}
