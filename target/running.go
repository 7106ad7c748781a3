// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Running describes what the Server serves and to whom, for a [plan.Plan].
func (s *Server) Running() *plan.Running {
	r := &plan.Running{Targets: []plan.Target{}, Sessions: []plan.Session{}}
	for _, i := range s.node.Sessions() {
		if i.Target == "" {
			continue
		}
		session := plan.Session{TSIH: i.TSIH, Initiator: i.Initiator, Target: i.Target, LastIO: i.LastIO, Account: i.Account, From: i.Address, Masked: i.Masked}
		if len(i.Connections) > 0 {
			session.Address = i.Connections[0].Remote.String()
		}
		r.Sessions = append(r.Sessions, session)
	}
	for _, t := range s.targetList() {
		r.Targets = append(r.Targets, t.running())
	}
	return r
}

func (t *served) running() plan.Target {
	list := plan.Target{Name: t.conf.Name, TID: t.conf.TID, Settings: t.conf.Settings(), LUNs: []plan.LUN{}}
	confs := t.lunConfigs()
	for _, u := range t.device.LogicalUnits() {
		if isController(u.Unit) {
			continue
		}
		i := u.Unit.Info()
		l := plan.LUN{
			LUN: u.Number, Path: i.StorePath, Store: u.Unit.Store().Info().ID, Size: i.Size, BlockSize: i.BlockSize,
			NAA: i.NAA, LocalNAA: i.LocalNAA, SCSIID: i.SCSIID, Serial: i.Serial, Vendor: i.Vendor, Product: i.Product,
			LastIO: u.Unit.LastIO(), Holders: u.Unit.Holders(), Error: lateReason(u.Unit),
		}
		if c := confs[u.Number]; c != nil {
			l.Backend, l.Path, l.Settings = c.Backend, c.Path, c.Settings(t.conf.Name)
		}
		list.LUNs = append(list.LUNs, l)
	}
	return list
}

// lunConfigs are the configurations of the logical units by their numbers; those
// that an embedding program has attached have none.
func (t *served) lunConfigs() map[uint16]*config.LUN {
	confs := make(map[uint16]*config.LUN, len(t.conf.LUNs))
	for i := range t.conf.LUNs {
		confs[t.conf.LUNs[i].Number] = &t.conf.LUNs[i]
	}
	return confs
}

// Look is how a [plan.Plan] finds out what a logical unit of a configuration
// would open.
func Look(l *config.LUN) (id string, size int64, err error) {
	switch _, name, _ := strings.Cut(l.Backend, ":"); {
	case l.Backend == "ram":
		return "", l.Size, nil
	case l.Backend == "", l.Backend == "file":
		return storage.Identify(l.Path)
	default:
		return name + ":" + l.Path, l.Size, nil
	}
}

// sampleInterval is how exact the times of the last reads and writes are.
const sampleInterval = 5 * time.Second

// sample notes when blocks were moved, until the Server closes.
func (s *Server) sample() {
	defer s.background.Done()
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			for _, t := range s.targetList() {
				for _, u := range t.device.LogicalUnits() {
					u.Unit.LastIO()
				}
			}
			s.node.SampleIO()
		}
	}
}

// ReplacedError is a successor's configuration that puts another disk in the
// place of one that a session uses.
type ReplacedError struct {
	Target  string
	LUN     uint16
	Why     string // what tells the disks apart
	Session string // one of those that use it
}

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("target %s LUN %d would be another disk (%s) than the one that %s uses: log that session out first, or force it",
		e.Target, e.LUN, e.Why, e.Session)
}

// replacements refuses what would put another disk under a session, unless
// it is forced, and what would take the disk from under it: without its store, which
// the predecessor has open, it is not ready. It is the last door: a plan has looked before
// anything was opened, but an initiator can log in meanwhile, and an embedding program makes no plan.
func (t *taker) replacements(state *iscsi.NodeState, devices map[string]scsi.DeviceState) error {
	if t.server.options.Force {
		return nil
	}
	var errs []error
	for _, st := range t.server.targets {
		i := slices.IndexFunc(state.Sessions, func(s iscsi.SessionState) bool { return s.Target == st.conf.Name })
		if i < 0 {
			continue
		}
		user := fmt.Sprintf("%s (TSIH %d)", plan.Printable(state.Sessions[i].Initiator), state.Sessions[i].TSIH)
		for _, r := range st.device.Replaced() {
			errs = append(errs, &ReplacedError{st.conf.Name, r.Number, r.Why, user})
		}
		errs = append(errs, st.lost(devices[st.conf.Name], user)...)
	}
	return errors.Join(errs...)
}

// lost are the disks of a target that the predecessor serves, to a user among others, and
// whose stores can't be opened now.
func (t *served) lost(was scsi.DeviceState, user string) []error {
	var errs []error
	for _, u := range t.device.LogicalUnits() {
		why := lateReason(u.Unit)
		i := slices.IndexFunc(was.Units, func(s scsi.UnitState) bool { return s.LUN == u.Number })
		if why != "" && i >= 0 && !was.Units[i].Absent && !was.Units[i].Controller {
			errs = append(errs, fmt.Errorf("target %s LUN %d, which %s uses, would not be ready: %s: mend that, log that session out first, or force it",
				t.conf.Name, u.Number, user, why))
		}
	}
	return errs
}

// settleDevices makes lasting what the devices have found different.
func (t *taker) settleDevices() {
	for _, st := range t.server.targets {
		for _, r := range st.device.Replaced() {
			t.server.log.Warn("another disk than before", "target", st.conf.Name, "lun", r.Number, "why", r.Why)
		}
		if err := st.device.Settle(); err != nil {
			t.server.log.Error("reservations of a disk that was replaced are not forgotten", "target", st.conf.Name, "error", err)
		}
	}
}
