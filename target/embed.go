// SPDX-License-Identifier: Apache-2.0

package target

import (
	"net/netip"

	"github.com/gotgtd/gotgtd/target/config"
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
// own portals, as for initiators that reach these by other addresses. nil undoes that.
func (s *Server) Announce(groups []iscsi.PortalGroup) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.announced = groups
	s.mu.Unlock()
	s.publish()
}

// Initiators returns the remote addresses of all connections, those that have
// not logged in yet among them, in no order.
func (s *Server) Initiators() []netip.AddrPort {
	if s == nil {
		return nil
	}
	return s.node.Initiators()
}

// A Login is an initiator that logs in to a target, or is logged in.
type Login struct {
	Address   netip.Addr // that it comes from; of a session, that its first connection has come from
	Initiator string     // iSCSI name, in lower case; a claim
	Account   string     // CHAP name that it has proved to be, empty for none
	Target    string     // iSCSI name, in lower case
	TSIH      uint16     // of the session; 0 while there is none
}

// authorized asks the embedding program about a login.
func (s *Server) authorized(t *config.Target, p iscsi.Peer) (bool, string) {
	if s.options.Authorize == nil || p.Unproven {
		return true, ""
	}
	err := s.options.Authorize(Login{Address: p.Addr, Initiator: p.Initiator, Account: p.Account, Target: t.Name})
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}

func loginOf(i *iscsi.SessionInfo) Login {
	return Login{Address: i.Address, Initiator: i.Initiator, Account: i.Account, Target: i.Target, TSIH: i.TSIH}
}

func (o *Options) opened() func(iscsi.SessionInfo) {
	if o.LoggedIn == nil {
		return nil
	}
	return func(i iscsi.SessionInfo) { o.LoggedIn(loginOf(&i)) }
}

func (o *Options) ended() func(iscsi.SessionInfo, error) {
	if o.LoggedOut == nil {
		return nil
	}
	return func(i iscsi.SessionInfo, why error) { o.LoggedOut(loginOf(&i), why) }
}
