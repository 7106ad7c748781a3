// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
	"github.com/gotgtd/gotgtd/supervisor/notify"
)

const (
	// handoffName is the name of the one file that tableflip carries.
	handoffName = "handoff"
	// inheritMagic and inheritVersion begin every inheritance.
	inheritMagic   = "supervisor"
	inheritVersion = 1
	// maxInheritance bounds the message, which must fit into a socket's buffer.
	maxInheritance = 128 << 10
	// attachTimeout bounds the wait for a message that is already underway.
	attachTimeout = 10 * time.Second
	// attachWord is what a successor's Start answers to the inheritance.
	attachWord = "attached"
)

// An inheritance is what the package itself passes to a successor, before the daemon's own
// handoff begins. It is the first message on the handoff socket, and the
// listeners' descriptors come with it, in order. Fields are only ever added.
type inheritance struct {
	Magic      string              `json:"magic"`
	Version    int                 `json:"version"`
	Generation int                 `json:"generation"` // the successor's
	Listeners  []inheritedListener `json:"listeners"`
}

type inheritedListener struct {
	Name      string `json:"name"`
	Network   string `json:"network"`
	Address   string `json:"address"`
	Activated bool   `json:"activated"`
}

// sendInheritance writes the inheritance into the socket's buffer, where the successor will
// find it.
func (p *Process) sendInheritance(conn *net.UnixConn) error {
	w := inheritance{Magic: inheritMagic, Version: inheritVersion, Generation: p.generation + 1}
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
		w.Listeners = append(w.Listeners, inheritedListener{h.name, h.network, h.address, h.activated})
	}
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if len(text) > maxInheritance {
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

// takeInheritance takes up the handoff socket and reads the inheritance from it.
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
	if err := p.readInheritance(u); err != nil {
		return fmt.Errorf("can't read the predecessor's listeners: %w", err)
	}
	if _, err := u.Write([]byte(attachWord)); err != nil {
		return fmt.Errorf("can't answer the predecessor: %w", err)
	}
	p.pred = u
	return u.SetDeadline(time.Time{})
}

func (p *Process) readInheritance(conn *net.UnixConn) error {
	text, files, err := receive(conn, maxInheritance, notify.MaxFiles)
	if err != nil {
		return err
	}
	var w inheritance
	err = json.Unmarshal(text, &w)
	switch {
	case err != nil:
	case w.Magic != inheritMagic || w.Version != inheritVersion:
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
