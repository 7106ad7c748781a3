// SPDX-License-Identifier: Apache-2.0

package target

import (
	"net/netip"

	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/iscsi"
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
