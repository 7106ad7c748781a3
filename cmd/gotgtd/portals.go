// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
)

// opener finds or makes the listening sockets of a server's portals.
type opener struct {
	process *supervisor.Process
	server  *target.Server
	passed  []supervisor.Listener // from the service manager, not used so far
	count   map[string]int        // portals with the same address
}

// openPortals gives the server its portals: the sockets that a service
// manager passed, and those of the configuration that are not among them. With
// neither it listens where a first try would look.
func openPortals(ctx context.Context, p *supervisor.Process, s *target.Server, groups []config.PortalGroup) error {
	passed, err := p.Listeners()
	if err != nil {
		return fmt.Errorf("can't use the sockets passed: %w", err)
	}
	o := &opener{process: p, server: s, passed: passed, count: make(map[string]int)}
	if len(groups) == 0 && len(passed) == 0 {
		groups = []config.PortalGroup{{Tag: 1, Portals: []config.Portal{{Address: defaultListen}}}}
	}
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
	for _, l := range o.passed {
		if err := s.AddPortal(l.Listener, tag, l.Name); err != nil {
			return err
		}
	}
	return nil
}

// open opens one portal of the configuration.
func (o *opener) open(ctx context.Context, tag uint16, portal config.Portal) error {
	if l, ok := o.take(portal); ok {
		return o.server.AddPortal(l.Listener, tag, l.Name)
	}
	if portal.Socket != "" {
		return fmt.Errorf("no socket named %q was passed, which portal group %d needs", portal.Socket, tag)
	}
	name := fmt.Sprintf("portal-%d", o.count[portal.Address])
	o.count[portal.Address]++
	l, err := o.process.Listen(ctx, name, "tcp", portal.Address)
	if err != nil {
		return fmt.Errorf("can't listen on portal %s: %w", portal.Address, err)
	}
	return o.server.AddPortal(l, tag, "")
}

// take takes the passed socket that is a portal's, by name or by address.
func (o *opener) take(portal config.Portal) (supervisor.Listener, bool) {
	for i, l := range o.passed {
		if portal.Socket != "" && l.Name == portal.Socket || portal.Socket == "" && covers(l.Listener, portal.Address) {
			o.passed = append(o.passed[:i:i], o.passed[i+1:]...)
			return l, true
		}
	}
	return supervisor.Listener{}, false
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
	a := have.Addr().Unmap()
	return a == want.Addr() || a.IsUnspecified() && (a.Is4() == want.Addr().Is4() || want.Addr().IsUnspecified())
}
