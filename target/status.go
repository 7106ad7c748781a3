// SPDX-License-Identifier: Apache-2.0

package target

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/iscsi/tally"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/scsi/latency"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Status is what a Server serves and to whom, for people and programs. Its
// JSON form is an interface: fields are only ever added.
type Status struct {
	Started  time.Time       `json:"started"` // of this process
	Portals  []PortalStatus  `json:"portals"`
	Targets  []TargetStatus  `json:"targets"`
	Sessions []SessionStatus `json:"sessions"`
	Memory   int64           `json:"memory"` // bytes that initiators have

	MemoryLimit   int64 `json:"memory_limit"`   // what initiators may have
	MemoryWaiting int   `json:"memory_waiting"` // commands that wait for memory

	Workers     int          `json:"workers"`      // commands that may block and can be executed at once
	WorkersBusy int          `json:"workers_busy"` // commands that are
	Totals      tally.Totals `json:"totals"`       // what has become of logins and connections, over upgrades

	LatencyBounds []time.Duration `json:"latency_bounds,omitempty"` // of all buckets of durations but the last, in nanoseconds

	Rejections []RejectionStatus `json:"rejections,omitempty"` // initiators whose session was ended, and that may not log in yet
}

// PortalStatus is a listening socket.
type PortalStatus struct {
	Group   uint16         `json:"group"` // portal group tag
	Address netip.AddrPort `json:"address"`
	Name    string         `json:"name,omitempty"` // of a passed socket

	Announce []string `json:"announce,omitempty"` // what discovery tells instead of Address
}

// TargetStatus is a target with its logical units.
type TargetStatus struct {
	TID         int         `json:"tid"`
	Name        string      `json:"name"`
	Alias       string      `json:"alias,omitempty"`
	State       string      `json:"state"` // "ready" or "offline"
	Groups      []uint16    `json:"groups,omitempty"`
	LUNs        []LUNStatus `json:"luns"`
	Accounts    []string    `json:"accounts"` // CHAP names of initiators
	OutAccount  string      `json:"outgoing_account,omitempty"`
	ACL         []string    `json:"acl"` // addresses and names that may log in; "ALL" for everyone
	SessionTSIH []uint16    `json:"sessions"`

	Initiators []scsi.Share `json:"initiators,omitempty"` // what each has moved, by logical unit, over sessions and upgrades
}

// LUNStatus is a logical unit.
type LUNStatus struct {
	LUN uint16 `json:"lun"`
	scsi.UnitInfo
	Error      string         `json:"error,omitempty"`               // why the backing store is not open
	Lost       string         `json:"reservations_lost,omitempty"`   // why reservations that were to persist could not be read
	StoreFlags string         `json:"backing_store_flags,omitempty"` // "sync", "direct" or "sync:direct"
	ACL        []string       `json:"acl,omitempty"`                 // which initiators see it, as the target's; left out: all
	Counters   scsi.Counters  `json:"counters"`
	Space      *storage.Space `json:"space,omitempty"`   // of the backing store, as of the last seconds; left out: not known
	Inflight   int            `json:"inflight"`          // commands that are under way
	Activity   scsi.Activity  `json:"activity,omitzero"` // commands by kind, how long they took, and how they failed

	Reservation *scsi.Reservation `json:"reservation,omitempty"` // left out: nobody holds one or is registered
}

// SessionStatus is a session.
type SessionStatus struct {
	Initiator   string             `json:"initiator_name"`
	Alias       string             `json:"alias,omitempty"`
	Account     string             `json:"account,omitempty"` // CHAP name that it has proved
	Target      string             `json:"target"`            // empty for a discovery session
	ISID        string             `json:"isid"`              // twelve hexadecimal digits
	TSIH        uint16             `json:"tsih"`
	Group       uint16             `json:"group"`
	Started     time.Time          `json:"started"`
	Connections []ConnectionStatus `json:"connections"`
	Tasks       int                `json:"tasks"`
	Counters    scsi.Counters      `json:"counters"`
	Masked      []uint16           `json:"masked,omitempty"` // LUNs that it does not see
	Params      iscsi.Params       `json:"params"`
}

