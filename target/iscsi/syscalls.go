// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"crypto/rand"
	"io"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target/iscsi/socket"
)

// system is what a Node has from the operating system, and tests replace.
type system struct {
	random io.Reader // of CHAP challenges
	writev func(s *socket.Socket, iov []unix.Iovec) (int, error)
	bound  func(s *socket.Socket) error // the send buffer
}

var realSystem = system{random: rand.Reader, writev: (*socket.Socket).Writev, bound: (*socket.Socket).BoundSendBuffer}
