// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
	"github.com/gotgtd/gotgtd/supervisor/notify"
)

const (
	// handoffName is the name of the one file that tableflip carries.
	handoffName = "handoff"
	// willMagic and willVersion begin every will.
	willMagic   = "supervisor"
	willVersion = 1
	// maxWill bounds the message, which must fit into a socket's buffer.
	maxWill = 128 << 10
	// attachTimeout bounds the wait for a message that is already underway.
	attachTimeout = 10 * time.Second
	// attachWord is what a successor's Start answers to the will.
	attachWord = "attached"
)

// A slot is the descriptor that tableflip gives to the next process.
//
// tableflip keeps a duplicate of every file given to it, for good. So it gets
// one file once, and the package decides with dup3(2) what that descriptor
// refers to: the successor's end of the socket pair while one is started,
// /dev/null otherwise. The descriptor's number never changes, nothing piles
// up, and no end of a socket pair stays open in the wrong process.
type slot struct {
	fd   int
	null *os.File
}

// newSlot makes the slot of a first generation.
func newSlot(u upgrader) (*slot, error) {
	fd, err := unix.MemfdCreate(handoffName, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("can't make the handoff descriptor: %w", err)
	}
	placeholder := os.NewFile(uintptr(fd), handoffName)
	defer placeholder.Close()
	if err := u.AddFile(handoffName, placeholder); err != nil {
		return nil, fmt.Errorf("can't make the handoff descriptor: %w", err)
	}
	return slotOf(placeholder)
}

// slotOf finds the one other descriptor of this process that refers to the
// same file as f, and empties it.
func slotOf(f *os.File) (*slot, error) {
	own, err := kernel.DupFD(f)
	if err != nil {
		return nil, err
	}
	defer unix.Close(own)
	var want unix.Stat_t
	if err := unix.Fstat(own, &want); err != nil {
		return nil, err
	}
	mine := map[int]bool{own: true}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err := raw.Control(func(fd uintptr) { mine[int(fd)] = true }); err != nil {
		return nil, err
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		var st unix.Stat_t
		if err != nil || mine[fd] || unix.Fstat(fd, &st) != nil {
			continue
		}
		if st.Dev == want.Dev && st.Ino == want.Ino {
			return emptySlot(fd)
		}
	}
	return nil, errors.New("tableflip's copy of the handoff descriptor is not open")
}

func emptySlot(fd int) (*slot, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	s := &slot{fd, null}
	if err := s.empty(); err != nil {
		_ = null.Close()
		return nil, err
	}
	return s, nil
}

// put makes the slot refer to what fd refers to.
func (s *slot) put(fd int) error { return unix.Dup3(fd, s.fd, unix.O_CLOEXEC) }

// empty makes the slot refer to /dev/null.
func (s *slot) empty() error {
	dup, err := kernel.DupFD(s.null)
	if err != nil {
		return err
	}
	defer unix.Close(dup)
	return s.put(dup)
}

func (s *slot) close() { _ = s.null.Close() }

// A will is what a generation leaves to its successor before the daemon's own
// hand-over begins. It is the first message on the handoff socket, and the
// listeners' descriptors come with it, in order. Fields are only ever added.
type will struct {
	Magic      string         `json:"magic"`
	Version    int            `json:"version"`
	Generation int            `json:"generation"` // the successor's
	Listeners  []willListener `json:"listeners"`
}

type willListener struct {
	Name      string `json:"name"`
	Network   string `json:"network"`
	Address   string `json:"address"`
	Activated bool   `json:"activated"`
}

// sendWill writes the will into the socket's buffer, where the successor will
// find it.
func (p *Process) sendWill(conn *net.UnixConn) error {
	w := will{Magic: willMagic, Version: willVersion, Generation: p.generation + 1}
	p.mu.Lock()
	defer p.mu.Unlock()
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}()
	for _, h := range p.listeners {
		fd, err := kernel.DupFD(h.file)
		if err != nil {
			return fmt.Errorf("can't hand on listener %q: %w", h.name, err)
		}
		fds = append(fds, fd)
		w.Listeners = append(w.Listeners, willListener{h.name, h.network, h.address, h.activated})
	}
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if len(text) > maxWill {
		return fmt.Errorf("can't hand on %d listeners: their names are too long", len(fds))
	}
	if err := conn.SetWriteDeadline(time.Now().Add(attachTimeout)); err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix(text, unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("can't hand on the listeners: %w", err)
	}
	return conn.SetWriteDeadline(time.Time{})
}

// takeInheritance takes up the handoff socket and reads the will from it.
func (p *Process) takeInheritance() (err error) {
	file, err := p.upg.File(handoffName)
	if err != nil {
		return fmt.Errorf("can't take up the handoff socket: %w", err)
	}
	if file == nil {
		return errors.New("the predecessor has left no handoff socket")
	}
	defer file.Close()
	p.slot, err = slotOf(file)
	if err != nil {
		return fmt.Errorf("can't take up the handoff socket: %w", err)
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("can't take up the handoff socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
			p.closeListeners(false)
		}
	}()
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("the handoff socket is a %T", conn)
	}
	if err := u.SetDeadline(time.Now().Add(attachTimeout)); err != nil {
		return err
	}
	if err := p.readWill(u); err != nil {
		return fmt.Errorf("can't read the predecessor's will: %w", err)
	}
	if _, err := u.Write([]byte(attachWord)); err != nil {
		return fmt.Errorf("can't answer the predecessor: %w", err)
	}
	p.pred = u
	return u.SetDeadline(time.Time{})
}

func (p *Process) readWill(conn *net.UnixConn) error {
	text, files, err := receive(conn, maxWill, notify.MaxFiles)
	if err != nil {
		return err
	}
	var w will
	err = json.Unmarshal(text, &w)
	switch {
	case err != nil:
	case w.Magic != willMagic || w.Version != willVersion:
		err = fmt.Errorf("it is of kind %q, version %d", w.Magic, w.Version)
	case len(w.Listeners) != len(files):
		err = fmt.Errorf("it names %d listeners and has %d", len(w.Listeners), len(files))
	case w.Generation < 2:
		err = fmt.Errorf("it makes this generation %d", w.Generation)
	}
	if err != nil {
		kernel.CloseAll(files)
		return err
	}
	p.generation = w.Generation
	for i, l := range w.Listeners {
		p.listeners = append(p.listeners, &heldListener{
			name: l.Name, network: l.Network, address: l.Address,
			activated: l.Activated, claimed: l.Activated, file: files[i],
		})
	}
	return nil
}

// receive reads one message of at most size bytes, and its files.
func receive(conn *net.UnixConn, size, rights int) ([]byte, []*os.File, error) {
	buf := make([]byte, size+1)
	oob := make([]byte, unix.CmsgSpace(4*rights))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	files, err := kernel.Rights(oob[:oobn])
	switch {
	case err != nil:
	case n == 0:
		err = io.ErrUnexpectedEOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n > size:
		err = errors.New("message is too long")
	default:
		return buf[:n], files, nil
	}
	kernel.CloseAll(files)
	return nil, nil, err
}
