// SPDX-License-Identifier: Apache-2.0

// Package plan works out what a change of the configuration would do to a
// running target, before anything is done: which targets and logical units come,
// change and go, what the initiators that are logged in see of it, and what
// would hurt them and is therefore refused unless somebody insists.
//
// It is a comparison of two descriptions and nothing else: [Running] is what
// serves, a [config.Config] is what is wanted.
package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/gotgtd/gotgtd/internal/iscsiname"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// Running describes what a process serves, to whom.
type Running struct {
	Targets  []Target  `json:"targets"`
	Sessions []Session `json:"sessions"`

	// Now is the clock of the process that tells this, for comparison with the times below: they
	// are told by the clock as it is set, so that setting it brings nobody's disk out of use. A
	// process that does not tell leaves it out.
	Now time.Time `json:"now,omitzero"`

	// Portals are those of the configuration. A process that does not tell, or
	// whose command line says where it listens, leaves them out.
	Portals []Portal `json:"portals,omitzero"`

	// Metrics say where Prometheus can ask. A process that does not tell leaves them out.
	Metrics *Metrics `json:"metrics,omitempty"`

	// Noted are the numbers that are kept for what is gone. A process without a state
	// folder has none.
	Noted config.Numbers `json:"noted,omitempty"`

	// StateDir is the state folder, and Unwritable why no file can be written there, empty if one
	// can: numbers that are given can't be kept over a restart.
	StateDir   string `json:"state_dir,omitempty"`
	Unwritable string `json:"unwritable,omitempty"`

	// Overlay is what tgtadm has changed: it is on top of whatever is wanted next.
	Overlay *overlay.Overlay `json:"overlay,omitempty"`
}

// Target is a target that is served.
type Target struct {
	Name     string          `json:"name"`
	TID      int             `json:"tid"`
	Settings config.Settings `json:"settings"`
	LUNs     []LUN           `json:"luns"`
}

// LUN is a logical unit that is served, but for controllers.
type LUN struct {
	LUN       uint16 `json:"lun"`
	Backend   string `json:"backend"`
	Path      string `json:"path"`
	Store     string `json:"store"` // storage.Info.ID; empty if nothing tells it
	Size      int64  `json:"size"`  // bytes
	BlockSize int    `json:"block_size"`
	scsi.Identity
	Settings config.Settings `json:"settings"`
	Error    string          `json:"error,omitempty"`   // why the store is not open
	LastIO   time.Time       `json:"last_io"`           // zero: never
	Holders  []string        `json:"holders,omitempty"` // initiators that hold a reservation or are registered
}

// Session is a session of a target; discovery sessions are none.
type Session struct {
	TSIH      uint16    `json:"tsih"`
	Initiator string    `json:"initiator_name"`
	Target    string    `json:"target"`
	Address   string    `json:"address"`
	LastIO    time.Time `json:"last_io"` // zero: never

	Group   uint16     `json:"group,omitempty"`   // portal group tag; a process that did not tell leaves it out
	Account string     `json:"account,omitempty"` // CHAP name
	From    netip.Addr `json:"from,omitzero"`     // where its first connection came from; a process that did not tell leaves it out
	Masked  []uint16   `json:"masked,omitempty"`  // numbers of logical units that it does not see, in order
	Leaving bool       `json:"leaving,omitempty"` // it was asked to log out
}

// String names the session as the commands do.
func (s *Session) String() string {
	return fmt.Sprintf("%s at %s (TSIH %d)", Printable(s.Initiator), s.Address, s.TSIH)
}

// Printable is a name that an initiator has given itself, for people: what ends a line, moves
// a terminal's cursor or ends a word would let it write into a plan.
func Printable(name string) string {
	return strings.ReplaceAll(iscsiname.Printable(name, 2*iscsiname.MaxLen), " ", string(unicode.ReplacementChar))
}

// Numbers returns the numbers that are given, those that are kept for what is gone
// among them.
func (r *Running) Numbers() config.Numbers {
	n := config.Numbers{}
	if r == nil {
		return n
	}
	n.Add(r.Noted)
	for _, t := range r.Targets {
		for _, l := range t.LUNs {
			n.Set(t.Name, t.TID, l.Path, l.LUN)
			if l.Store != "" && l.Error == "" { // it is open, so nothing else can have its ID
				n.SetStore(t.Name, l.Store, config.StoreNumber{LUN: l.LUN})
			}
		}
		n.Set(t.Name, t.TID, "", 0)
	}
	return n
}

// sessions returns the sessions of a target.
func (r *Running) sessions(target string) []*Session {
	var list []*Session
	for i := range r.Sessions {
		if r.Sessions[i].Target == target {
			list = append(list, &r.Sessions[i])
		}
	}
	return list
}

// NotOpen tells whether a logical unit runs without its store, which can't be
// opened.
func (r *Running) NotOpen(target string, lun uint16) bool {
	if r == nil {
		return false
	}
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Name == target {
			return slices.ContainsFunc(t.LUNs, func(l LUN) bool { return l.LUN == lun && l.Error != "" })
		}
	}
	return false
}
