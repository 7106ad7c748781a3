// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

// control is the scenario with tgt in gotgtd's place, restarted instead of upgraded.
type control struct {
	*scenario
	tgt     *peer.Tgt
	watches [2]*lab.Watch
}

// control shows that the check of the initiators can fail: here it has to.
func (s *scenario) control(ctx context.Context) (err error) {
	c := &control{scenario: s}
	defer func() {
		if c.tgt != nil {
			err = errors.Join(err, c.tgt.Stop())
		}
	}()
	return s.steps(ctx, []step{
		{"control: tgt serves the disk in gotgtd's place", c.replace},
		{"control: both hosts log in", s.login},
		{"control: tgt is restarted while the guest counts", c.restart},
		{"control: the check of the initiators fails", c.disturbed},
	})
}

// replace puts tgt into gotgtd's place.
func (c *control) replace(ctx context.Context) error {
	if err := c.each(ctx, func(ctx context.Context, i int) error { return c.hosts[i].Logout(ctx, peer.IQN, portal) }); err != nil {
		return err
	}
	if err := c.target.Stop(); err != nil {
		return err
	}
	// The counter wants empty slots.
	if err := errors.Join(os.Truncate(c.disk, counterOffset), os.Truncate(c.disk, diskSize)); err != nil {
		return err
	}
	return c.start(ctx)
}

func (c *control) start(ctx context.Context) (err error) {
	c.tgt, err = peer.StartTgt(ctx, peer.Options{Config: c.targetsConf(), Dir: c.lab.Dir, Address: portal})
	return err
}

// restart starts the guest and restarts tgt while it counts.
func (c *control) restart(ctx context.Context) (err error) {
	follow, err := startFollower(c.disk)
	if err != nil {
		return err
	}
	defer func() {
		_, followErr := follow.stop()
		err = errors.Join(err, followErr)
	}()
	if _, err := createGuest(ctx, c.hosts, 0); err != nil {
		return err
	}
	if err := follow.progress(ctx); err != nil {
		return err
	}
	for i, host := range c.hosts {
		if c.watches[i], err = host.Watch(ctx); err != nil {
			return err
		}
	}
	return errors.Join(c.tgt.Stop(), c.start(ctx))
}

// disturbed waits until the initiators have logged what happened and are logged in again,
// and returns an error if one passes the check that it has to fail. The guest may have come to grief: tgtd
// takes logins before it has its logical units.
func (c *control) disturbed(ctx context.Context) error {
	return c.each(ctx, func(ctx context.Context, i int) error {
		err := peer.Until(ctx, func() error {
			lines, err := c.watches[i].Disturbances(ctx)
			if err == nil && len(lines) == 0 {
				err = fmt.Errorf("%s: nothing was noticed of the restart", c.hosts[i].Name())
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := c.watches[i].Recovered(ctx); err != nil {
			return err
		}
		if err := c.watches[i].Undisturbed(ctx); err == nil {
			return fmt.Errorf("%s: the check passes", c.hosts[i].Name())
		}
		return nil
	})
}
