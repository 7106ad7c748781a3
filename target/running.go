// SPDX-License-Identifier: Apache-2.0

package target

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/storage"
)

// Running describes what the Server serves and to whom, for a [plan.Plan].
func (s *Server) Running() *plan.Running {
	r := &plan.Running{Targets: []plan.Target{}, Sessions: []plan.Session{}}
	if s == nil {
		return r
	}
	for _, i := range s.node.Sessions() {
		if i.Target == "" {
			continue
		}
		session := plan.Session{TSIH: i.TSIH, Initiator: i.Initiator, Target: i.Target, LastIO: i.LastIO, Group: i.Group, Account: i.Account, From: i.Address, Masked: i.Masked, Leaving: i.Leaving}
		if len(i.Connections) > 0 {
			session.Address = i.Connections[0].Remote.String()
		}
		r.Sessions = append(r.Sessions, session)
	}
	for _, t := range s.targetList() {
		r.Targets = append(r.Targets, t.running())
	}
	r.Now = time.Now()
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
			LUN: u.Number, Path: i.StorePath, Store: u.Unit.StoreID(), Size: i.Size, BlockSize: i.BlockSize,
			Identity: i.Identity(), LastIO: u.Unit.LastIO(), Holders: u.Unit.Holders(), Error: lateReason(u.Unit),
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
func Look(l *config.LUN, fit bool) (id string, size int64, err error) {
	if l == nil {
		return "", 0, errors.New("there is no logical unit to look at")
	}
	d, name, ok := storage.FindDriver(cmp.Or(l.Backend, "file"))
	if !ok {
		return "", 0, fmt.Errorf("there is no backend %q", l.Backend)
	}
	if fit && d.Check != nil {
		if err := d.Check(name, l.Options); err != nil {
			return "", 0, err
		}
	}
	return d.Look(name, l.Options)
}

// sampleInterval is how exact the times of the last reads and writes are.
const sampleInterval = 5 * time.Second

// every does something at once, and then after each interval, until the Server closes.
func (s *Server) every(interval time.Duration, do func()) {
	defer s.background.Done()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		do()
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sample notes when blocks were moved.
func (s *Server) sample() {
	for _, t := range s.targetList() {
		for _, u := range t.device.LogicalUnits() {
			u.Unit.LastIO()
		}
	}
	s.node.SampleIO()
}

// measureInterval is how old the figures of the space of backing stores get.
const measureInterval = 10 * time.Second

// measure asks backing stores what space they have: the first time at once, so that an upgrade leaves no gap. It is not
// done when somebody looks, since a file system that hangs must keep nobody from looking.
func (s *Server) measure() {
	for _, t := range s.targetList() {
		for _, u := range t.device.LogicalUnits() {
			_ = u.Unit.MeasureSpace(s.ctx) // what is not known is left out
		}
	}
}

// settleDevices logs which disks were replaced, and removes their reservations from stable storage.
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
