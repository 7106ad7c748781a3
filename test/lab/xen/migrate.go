// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/lab/counter"
)

// evidence is what there is of the guest's life.
type evidence struct {
	guest    *guest
	arrivals []counter.Arrival
	watches  [2]*lab.Watch // since before the guest was started
	sessions []string      // at the target, then
}

// migrate starts the guest, moves it to the other host and back, with upgrades before,
// during and after each, and shuts it down.
func (s *scenario) migrate(ctx context.Context) (e *evidence, err error) {
	follow, err := startFollower(s.disk)
	if err != nil {
		return nil, err
	}
	e = new(evidence)
	defer func() {
		var followErr error
		e.arrivals, followErr = follow.stop()
		err = errors.Join(err, followErr)
	}()
	counting := func(do func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := do(ctx); err != nil {
				return err
			}
			return follow.progress(ctx)
		}
	}
	create := counting(func(ctx context.Context) (err error) {
		e.guest, err = createGuest(ctx, s.hosts, 0)
		return err
	})
	upgrade := counting(s.upgrade)
	move := counting(func(ctx context.Context) error { return s.move(ctx, e.guest) })
	return e, s.steps(ctx, []step{
		{"the initiators' sessions are noted", func(ctx context.Context) (err error) {
			e.watches, e.sessions, err = s.watch(ctx)
			return err
		}},
		{"xl create on host1, and the guest counts", create},
		{"upgrade before the migration to host2", upgrade},
		{"xl migrate to host2, with upgrades", move},
		{"upgrade after the migration to host2", upgrade},
		{"upgrade before the migration to host1", upgrade},
		{"xl migrate to host1, with upgrades", move},
		{"upgrade after the migration to host1", upgrade},
		{"the guest shuts down", func(ctx context.Context) error { return e.guest.shutdown(ctx) }},
	})
}

// move migrates the guest with upgrades meanwhile.
func (s *scenario) move(ctx context.Context, g *guest) error {
	s.lab.Mark("migration")
	upgrades, err := s.upgradeWhile(ctx, g.migrate)
	if err != nil {
		return err
	}
	s.lab.Mark("migrated")
	m := g.moves[len(g.moves)-1]
	s.lab.Figure("migration to "+g.hosts[g.at].Name(), "%.1f s, %d upgrades in it", m.end.Sub(m.start).Seconds(), upgrades)
	if upgrades == 0 {
		return errors.New("the migration was over before an upgrade was")
	}
	return nil
}

// watch notes how the initiators of both hosts stand, and how the target sees them.
func (s *scenario) watch(ctx context.Context) (watches [2]*lab.Watch, sessions []string, err error) {
	for i, host := range s.hosts {
		if watches[i], err = host.Watch(ctx); err != nil {
			return watches, nil, err
		}
	}
	sessions, err = s.sessions(ctx)
	return watches, sessions, err
}

// sessions is what the target says of its sessions that must never change.
func (s *scenario) sessions(ctx context.Context) ([]string, error) {
	out, err := s.target.Ask(ctx, "sessions")
	if err != nil {
		return nil, err
	}
	var list []struct {
		Initiator   string    `json:"initiator_name"`
		ISID        string    `json:"isid"`
		TSIH        uint16    `json:"tsih"`
		Started     time.Time `json:"started"`
		Connections []struct {
			CID    uint16 `json:"cid"`
			Remote string `json:"remote"`
		} `json:"connections"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, fmt.Errorf("can't read what gotgtd sessions says: %w", err)
	}
	var lines []string
	for _, e := range list {
		lines = append(lines, fmt.Sprintf("%s ISID %s TSIH %d since %s, connections %v", e.Initiator, e.ISID, e.TSIH, e.Started.Format(time.TimeOnly), e.Connections))
	}
	slices.Sort(lines)
	if len(lines) != len(s.hosts) {
		return nil, fmt.Errorf("the target has %d sessions: %q", len(lines), lines)
	}
	return lines, nil
}
