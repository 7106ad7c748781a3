// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// NotSocket is set in the ids of what is no socket and so has no cookie.
const NotSocket = 1 << 63

const (
	version = 1

	opHello = 1
	opPut   = 2
	opDrop  = 3
	opList  = 4

	ansWelcome = 1
	ansRefused = 2
	ansPage    = 3

	requestHeader = 24
	answerHeader  = 16
	maxName       = 255
	maxReason     = 255

	// pageFiles is how many descriptors come with a PAGE; the kernel passes 253 (SCM_MAX_FD).
	pageFiles = 250
	// maxAnswer is the length of the longest answer.
	maxAnswer = answerHeader + pageFiles*(8+1+maxName)
)

// A request is a message to the vault.
type request struct {
	op     byte
	tag    uint32
	client uint64
	id     uint64
	name   string
}

func (r *request) append(b []byte) []byte {
	b = append(b, r.op, version, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, r.tag)
	b = binary.LittleEndian.AppendUint64(b, r.client)
	b = binary.LittleEndian.AppendUint64(b, r.id)
	return append(b, r.name...)
}

// parse reads a request, and says what is wrong with it.
func (r *request) parse(b []byte) error {
	if len(b) < requestHeader {
		return fmt.Errorf("a request of %d bytes is shorter than %d", len(b), requestHeader)
	}
	r.op, r.tag = b[0], binary.LittleEndian.Uint32(b[4:])
	r.client, r.id = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	r.name = string(b[requestHeader:])
	if b[1] != version {
		return fmt.Errorf("the request has version %d, and this supervisor knows version %d", b[1], version)
	}
	switch r.op {
	case opHello, opDrop:
		if r.name != "" {
			return fmt.Errorf("a request of kind %d has no name", r.op)
		}
	case opPut:
		return notify.CheckName(r.name)
	case opList:
		if r.name != "" {
			return notify.CheckName(r.name)
		}
	default:
		return fmt.Errorf("there is no request of kind %d", r.op)
	}
	return nil
}

// An answer is a message to a client, apart from the descriptors.
type answer struct {
	kind    byte
	version byte
	more    bool
	tag     uint32
	value   uint64
	rest    []byte
}

func (a *answer) append(b []byte) []byte {
	more := uint16(0)
	if a.more {
		more = 1
	}
	b = append(b, a.kind, version)
	b = binary.LittleEndian.AppendUint16(b, more)
	b = binary.LittleEndian.AppendUint32(b, a.tag)
	b = binary.LittleEndian.AppendUint64(b, a.value)
	return append(b, a.rest...)
}

func (a *answer) parse(b []byte) error {
	if len(b) < answerHeader {
		return fmt.Errorf("an answer of %d bytes is shorter than %d", len(b), answerHeader)
	}
	a.kind, a.version, a.more = b[0], b[1], binary.LittleEndian.Uint16(b[2:]) != 0
	a.tag, a.value, a.rest = binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:]), b[answerHeader:]
	return nil
}

// appendEntry is one descriptor's part of a PAGE.
func appendEntry(b []byte, id uint64, name string) []byte {
	b = binary.LittleEndian.AppendUint64(b, id)
	b = append(b, byte(len(name)))
	return append(b, name...)
}

var errShortPage = errors.New("a page of the vault ends in the middle of an entry")

// parseEntry reads one, and returns what follows it.
func parseEntry(b []byte) (id uint64, name string, rest []byte, err error) {
	if len(b) < 9 || len(b) < 9+int(b[8]) {
		return 0, "", nil, errShortPage
	}
	end := 9 + int(b[8])
	return binary.LittleEndian.Uint64(b), string(b[9:end]), b[end:], nil
}

// receive is recvmsg(2) without a wait. It returns the message, its descriptors, and whether
// some of these have been lost because the process can have no more.
func receive(fd int, buf, oob []byte) (message []byte, fds []int, cut bool, err error) {
	var n, oobn, flags int
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, nil, false, err
	}
	controls, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, nil, false, err
	}
	for i := range controls {
		if got, err := unix.ParseUnixRights(&controls[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return buf[:n], fds, flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// cookieOf returns the kernel's number of a socket, which no other socket has had or will have.
func cookieOf(fd int) (uint64, error) {
	return unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
}