// ConnectionStatus is a connection of a session.
type ConnectionStatus struct {
	CID          uint16         `json:"cid"`
	Local        netip.AddrPort `json:"local"`
	Remote       netip.AddrPort `json:"remote"`
	HeaderDigest bool           `json:"header_digest"`
	DataDigest   bool           `json:"data_digest"`
}

// Started is when the Server was made.
func (s *Server) Started() time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.started
}

// Status returns the state of the Server now.
func (s *Server) Status() Status {
	if s == nil {
		return Status{Portals: []PortalStatus{}, Targets: []TargetStatus{}, Sessions: []SessionStatus{}, Totals: new(tally.Tally).Load()}
	}
	st := Status{Started: s.started, Portals: s.portalStatus(), Targets: []TargetStatus{}, Sessions: []SessionStatus{}, Memory: s.node.MemoryUsed(), MemoryLimit: s.node.MemoryLimit(), MemoryWaiting: s.node.MemoryWaiting(), LatencyBounds: latency.Bounds(), Rejections: s.rejections()}
	st.Totals = s.node.Totals()
	st.Workers, st.WorkersBusy = s.node.Workers()
	byTarget := make(map[string][]uint16)
	inflight := make(map[string]map[uint16]int)
	for _, i := range s.node.Sessions() {
		byTarget[i.Target] = append(byTarget[i.Target], i.TSIH)
		st.Sessions = append(st.Sessions, sessionStatus(&i))
		for lun, n := range i.Inflight {
			if inflight[i.Target] == nil {
				inflight[i.Target] = make(map[uint16]int)
			}
			inflight[i.Target][lun] += n
		}
	}
	for _, t := range s.targetList() {
		st.Targets = append(st.Targets, t.status(byTarget[t.conf.Name], inflight[t.conf.Name]))
	}
	return st
}

func sessionStatus(i *iscsi.SessionInfo) SessionStatus {
	st := SessionStatus{
		Initiator: i.Initiator, Alias: i.Alias, Account: i.Account, Target: i.Target, ISID: hex.EncodeToString(i.ISID[:]), TSIH: i.TSIH, Group: i.Group,
		Started: i.Started, Tasks: i.Tasks, Counters: i.Counters, Params: i.Params, Masked: i.Masked, Connections: []ConnectionStatus{},
	}
	for _, c := range i.Connections {
		st.Connections = append(st.Connections, ConnectionStatus(c))
	}
	return st
}

func (t *served) status(sessions []uint16, inflight map[uint16]int) TargetStatus {
	st := TargetStatus{
		TID: t.conf.TID, Name: t.conf.Name, Alias: t.conf.Alias, State: "ready", Groups: t.conf.PortalGroups,
		LUNs: []LUNStatus{}, Accounts: []string{}, ACL: t.conf.Access.List(), SessionTSIH: append([]uint16{}, sessions...),
	}
	st.Initiators = t.device.Shares()
	if t.conf.Offline {
		st.State = "offline"
	}
	for _, u := range t.conf.Auth.Users {
		st.Accounts = append(st.Accounts, u.User)
	}
	if o := t.conf.Auth.Outgoing; o != nil {
		st.OutAccount = o.User
	}
	confs := t.lunConfigs()
	for _, u := range t.device.LogicalUnits() {
		status := LUNStatus{
			LUN: u.Number, UnitInfo: u.Unit.Info(), Error: lateReason(u.Unit),
			Counters: u.Unit.Counters(), ACL: viewers(confs[u.Number]), StoreFlags: storeFlags(confs[u.Number]),
			Reservation: u.Unit.Reservation(),
			Inflight:    inflight[u.Number], Activity: u.Unit.Activity(), Space: u.Unit.Space(),
		}
		if err := u.Unit.ReservationsLost(); err != nil {
			status.Lost = err.Error()
		}
		st.LUNs = append(st.LUNs, status)
	}
	return st
}

// viewers returns the access list of a logical unit, nil if everyone sees it.
func viewers(l *config.LUN) []string {
	if l == nil || l.Access.Everyone() {
		return nil
	}
	return l.Access.List()
}

// storeFlags returns how a backing store is opened, in tgt's words.
func storeFlags(l *config.LUN) string {
	var flags []string
	if l != nil && l.Sync {
		flags = append(flags, "sync")
	}
	if l != nil && l.Direct {
		flags = append(flags, "direct")
	}
	return strings.Join(flags, ":")
}
