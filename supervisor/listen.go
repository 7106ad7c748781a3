// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/gotgtd/gotgtd/internal/proc"
	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// maxListeners bounds the listeners of a process: they travel to the
// successor in one message.
const maxListeners = 200

// A Listener is a listening socket that the process was given, and its name:
// FileDescriptorName= of the socket unit, or NAME of upgraded --listen.
// Several may bear the same name.
type Listener struct {
	Name string
	net.Listener
}

// heldListener is the process's own hold on a listening socket, apart from
// the net.Listener that the daemon accepts on and may close.
type heldListener struct {
	name      string
	network   string
	address   string // as asked of Listen; as bound if given by the service manager
	activated bool   // given by the service manager
	claimed   bool   // asked for by this generation
	file      *os.File
}

// listener makes a net.Listener of the socket.
func (h *heldListener) listener() (net.Listener, error) {
	l, err := net.FileListener(h.file)
	if err != nil {
		return nil, fmt.Errorf("can't listen on descriptor %q: %w", h.name, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return l, nil
}

// release closes the hold. With unlink, the path of a socket that the daemon
// has bound goes as well.
func (h *heldListener) release(unlink bool) {
	_ = h.file.Close()
	if unlink && !h.activated && h.network == "unix" && !strings.HasPrefix(h.address, "@") {
		_ = os.Remove(h.address)
	}
}

// takeActivation sorts what the service manager gave: listening sockets, and
// everything else, which comes from its descriptor store.
func (p *Process) takeActivation(files []*os.File) {
	for _, f := range files {
		if !kernel.IsListening(f) {
			p.stored = append(p.stored, Stored{f.Name(), f})
			continue
		}
		h := &heldListener{name: f.Name(), activated: true, claimed: true, file: f}
		if l, err := h.listener(); err == nil {
			h.network, h.address = l.Addr().Network(), l.Addr().String()
			_ = l.Close()
		}
		p.listeners = append(p.listeners, h)
	}
}

// Listeners returns the listening sockets that the service manager gave to
// this service, directly or through the predecessors. The daemon may close
// them; they are handed on all the same until CloseListener.
func (p *Process) Listeners() ([]Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Listener
	for _, h := range p.listeners {
		if !h.activated {
			continue
		}
		l, err := h.listener()
		if err != nil {
			for _, o := range out {
				_ = o.Close()
			}
			return nil, err
		}
		out = append(out, Listener{h.name, l})
	}
	return out, nil
}

// Listen returns the listener that this process was given or has inherited
// with that name and address, or binds a new one. Either is handed on to the
// successor, until CloseListener. network is "tcp", "tcp4", "tcp6" or "unix".
func (p *Process) Listen(ctx context.Context, name, network, address string) (net.Listener, error) {
	if err := notify.CheckName(name); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.listeners {
		if h.name == name && h.address == address {
			h.claimed = true
			return h.listener()
		}
	}
	if len(p.listeners) >= maxListeners {
		return nil, fmt.Errorf("can't listen on %s: %d listeners are open, and no more are handed on", address, maxListeners)
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, address)
	if err != nil {
		return nil, proc.ExplainListen(network, address, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	file, err := kernel.DupFile(l.(syscall.Conn), name)
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("can't keep the listener on %s: %w", address, err)
	}
	p.listeners = append(p.listeners, &heldListener{name: name, network: network, address: address, claimed: true, file: file})
	return l, nil
}

// CloseListener lets go of the listeners of that name: they are not handed on
// any more. The net.Listeners that the daemon got remain its own to close.
func (p *Process) CloseListener(name string) {
	p.dropListeners(func(h *heldListener) bool { return h.name == name })
}

// dropUnclaimed lets go of what the predecessor had bound and this process
// does not use.
func (p *Process) dropUnclaimed() {
	p.dropListeners(func(h *heldListener) bool { return !h.claimed })
}

func (p *Process) dropListeners(drop func(*heldListener) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.listeners[:0]
	for _, h := range p.listeners {
		if drop(h) {
			h.release(true)
			continue
		}
		kept = append(kept, h)
	}
	clear(p.listeners[len(kept):])
	p.listeners = kept
}

// closeListeners lets go of every listener.
func (p *Process) closeListeners(unlink bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.listeners {
		h.release(unlink)
	}
	p.listeners = nil
}
