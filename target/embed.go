// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// sectionState is the section of the snapshot that belongs to Options.State.
const sectionState = "state" // byte string

// State is what a program that embeds a Server hands over with it.
type State interface {
	// Save returns the state. Nothing of the Server runs meanwhile, and nothing
	// does afterwards unless the upgrade fails. An error makes it fail.
	Save() ([]byte, error)

	// Load takes over what Save has returned in the predecessor, which may
	// still go on afterwards. It is not called if there was no State.
	Load([]byte) error
}

func (s *Server) saveState(snap *handoff.Snapshot) error {
	if s.options.State == nil {
		return nil
	}
	b, err := s.options.State.Save()
	if err != nil {
		return err
	}
	return snap.Put(sectionState, b)
}

func (s *Server) loadState(snap *handoff.Snapshot) error {
	var b []byte
	if err := snap.Get(sectionState, &b); err != nil || b == nil || s.options.State == nil {
		return err
	}
	return s.options.State.Load(b)
}

// AddTarget adds a target whose logical units are made already, by number;
// conf's own are not looked at, and conf must have its defaults and a TID of
// its own. The Server owns the logical units from then on, but not on an error.
// It must not be called during HandOver or TakeOver; nor must Attach or Detach.
func (s *Server) AddTarget(conf *config.Target, units map[uint16]*scsi.LogicalUnit) error {
	if s.find(conf.Name) != nil {
		return fmt.Errorf("target %s is there already", conf.Name)
	}
	t, err := s.newServed(conf)
	if err != nil {
		return fmt.Errorf("target %s: %w", conf.Name, err)
	}
	for _, n := range slices.Sorted(maps.Keys(units)) {
		if err == nil {
			err = t.device.Attach(n, units[n])
		}
	}
	if units[0] == nil && err == nil {
		err = attachController(t.device, s.log)
	}
	if err != nil {
		for _, u := range t.device.LogicalUnits() {
			_, _ = t.device.Detach(u.Number)
		}
		return err
	}
	s.mu.Lock()
	s.targets = append(s.targets, t)
	s.mu.Unlock()
	s.publish()
	return nil
}

// targetList returns the targets of now.
func (s *Server) targetList() []*served {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.targets)
}

func (s *Server) find(name string) *served {
	for _, t := range s.targetList() {
		if strings.EqualFold(t.conf.Name, name) {
			return t
		}
	}
	return nil
}

// LogicalUnit returns logical unit n of a target, nil if there is none. It
// stays the Server's.
func (s *Server) LogicalUnit(target string, n uint16) *scsi.LogicalUnit {
	if t := s.find(target); t != nil {
		return t.device.LogicalUnit(n)
	}
	return nil
}

// Attach adds a logical unit to a target that is served; initiators learn of
// it. The Server owns lu from then on, but not on an error.
func (s *Server) Attach(target string, n uint16, lu *scsi.LogicalUnit) error {
	t := s.find(target)
	if t == nil {
		return fmt.Errorf("there is no target %s", target)
	}
	if n == 0 && isController(t.device.LogicalUnit(0)) {
		if _, err := t.device.Detach(0); err != nil {
			return err
		}
	}
	return t.device.Attach(n, lu)
}

// Detach takes a logical unit from a target that is served; initiators learn
// of it. It waits for commands under way and closes the logical unit. The
// error is that of closing, or there was none of that number.
func (s *Server) Detach(target string, n uint16) error {
	t := s.find(target)
	if t == nil {
		return fmt.Errorf("there is no target %s", target)
	}
	lu, err := t.device.Detach(n)
	if err != nil {
		return err
	}
	if n == 0 {
		if err := attachController(t.device, s.log); err != nil {
			return err
		}
	}
	return lu.Close()
}

func isController(lu *scsi.LogicalUnit) bool { return lu != nil && lu.Store() == nil }

// Announce makes discovery tell these portal groups instead of the Server's
// own portals, from which they may be reached by other addresses. nil takes
// that back.
func (s *Server) Announce(groups []iscsi.PortalGroup) {
	s.mu.Lock()
	s.announced = groups
	s.mu.Unlock()
	s.publish()
}

// Initiators returns the remote addresses of all connections, those that have
// not logged in yet among them, in no order.
func (s *Server) Initiators() []netip.AddrPort { return s.node.Initiators() }

// admit serves an accepted connection if the embedding program lets it in.
func (s *Server) admit(c *net.TCPConn, group uint16) error {
	if s.options.Admit != nil {
		var err error
		if group, err = s.options.Admit(unmapped(c.LocalAddr()), unmapped(c.RemoteAddr())); err != nil {
			c.Close()
			return err
		}
	}
	return s.node.Serve(c, group)
}

// unmapped is a TCP address without the form that IPv4 has in an IPv6 socket.
func unmapped(addr net.Addr) netip.AddrPort {
	a := addr.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
