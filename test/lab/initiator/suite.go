// SPDX-License-Identifier: Apache-2.0

// Package initiator is the lab's suite of what an administrator does with the Linux
// kernel's initiator: discovery, logins, file systems, SCSI commands, growth,
// logical units that come and go, reservations, multipath. All the while gotgtd is
// upgraded every few seconds, and no machine may notice.
package initiator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gotgtd/gotgtd/test/lab"
)

// Suite is the suite.
var Suite = lab.Suite{Name: "initiator", Title: "the Linux kernel's initiator, while gotgtd is upgraded", Run: run}

func run(ctx context.Context, l *lab.Lab) error {
	t := &trial{lab: l, every: 3 * time.Second}
	t.machines = append(t.machines, l.Machine(lab.MachineOptions{Number: 1}))
	if l.Short {
		t.every = time.Second
	} else {
		t.machines = append(t.machines, l.Machine(lab.MachineOptions{Number: 2}))
	}
	if err := t.start(ctx); err != nil {
		return err
	}
	defer t.stop(ctx)
	t.discover(ctx)
	t.fileSystem(ctx, ext4, plain, digests)
	t.commands(ctx)
	t.grow(ctx)
	if !l.Short {
		t.fileSystem(ctx, xfs, digests, plain)
		t.comeAndGo(ctx)
		t.fence(ctx)
		t.multipath(ctx)
	}
	t.administer(ctx)
	return nil
}

// trial is a run of the suite.
type trial struct {
	lab      *lab.Lab
	machines []*lab.Machine // the first one does what takes one
	every    time.Duration  // between two upgrades

	target   *lab.Target
	serves   serves
	upgrades *upgrades
	load     *lab.IO
	watches  []*lab.Watch // of each machine, since the beginning
	logged   []int        // how many lines of errors each had logged at the last step
	loadSID  string       // the number of its session in the machine
	session  string       // what both sides had of that session at the beginning
}

// start boots the machines, and begins what goes on to the end: I/O on a session of its
// own, and upgrades.
func (t *trial) start(ctx context.Context) error {
	if err := t.boot(ctx); err != nil {
		return err
	}
	err := t.lab.Step(ctx, "gotgtd serves", func(ctx context.Context) (err error) {
		t.serves = serves{secondPortal: true, online: []int{1}}
		t.target, err = t.lab.StartTarget(ctx, "gotgtd", t.serves.config(), portal1)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.startLoad(ctx, digests); err != nil {
		return err
	}
	t.upgrades = startUpgrades(ctx, t.target, t.every)
	return nil
}

func (t *trial) boot(ctx context.Context) error {
	return t.lab.Step(ctx, "boot", func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, m := range t.machines {
			group.Go(func() error { return m.Boot(ctx) })
		}
		return group.Wait()
	})
}

// startLoad begins the I/O, and remembers how everything is now.
func (t *trial) startLoad(ctx context.Context, settings []string) error {
	return t.lab.Step(ctx, fmt.Sprintf("login, digests %s, and I/O that goes on to the end", value(settings)), func(ctx context.Context) error {
		device, err := t.login(ctx, t.machines[0], loadTarget, 1, settings)
		if err != nil {
			return err
		}
		for _, m := range t.machines {
			w, err := m.Watch(ctx)
			if err != nil {
				return err
			}
			t.watches, t.logged = append(t.watches, w), append(t.logged, 0)
		}
		if t.load, err = t.machines[0].StartIO(ctx, "I/O", device, 0); err != nil {
			return err
		}
		if t.loadSID, err = sessionID(ctx, t.machines[0], loadTarget, portal1); err != nil {
			return err
		}
		t.session, err = t.loadSession(ctx)
		return err
	})
}

// stop ends what start began, and does the checks that concern the whole run.
func (t *trial) stop(ctx context.Context) {
	t.lab.Step(ctx, "every upgrade went well", func(ctx context.Context) error {
		n, worst, err := t.upgrades.stop()
		t.lab.Figure("worst pause as gotgtd saw it", "%.1f ms", worst.Seconds()*1000)
		if n == 0 {
			err = errors.Join(err, errors.New("there was no upgrade"))
		}
		return err
	})
	t.step(ctx, "no I/O has failed, and the session is that of the beginning", t.stopLoad)
}

func (t *trial) stopLoad(ctx context.Context) error {
	_, err := t.load.Check(ctx)
	return errors.Join(err, t.load.Stop())
}
