// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxMessage  = 64 << 10 // bytes of one message
	filesAtOnce = 200      // descriptors in one message; the kernel's limit is 253
	maxFiles    = 1 << 16
	maxSnapshot = 8 << 30 // bytes

	abortWait = 10 * time.Millisecond
)

// kind is what a message says.
type kind uint8

const (
	kindHello kind = iota + 1
	kindFiles
	kindSnapshot
	kindPrepared
	kindCommit
	kindTaken
	kindServing
	kindAbort
	kindFailed // the successor can't take over; Error says why
)

func (k kind) String() string {
	names := [...]string{"?", "HELLO", "FILES", "SNAPSHOT", "PREPARED", "COMMIT", "TAKEN", "SERVING", "ABORT", "FAILED"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("message %d", uint8(k))
}

// message is one datagram.
type message struct {
	Kind   kind    `cbor:"1,keyasint"`
	Hello  *Hello  `cbor:"2,keyasint,omitempty"`
	Size   int64   `cbor:"3,keyasint,omitempty"` // of the snapshot, bytes
	Files  int     `cbor:"4,keyasint,omitempty"` // files sent before the snapshot
	Error  string  `cbor:"5,keyasint,omitempty"`
	Report *Report `cbor:"6,keyasint,omitempty"`
	Bulk   int64   `cbor:"7,keyasint,omitempty"` // data behind the snapshot, bytes
	Rest   bool    `cbor:"8,keyasint,omitempty"` // a second file, which what follows comes from
}

// errGone is the answer of receive when the other side has died.
var errGone = errors.New("the other process has gone")

// isGone reports whether an error of the wire means that the other process
// has died.
func isGone(err error) bool {
	return errors.Is(err, errGone) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

// wire is the socket between two generations.
type wire struct{ c *net.UnixConn }

// bound makes the wire's calls fail when ctx ends. The caller calls release
// when done, and the wire is without bounds again.
func (w wire) bound(ctx context.Context) (release func()) {
	ran := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ran)
		_ = w.c.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-ran
		}
		_ = w.c.SetDeadline(time.Time{})
	}
}

// abort tells the successor that this process goes on itself. It waits for
// nothing: the successor may hang with the socket full, and is killed in any case.
func (w wire) abort() {
	_ = w.c.SetWriteDeadline(time.Now().Add(abortWait))
	_ = w.send(&message{Kind: kindAbort})
	_ = w.c.SetWriteDeadline(time.Time{})
}

// send sends a message with files.
func (w wire) send(m *message, files ...int) error {
	b, err := encoding.Marshal(m)
	if err != nil {
		return fmt.Errorf("can't encode %v: %w", m.Kind, err)
	}
	if len(b) > maxMessage {
		return fmt.Errorf("can't send %v: %d bytes are too many", m.Kind, len(b))
	}
	var oob []byte
	if len(files) > 0 {
		oob = unix.UnixRights(files...)
	}
	if _, _, err := w.c.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("can't send %v: %w", m.Kind, err)
	}
	return nil
}

// receive receives a message and its files, close-on-exec.
func (w wire) receive() (*message, []*os.File, error) {
	b := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(4*253))
	n, oobn, flags, err := w.read(b, oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The other side ended with something of ours unread. The kernel says
		// so once, ahead of what the other side had sent before.
		n, oobn, flags, err = w.read(b, oob)
	}
	if n == 0 && (err == nil || errors.Is(err, io.EOF)) || errors.Is(err, unix.ECONNRESET) {
		return nil, nil, errGone
	}
	if err != nil {
		return nil, nil, err
	}
	files, err := parseFiles(oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("message cut off, perhaps for want of file descriptors")
	}
	m := new(message)
	if err == nil {
		err = decoding.Unmarshal(b[:n], m)
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return m, files, nil
}

