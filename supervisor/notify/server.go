// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// maxMessage is the longest message that is accepted, in bytes; systemd has
// the same bound (NOTIFY_BUFFER_MAX).
const maxMessage = 4096

// maxFields bounds the fields of a message.
const maxFields = 64

// A Message is what a process has sent. Its receiver closes the files.
type Message struct {
	// PID is the sender's, from the credentials that the kernel attaches.
	PID   int
	Files []*os.File

	fields map[string]string
}

// Field returns the value of a field, and whether there is such a field.
func (m *Message) Field(key string) (string, bool) {
	v, ok := m.fields[key]
	return v, ok
}

// Is reports whether a field has the value "1", as READY and the like do.
func (m *Message) Is(key string) bool { return m.fields[key] == "1" }

// Duration returns the value of a field in microseconds.
func (m *Message) Duration(key string) (time.Duration, bool) {
	usec, err := strconv.ParseInt(m.fields[key], 10, 64)
	if err != nil || usec < 0 || usec > int64(time.Duration(1<<63-1)/time.Microsecond) {
		return 0, false
	}
	return time.Duration(usec) * time.Microsecond, true
}

// Int returns the value of a field that is a number.
func (m *Message) Int(key string) (int, bool) {
	n, err := strconv.Atoi(m.fields[key])
	return n, err == nil
}

// Close closes the message's files.
func (m *Message) Close() {
	kernel.CloseAll(m.Files)
	m.Files = nil
}

// parseFields decodes the text of a message: lines of KEY=VALUE, of which the
// last of a key counts.
func parseFields(text string) (map[string]string, error) {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		key, value, found := strings.Cut(line, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("line %.40q is no assignment", line)
		}
		if len(fields) >= maxFields {
			return nil, fmt.Errorf("more than %d fields", maxFields)
		}
		fields[key] = strings.ToValidUTF8(value, "?")
	}
	return fields, nil
}

// A BadMessage is what Receive returns for a message that can't be used. The
// next one may be good.
type BadMessage struct {
	PID int // 0 if not known
	Err error
}

func (b *BadMessage) Error() string {
	return fmt.Sprintf("notification of process %d: %v", b.PID, b.Err)
}

// Unwrap returns the cause.
func (b *BadMessage) Unwrap() error { return b.Err }

// A Server receives messages on a datagram socket.
type Server struct {
	conn *net.UnixConn
	buf  []byte
	oob  []byte
}

// Listen makes the socket at path. Any process that can reach the path may
// send: Message.PID is what tells them apart.
func Listen(path string) (*Server, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("can't make the notification socket: %w", err)
	}
	s, err := newServer(conn)
	if err == nil {
		// A service may have given up its user before it is ready.
		err = os.Chmod(path, 0o666)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("can't make the notification socket: %w", err)
	}
	return s, nil
}

// Resume takes up the socket of an earlier Server, from a duplicate.
func Resume(f *os.File) (*Server, error) {
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("can't take up the notification socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("can't take up the notification socket: it is a %T", c)
	}
	return newServer(conn)
}

func newServer(conn *net.UnixConn) (*Server, error) {
	if err := kernel.Control(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); err != nil {
		return nil, err
	}
	return &Server{
		conn: conn,
		buf:  make([]byte, maxMessage+1),
		oob:  make([]byte, unix.CmsgSpace(4*MaxFiles)+unix.CmsgSpace(unix.SizeofUcred)),
	}, nil
}

// Duplicate returns a duplicate of the socket.
func (s *Server) Duplicate() (*os.File, error) { return kernel.DupFile(s.conn, "notify") }

// Close ends Receive. The path is left to the caller.
func (s *Server) Close() error { return s.conn.Close() }

// Wait waits until a message can be received, or the socket can't be used any more.
func (s *Server) Wait() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
}

// Receive waits for the next message. It returns a *BadMessage for one that
// can't be used, and any other error when the socket can't.
func (s *Server) Receive() (*Message, error) {
	for {
		if err := s.Wait(); err != nil {
			return nil, err
		}
		m, err := s.TryReceive()
		if m != nil || err != nil {
			return m, err
		}
	}
}

// TryReceive is Receive without the wait: it returns nil and no error if no message is
// there. It may run while another goroutine is in Wait, but not in Receive or
// TryReceive.
func (s *Server) TryReceive() (*Message, error) {
	var n, oobn, flags int
	err := kernel.Control(s.conn, func(fd int) (err error) {
		for {
			n, oobn, flags, _, err = unix.Recvmsg(fd, s.buf, s.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if err != unix.EINTR {
				return err
			}
		}
	})
	if errors.Is(err, unix.EAGAIN) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := &Message{PID: senderOf(s.oob[:oobn])}
	m.Files, err = kernel.Rights(s.oob[:oobn])
	switch {
	case err != nil:
	case m.PID == 0:
		err = errors.New("no credentials")
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n > maxMessage:
		err = fmt.Errorf("longer than %d bytes or %d descriptors", maxMessage, MaxFiles)
	default:
		m.fields, err = parseFields(string(s.buf[:n]))
	}
	if err != nil {
		m.Close()
		return nil, &BadMessage{m.PID, err}
	}
	return m, nil
}

// senderOf returns the PID in a message's credentials.
func senderOf(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if messages[i].Header.Type != unix.SCM_CREDENTIALS {
			continue
		}
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return int(cred.Pid)
		}
	}
	return 0
}
