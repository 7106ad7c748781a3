// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
)

// portal is a listener and the portal group that it belongs to.
type portal struct {
	listener pausable
	places   []PortalAddress // at least one
	name     string

	accepting bool // a loop accepts; under the server's mu
}

// PortalAddress is an address of a listener that is a portal of its own.
type PortalAddress struct {
	Address netip.AddrPort // unspecified for every address that no other portal has
	Group   uint16         // its portal group tag; 0 means 1

	// Announce is what discovery tells instead of Address; none: Address.
	Announce []string
}

// group is the portal group that a connection to a local address belongs to.
func (p *portal) group(local netip.AddrPort) uint16 {
	group := p.places[0].Group
	for _, at := range p.places {
		if at.Address == local {
			return at.Group
		}
		if at.Address.Addr().IsUnspecified() {
			group = at.Group
		}
	}
	return group
}

// has reports whether one of the portals is in a group.
func (p *portal) has(group uint16) bool {
	return slices.ContainsFunc(p.places, func(at PortalAddress) bool { return at.Group == group })
}

// groupTags returns the tags of the portal groups that offer a target.
func (s *Server) groupTags(t *config.Target) []uint16 {
	if len(t.PortalGroups) > 0 {
		return t.PortalGroups
	}
	var tags []uint16
	for _, g := range s.conf.PortalGroups {
		tags = append(tags, g.Tag)
	}
	if len(tags) == 0 {
		tags = []uint16{1}
	}
	return tags
}

// offers reports whether a portal group offers a target. A target without groups is
// offered by those that have a portal; with no portal at all, they may come later.
func (s *Server) offers(t *served, group uint16) bool {
	if len(t.conf.PortalGroups) > 0 {
		return slices.Contains(t.conf.PortalGroups, group)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.portals) == 0 || slices.ContainsFunc(s.portals, func(p *portal) bool { return p.has(group) })
}

// publish makes targets and portals known to initiators.
func (s *Server) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var targets []*iscsi.Target
	for _, t := range s.targets {
		targets = append(targets, t.target)
	}
	groups := s.announced
	if groups == nil {
		for _, p := range s.portals {
			for _, at := range p.places {
				groups = addPortal(groups, at)
			}
		}
	}
	s.node.SetTargets(targets, groups, auth(&s.conf.Discovery))
}

func addPortal(groups []iscsi.PortalGroup, at PortalAddress) []iscsi.PortalGroup {
	i := slices.IndexFunc(groups, func(g iscsi.PortalGroup) bool { return g.Tag == at.Group })
	if i < 0 {
		i = len(groups)
		groups = append(groups, iscsi.PortalGroup{Tag: at.Group})
	}
	if g := &groups[i]; len(at.Announce) > 0 {
		g.Announced = append(g.Announced, at.Announce...)
	} else {
		g.Portals = append(g.Portals, at.Address)
	}
	return groups
}

// AddPortal announces a listener as a portal of the group tag, 0 for 1. name is what a
// service manager calls the socket, if it is one of its own. No connection is accepted
// before [Server.Serve]. The listener may be of any type, but what it accepts has to be
// a [net.TCPConn], since sessions move to another process as file descriptors. The Server
// closes it in the end, but not on an error. Who shares its socket must leave that non-blocking,
// which [os.File.Fd] of what [net.TCPListener.File] returns does not.
func (s *Server) AddPortal(l net.Listener, group uint16, name string) error {
	if isNil(l) {
		return errNoListener
	}
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("can't serve iSCSI on %v: not a TCP socket", l.Addr())
	}
	return s.AddPortals(l, name, PortalAddress{Address: unmapped(a), Group: group})
}

var errNoListener = errors.New("a portal needs a listener")

func isNil(l net.Listener) bool {
	tl, ok := l.(*net.TCPListener)
	return l == nil || ok && tl == nil
}

// AddPortals is AddPortal of a listener that is several portals: it accepts what
// comes for all their addresses, and they may be in several groups.
func (s *Server) AddPortals(l net.Listener, name string, places ...PortalAddress) error {
	if isNil(l) {
		return errNoListener
	}
	if len(places) == 0 {
		return fmt.Errorf("the socket %v has no portal", l.Addr())
	}
	p := &portal{listener: pausableListener(l), places: slices.Clone(places), name: name}
	for i := range p.places {
		if p.places[i].Group == 0 {
			p.places[i].Group = 1
		}
	}
	if err := s.addPortal(p); err != nil {
		return err
	}
	s.publish()
	return nil
}

