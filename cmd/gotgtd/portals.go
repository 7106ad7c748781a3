// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
)

// opener finds or makes the listening sockets of a server's portals.
type opener struct {
	process *supervisor.Process
	server  *target.Server
	passed  []passedSocket // from the service manager
	count   map[string]int // portals with the same address
	groups  []config.PortalGroup
}

// network is the family that a portal listens in: 0.0.0.0 is every address of
// IPv4, and [::] also every one of IPv6, unless 0.0.0.0 is a portal at the same port itself.
func (o *opener) network(address string) string {
	port, all6 := strings.CutPrefix(address, "[::]:")
	with4 := slices.ContainsFunc(o.groups, func(g config.PortalGroup) bool {
		return slices.ContainsFunc(g.Portals, func(p config.Portal) bool { return p.Address == "0.0.0.0:"+port })
	})
	switch {
	case strings.HasPrefix(address, "0.0.0.0:"):
		return "tcp4"
	case all6 && with4:
		return "tcp6"
	}
	return "tcp"
}

// passedSocket is a socket that a service manager passed, and the portals that
// the configuration has at it.
type passedSocket struct {
	name     string
	listener *net.TCPListener
	portals  []target.PortalAddress
}

// add adds a portal at the socket. Two that are the same there, such as all
// addresses of IPv4 and all of IPv6, are one with what both announce.
func (s *passedSocket) add(p target.PortalAddress) {
	i := slices.IndexFunc(s.portals, func(q target.PortalAddress) bool { return q.Address == p.Address && q.Group == p.Group })
	if i < 0 {
		s.portals = append(s.portals, p)
		return
	}
	s.portals[i].Announce = append(slices.Clone(s.portals[i].Announce), p.Announce...)
}

// openPortals gives the server its portals: the sockets that a service
// manager passed, and those of the configuration that are not among them. With
// neither it listens where a first try would look.
func openPortals(ctx context.Context, p *supervisor.Process, s *target.Server, groups []config.PortalGroup) error {
	passed, err := takePassed(p)
	if err != nil {
		return err
	}
	o := &opener{process: p, server: s, passed: passed, count: make(map[string]int)}
	if len(groups) == 0 && len(passed) == 0 {
		groups = defaultPortals()
	}
	o.groups = groups
	for _, g := range groups {
		for _, portal := range g.Portals {
			if err := o.open(ctx, g.Tag, portal); err != nil {
				return err
			}
		}
	}
	tag := uint16(1)
	if len(groups) > 0 {
		tag = groups[0].Tag
	}
	return o.addPassed(tag)
}

// defaultPortals are where gotgtd listens when nothing says where.
func defaultPortals() []config.PortalGroup {
	return []config.PortalGroup{{Tag: 1, Portals: []config.Portal{{Address: defaultListen}}}}
}

// addPassed makes portals of the sockets passed. Those that the configuration
// says nothing of belong to the group tag.
func (o *opener) addPassed(tag uint16) error {
	for _, l := range o.passed {
		if len(l.portals) == 0 {
			if err := o.server.AddPortal(l.listener, tag, l.name); err != nil {
				return err
			}
			continue
		}
		if err := o.server.AddPortals(l.listener, l.name, l.portals...); err != nil {
			return err
		}
	}
	return nil
}

// open opens one portal of the configuration.
func (o *opener) open(ctx context.Context, tag uint16, portal config.Portal) error {
	if l := o.find(portal); l != nil {
		at, err := netip.ParseAddrPort(portal.Address)
		if err != nil || at.Addr().IsUnspecified() { // a name, or all that the socket has
			at = bound(l.listener)
		}
		l.add(target.PortalAddress{Address: at, Group: tag, Announce: portal.Announce})
		return nil
	}
	if portal.Socket != "" {
		return fmt.Errorf("no socket named %q was passed, which portal group %d needs", portal.Socket, tag)
	}
	name := fmt.Sprintf("portal-%d", o.count[portal.Address])
	o.count[portal.Address]++
	l, err := o.process.Listen(ctx, name, o.network(portal.Address), portal.Address)
	if err != nil {
		return fmt.Errorf("can't listen on portal %s: %w", portal.Address, err)
	}
	tl, ok := l.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("can't listen on portal %s: it is a %T", portal.Address, l)
	}
	return o.server.AddPortals(tl, "", target.PortalAddress{Address: bound(tl), Group: tag, Announce: portal.Announce})
}

// bound is the address of a listener, without the form that IPv4 has in an
// IPv6 socket.
func bound(l *net.TCPListener) netip.AddrPort {
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// find returns the passed socket that a portal is at, nil if there is none. A
// name is of one socket for each portal that has it; an address may be one of
// several that a socket accepts connections for.
func (o *opener) find(portal config.Portal) *passedSocket {
	var found *passedSocket
	for i := range o.passed {
		l := &o.passed[i]
		switch {
		case portal.Socket != "":
			if l.name == portal.Socket && len(l.portals) == 0 {
				return l
			}
		case l.listener.Addr().String() == portal.Address:
			return l
		case found == nil && covers(l.listener, portal.Address):
			found = l
		}
	}
	return found
}

// covers reports whether a listener accepts what comes for an address.
func covers(l net.Listener, address string) bool {
	t, ok := l.Addr().(*net.TCPAddr)
	want, err := netip.ParseAddrPort(address)
	if !ok || err != nil {
		return false
	}
	have := t.AddrPort()
	if have.Port() != want.Port() {
		return false
	}
	a, w := have.Addr().Unmap(), want.Addr()
	if a == w || !a.IsUnspecified() {
		return a == w
	}
	return a.Is4() == w.Is4() || w.IsUnspecified() || a.Is6() && !v6Only(l)
}

// v6Only reports whether a socket of IPv6 accepts nothing that comes by IPv4.
func v6Only(l net.Listener) bool {
	c, ok := l.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	only := 1
	err = raw.Control(func(fd uintptr) {
		if n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err == nil {
			only = n
		}
	})
	return err != nil || only != 0
}
