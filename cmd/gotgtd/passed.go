// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
)

// takePassed returns the sockets that a service manager passed, of which each has
// to be a listening TCP socket. Nothing is stored with the manager, so what else it
// passes is a mistake in its settings, and a portal that nobody reaches.
func takePassed(p *supervisor.Process) ([]passedSocket, error) {
	var errs []error
	for _, s := range p.Stored() {
		errs = append(errs, fmt.Errorf("can't serve on %q, which was passed: %s", s.Name, whyNoPortal(s.File)))
	}
	listeners, err := p.Listeners()
	if err != nil {
		return nil, errors.Join(append(errs, fmt.Errorf("can't use the sockets passed: %w", err))...)
	}
	var list []passedSocket
	for _, l := range listeners {
		tl, ok := l.Listener.(*net.TCPListener)
		if !ok {
			errs = append(errs, fmt.Errorf("can't serve on %q, which was passed: %v is no TCP socket; portals need ListenStream= with a port", l.Name, l.Addr()))
			continue
		}
		list = append(list, passedSocket{name: l.Name, listener: tl})
	}
	return list, errors.Join(errs...)
}

// whyNoPortal says why a file that does not listen is no portal.
func whyNoPortal(f *os.File) string {
	raw, err := f.SyscallConn()
	if err != nil {
		return err.Error()
	}
	var domain, kind int
	var noSocket error
	err = raw.Control(func(fd uintptr) {
		if kind, noSocket = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); noSocket == nil {
			domain, noSocket = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		}
	})
	switch {
	case err != nil:
		return err.Error()
	case noSocket != nil:
		return "it is no socket; portals need ListenStream= with a port"
	case kind != unix.SOCK_STREAM || domain != unix.AF_INET && domain != unix.AF_INET6:
		return "it is no TCP socket; portals need ListenStream= with a port"
	}
	return "the TCP socket does not listen; who passes it has to call listen(2) first (in a socket unit: Accept=no)"
}