func (s *Server) addPortal(p *portal) error {
	if s == nil {
		return ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.retired.Load() {
		return ErrClosed
	}
	s.portals = append(s.portals, p)
	if s.serving {
		s.startAcceptingLocked(p)
	}
	return nil
}

// Serve accepts connections on every portal, those added later among them, until
// Shutdown or Close. It returns at once; called again it does nothing.
func (s *Server) Serve() {
	if s == nil {
		return
	}
	s.retrying.Do(s.startRetrying)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving || s.ctx.Err() != nil || s.retired.Load() {
		return
	}
	s.serving = true
	for _, p := range s.portals {
		s.startAcceptingLocked(p)
	}
}

func (s *Server) startAcceptingLocked(p *portal) {
	_ = p.listener.SetDeadline(time.Time{})
	if p.accepting { // a pause that has failed left its loop
		return
	}
	p.accepting = true
	go s.accept(p)
}

// endAccepting reports whether the loop of a portal, whose Accept has returned err, ends: a pause
// may be over again.
func (s *Server) endAccepting(p *portal, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving && isTimeout(err) {
		return false
	}
	p.accepting = false
	if s.acceptsIdle != nil && len(s.acceptingLocked()) == 0 {
		close(s.acceptsIdle)
		s.acceptsIdle = nil
	}
	return true
}

// acceptPause is how long a portal rests after accept failed, for example for
// want of file descriptors.
const acceptPause = 100 * time.Millisecond

func (s *Server) accept(p *portal) {
	for {
		c, err := p.listener.Accept()
		switch {
		case err == nil:
			if err := s.admit(p, c); err != nil {
				s.strangers.Warn("connection refused", "error", err)
			}
		case errors.Is(err, net.ErrClosed) || isTimeout(err):
			if s.endAccepting(p, err) {
				return
			}
		default:
			s.strangers.Warn("connections can't be accepted for now: if descriptors are used up, raise LimitNOFILE", "portal", p.listener.Addr().String(), "error", err)
			time.Sleep(acceptPause)
		}
	}
}

// admit serves an accepted connection if the embedding program lets it in.
func (s *Server) admit(p *portal, c net.Conn) error {
	tc, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return fmt.Errorf("the listener at %v accepted a %T, which is no *net.TCPConn", p.listener.Addr(), c)
	}
	group := p.group(unmapped(tc.LocalAddr()))
	if s.options.Admit != nil {
		var err error
		if group, err = s.options.Admit(unmapped(tc.LocalAddr()), unmapped(tc.RemoteAddr())); err != nil {
			c.Close()
			return err
		}
	}
	return s.node.Serve(tc, group)
}

// unmapped is a TCP address without the form that IPv4 has in an IPv6 socket.
func unmapped(addr net.Addr) netip.AddrPort {
	a := addr.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// pauseAccepting makes every accept loop end; the listeners stay open and their backlogs
// fill. It waits for the loops until ctx ends, and names the portals of those that have not ended: a
// listener that shares its socket with a program that has made it blocking does not heed a deadline,
// and the embedding program's Admit may take its time.
func (s *Server) pauseAccepting(ctx context.Context) error {
	s.mu.Lock()
	s.resume, s.serving = s.serving, false
	for _, p := range s.portals {
		_ = p.listener.SetDeadline(time.Unix(1, 0))
	}
	if s.acceptsIdle == nil && len(s.acceptingLocked()) > 0 {
		s.acceptsIdle = make(chan struct{})
	}
	idle := s.acceptsIdle
	s.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("a connection is still being accepted at %s: %w", strings.Join(s.accepting(), ", "), context.Cause(ctx))
	}
}

// accepting are the addresses of the portals whose loops run.
func (s *Server) accepting() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acceptingLocked()
}

func (s *Server) acceptingLocked() (list []string) {
	for _, p := range s.portals {
		if p.accepting {
			list = append(list, p.listener.Addr().String())
		}
	}
	return list
}

// resumeAccepting undoes pauseAccepting.
func (s *Server) resumeAccepting() {
	s.mu.Lock()
	resume := s.resume
	s.mu.Unlock()
	if resume {
		s.Serve()
	}
}

func (s *Server) portalStatus() []PortalStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []PortalStatus{}
	for _, p := range s.portals {
		for _, at := range p.places {
			list = append(list, PortalStatus{Group: at.Group, Address: at.Address, Name: p.name, Announce: at.Announce})
		}
	}
	return list
}
