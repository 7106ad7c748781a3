// SPDX-License-Identifier: Apache-2.0

package power

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// The network block device protocol: the fixed newstyle handshake and simple replies, which is
// what QEMU asks of a server. Numbers are big endian.
const (
	nbdMagic       = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOptionMagic = 0x49484156454f5054 // "IHAVEOPT"
	nbdOptionReply = 0x0003e889045565a9
	nbdRequest     = 0x25609513
	nbdReply       = 0x67446698

	nbdFixedNewstyle = 1 // handshake flags, of both sides
	nbdNoZeroes      = 2

	nbdOptAbort = 2
	nbdOptInfo  = 6
	nbdOptGo    = 7

	nbdRepAck         = 1
	nbdRepInfo        = 3
	nbdRepUnsupported = 1<<31 + 1

	nbdHasFlags    = 1 << 0 // transmission flags
	nbdSendFlush   = 1 << 2
	nbdSendTrim    = 1 << 5
	nbdWriteZeroes = 1 << 6

	nbdCmdRead        = 0
	nbdCmdWrite       = 1
	nbdCmdDisconnect  = 2
	nbdCmdFlush       = 3
	nbdCmdTrim        = 4
	nbdCmdWriteZeroes = 6

	// maxNBD is the longest request that is served, in bytes.
	maxNBD = 32 << 20
)

// A server serves a disk over a unix socket, to one client after the other.
type server struct {
	disk     *disk
	listener net.Listener
	done     chan struct{} // closed when nothing is served any more

	mu     sync.Mutex // protects what follows
	gone   *sync.Cond // signalled when a client has gone
	client net.Conn   // nil: none
	closed bool
}

// serve begins to serve a disk at the path of a unix socket.
func serve(d *disk, path string) (*server, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("can't serve a disk: %w", err)
	}
	s := &server{disk: d, listener: l, done: make(chan struct{})}
	s.gone = sync.NewCond(&s.mu)
	go s.accept()
	return s, nil
}

// close ends the serving and waits for that.
func (s *server) close() {
	s.listener.Close() // an error means that it is closed
	s.mu.Lock()
	s.closed = true
	if s.client != nil {
		s.client.Close()
	}
	s.mu.Unlock()
	<-s.done
}

// drain waits until the client, which has been killed, has nothing more to say: what it has sent
// before counts.
func (s *server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.client != nil {
		s.gone.Wait()
	}
}

func (s *server) accept() {
	defer close(s.done)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.client = conn
		if s.closed {
			conn.Close()
		}
		s.mu.Unlock()
		c := &nbdConn{disk: s.disk, w: conn, r: bufio.NewReaderSize(conn, 1<<20)}
		// A client that goes, in the middle of a request or not, is a power cut.
		if err := c.handshake(); err == nil {
			_ = c.transmit()
		}
		conn.Close()
		s.mu.Lock()
		s.client = nil
		s.gone.Broadcast()
		s.mu.Unlock()
	}
}

// nbdConn is a client's connection. Requests are served one after the other, so that a flush
// covers all that were answered before.
type nbdConn struct {
	disk *disk
	r    *bufio.Reader
	w    io.Writer
}

var errNBD = errors.New("not the client that is served")

func (c *nbdConn) read(fields ...any) error {
	for _, f := range fields {
		if err := binary.Read(c.r, binary.BigEndian, f); err != nil {
			return err
		}
	}
	return nil
}

// handshake talks until the client has chosen the disk.
func (c *nbdConn) handshake() error {
	hello := binary.BigEndian.AppendUint64(nil, nbdMagic)
	hello = binary.BigEndian.AppendUint64(hello, nbdOptionMagic)
	hello = binary.BigEndian.AppendUint16(hello, nbdFixedNewstyle|nbdNoZeroes)
	if _, err := c.w.Write(hello); err != nil {
		return err
	}
	var flags uint32
	if err := c.read(&flags); err != nil {
		return err
	}
	for {
		var magic uint64
		var option, length uint32
		if err := c.read(&magic, &option, &length); err != nil {
			return err
		}
		if magic != nbdOptionMagic || length > 1<<16 {
			return errNBD
		}
		if _, err := io.CopyN(io.Discard, c.r, int64(length)); err != nil {
			return err
		}
		if chosen, err := c.option(option); chosen || err != nil {
			return err
		}
	}
}

// option answers one of the client's options, and reports whether the handshake is over.
func (c *nbdConn) option(option uint32) (chosen bool, err error) {
	switch option {
	case nbdOptAbort:
		return false, errNBD
	case nbdOptInfo, nbdOptGo:
		info := binary.BigEndian.AppendUint16(nil, 0) // NBD_INFO_EXPORT
		info = binary.BigEndian.AppendUint64(info, uint64(c.disk.size()))
		info = binary.BigEndian.AppendUint16(info, nbdHasFlags|nbdSendFlush|nbdSendTrim|nbdWriteZeroes)
		return option == nbdOptGo, errors.Join(c.answer(option, nbdRepInfo, info), c.answer(option, nbdRepAck, nil))
	}
	return false, c.answer(option, nbdRepUnsupported, nil)
}

func (c *nbdConn) answer(option, reply uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, nbdOptionReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, reply)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := c.w.Write(append(b, data...))
	return err
}

// transmit serves requests until the client goes.
func (c *nbdConn) transmit() error {
	for {
		var magic, length uint32
		var flags, command uint16
		var handle, off uint64
		if err := c.read(&magic, &flags, &command, &handle, &off, &length); err != nil {
			return err
		}
		if magic != nbdRequest || command == nbdCmdDisconnect || (length > maxNBD && command <= nbdCmdWrite) {
			return errNBD
		}
		data, err := c.execute(command, int64(off), length)
		var errno unix.Errno
		if err != nil && !errors.As(err, &errno) {
			return err
		}
		reply := binary.BigEndian.AppendUint32(nil, nbdReply)
		reply = binary.BigEndian.AppendUint32(reply, uint32(errno))
		reply = binary.BigEndian.AppendUint64(reply, handle)
		if errno == 0 {
			reply = append(reply, data...)
		}
		if _, err := c.w.Write(reply); err != nil {
			return err
		}
	}
}

// execute serves a request and returns the data of the answer. An error that is no unix.Errno is
// the connection's.
func (c *nbdConn) execute(command uint16, off int64, length uint32) ([]byte, error) {
	switch command {
	case nbdCmdRead:
		data := make([]byte, length)
		return data, c.disk.read(data, off)
	case nbdCmdWrite:
		data := make([]byte, length)
		if _, err := io.ReadFull(c.r, data); err != nil {
			return nil, err
		}
		return nil, c.disk.write(data, off)
	case nbdCmdFlush:
		return nil, c.disk.flush()
	case nbdCmdTrim, nbdCmdWriteZeroes:
		return nil, c.zero(off, int64(length))
	}
	return nil, unix.EINVAL
}

// zero writes zeros in pieces: nobody may ask for all of them at a time.
func (c *nbdConn) zero(off, length int64) error {
	for length > 0 {
		n := min(length, 1<<20)
		if err := c.disk.write(make([]byte, n), off); err != nil {
			return err
		}
		off, length = off+n, length-n
	}
	return nil
}