// read waits for a datagram. When the time for that is up, what has arrived
// still counts: it may be the last word of a process that has died, whose death
// is why the time was up.
func (w wire) read(b, oob []byte) (n, oobn, flags int, err error) {
	n, oobn, flags, _, err = w.c.ReadMsgUnix(b, oob)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, oobn, flags, err
	}
	raw, rawErr := w.c.SyscallConn()
	if rawErr != nil {
		return 0, 0, 0, rawErr
	}
	late := err
	rawErr = raw.Control(func(fd uintptr) {
		n, oobn, flags, _, err = unix.Recvmsg(int(fd), b, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	})
	switch {
	case rawErr != nil:
		return 0, 0, 0, rawErr
	case err == unix.EAGAIN:
		return 0, 0, 0, late
	case err != nil:
		return 0, 0, 0, err
	}
	return n, oobn, flags, nil
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			closeAll(files)
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "handoff"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// expect receives a message that must be of one of the kinds.
func (w wire) expect(kinds ...kind) (*message, []*os.File, error) {
	m, files, err := w.receive()
	if err != nil {
		return nil, nil, fmt.Errorf("waiting for %v: %w", kinds[0], err)
	}
	for _, k := range kinds {
		if m.Kind == k {
			return m, files, nil
		}
	}
	closeAll(files)
	if m.Kind == kindFailed {
		return nil, nil, errors.New(m.Error)
	}
	return nil, nil, fmt.Errorf("waiting for %v: got %v", kinds[0], m.Kind)
}

// sendSnapshot sends files, in batches, and the encoded snapshot in a memfd, with bulk data
// behind it, which is written from where it lies. rest is the pipe of what follows, nil for none.
func (w wire) sendSnapshot(s *Snapshot, b []byte, files []int, rest *os.File) error {
	for at := 0; at < len(files); at += filesAtOnce {
		if err := w.send(&message{Kind: kindFiles}, files[at:min(at+filesAtOnce, len(files))]...); err != nil {
			return err
		}
	}
	fd, err := unix.MemfdCreate("gotgtd-snapshot", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("can't make a memfd for the snapshot: %w", err)
	}
	f := os.NewFile(uintptr(fd), "snapshot")
	defer f.Close()
	m := &message{Kind: kindSnapshot, Size: int64(len(b)), Bulk: s.bulkSize, Files: len(files)}
	for _, p := range append([][]byte{b}, s.bulk...) {
		if err := s.writeTo(f, p); err != nil {
			return fmt.Errorf("can't write the snapshot: %w", err)
		}
	}
	if rest == nil {
		return w.send(m, fd)
	}
	m.Rest = true
	second, err := Descriptor(rest)
	if err != nil {
		return err
	}
	return w.send(m, fd, second)
}

// writeTo writes data as long as there is time for it.
func (s *Snapshot) writeTo(f *os.File, p []byte) error {
	const step = 4 << 20 // bytes between two looks at the clock
	for part := range slices.Chunk(p, step) {
		if err := s.Err(); err != nil {
			return err
		}
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// receiveSnapshot is the other side of sendSnapshot. The files are the
// caller's, and so is the snapshot, to be released.
func (w wire) receiveSnapshot() (s *Snapshot, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	for {
		m, got, err := w.expect(kindSnapshot, kindFiles)
		if err != nil {
			return nil, files, err
		}
		if m.Kind == kindSnapshot {
			s, err := readSnapshot(m, got, files)
			return s, files, err
		}
		if files = append(files, got...); len(files) > maxFiles {
			return nil, files, fmt.Errorf("more than %d files", maxFiles)
		}
	}
}

func readSnapshot(m *message, own, files []*os.File) (*Snapshot, error) {
	want := 1
	if m.Rest {
		want = 2
	}
	switch {
	case len(own) != want:
		closeAll(own)
		return nil, fmt.Errorf("SNAPSHOT with %d files, not %d", len(own), want)
	case m.Size < 1 || m.Size > maxSnapshot || m.Bulk < 0 || m.Bulk > maxSnapshot:
		closeAll(own)
		return nil, fmt.Errorf("snapshot of %d bytes, with %d behind it", m.Size, m.Bulk)
	case m.Files != len(files):
		closeAll(own)
		return nil, fmt.Errorf("%d files came, %d were sent", len(files), m.Files)
	}
	s, err := mapSnapshot(m, own[0], len(files))
	own[0].Close()
	if err != nil {
		closeAll(own[1:])
		return nil, err
	}
	if m.Rest {
		s.pipe = own[1]
	}
	return s, nil
}

// mapSnapshot decodes the snapshot in a memfd.
func mapSnapshot(m *message, memfd *os.File, files int) (*Snapshot, error) {
	b, err := mapMemory(memfd, m.Size+m.Bulk)
	if err != nil {
		return nil, fmt.Errorf("can't read the snapshot: %w", err)
	}
	s, err := Unmarshal(b[:m.Size])
	if err == nil && len(s.Files) != files {
		err = fmt.Errorf("%d files came, the snapshot names %d", files, len(s.Files))
	}
	if err != nil {
		_ = unix.Munmap(b)
		return nil, err
	}
	s.memory, s.mapped = b, b[m.Size:]
	return s, nil
}

// monotonic returns CLOCK_MONOTONIC in nanoseconds, which all processes share.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
