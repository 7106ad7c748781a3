// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/gotgtd/gotgtd/internal/proc"
	"github.com/gotgtd/gotgtd/internal/unixhttp"
	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// boundPrefix begins the names under which sockets that were bound here are
// in systemd's descriptor store, apart from what the service has stored.
const boundPrefix = "upgraded.listen."

// A socket is a listening socket that is held for the service.
type socket struct {
	name    string
	address string
	bound   bool // bound here, not passed by systemd
	file    *os.File
}

// openSockets takes up what systemd has passed, binds what is missing, and
// returns the files that came out of systemd's descriptor store as well.
func openSockets(listen []Listen, passed []*os.File) (sockets []*socket, stored []*os.File, err error) {
	defer func() {
		if err != nil {
			closeSockets(sockets)
			kernel.CloseAll(stored)
			sockets, stored = nil, nil
		}
	}()
	have := map[string]bool{}
	for _, f := range passed {
		if !kernel.IsListening(f) {
			stored = append(stored, f)
			continue
		}
		name, bound := strings.CutPrefix(f.Name(), boundPrefix)
		sockets = append(sockets, &socket{name: name, address: addressOf(f), bound: bound, file: f})
		have[name] = true
	}
	for _, l := range listen {
		if have[l.Name] {
			continue
		}
		s, err := bind(l)
		if err != nil {
			return sockets, stored, err
		}
		sockets = append(sockets, s)
	}
	if len(sockets) > maxSockets {
		return sockets, stored, fmt.Errorf("%d sockets are more than %d", len(sockets), maxSockets)
	}
	return sockets, stored, nil
}

// passedFiles are the files of the LISTEN_FDS protocol; it clears the
// variables.
func passedFiles() []*os.File { return activation.Files(true) }

func bind(l Listen) (*socket, error) {
	if l.network() == "unix" && l.Address[0] == '/' {
		if err := unixhttp.RemoveDead(l.Address); err != nil {
			return nil, err
		}
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), l.network(), l.Address)
	if err != nil {
		return nil, fmt.Errorf("can't listen for %q: %w", l.Name, proc.ExplainListen(l.network(), l.Address, err))
	}
	if u, ok := listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	defer listener.Close()
	file, err := kernel.DupFile(listener.(syscall.Conn), l.Name)
	if err != nil {
		return nil, fmt.Errorf("can't hold the socket %q: %w", l.Name, err)
	}
	return &socket{name: l.Name, address: listener.Addr().String(), bound: true, file: file}, nil
}

func addressOf(f *os.File) string {
	l, err := net.FileListener(f)
	if err != nil {
		return ""
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	defer l.Close()
	return l.Addr().String()
}

// closeSockets lets go of the sockets, and removes the paths of those that
// were bound here.
func closeSockets(sockets []*socket) {
	for _, s := range sockets {
		_ = s.file.Close()
		if s.bound && strings.HasPrefix(s.address, "/") {
			_ = os.Remove(s.address)
		}
	}
}
