// SPDX-License-Identifier: Apache-2.0

// Package systemd is the lab's suite under systemd as PID 1: gotgtd installed from its
// package, started by its socket after boot, reloaded, replaced, broken, killed and
// hung while the kernel's initiator, in the same machine, does I/O on it.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
)

// Suite is the suite.
var Suite = lab.Suite{Name: "systemd", Title: "gotgtd as a service of systemd", Run: run}

// iqn is the target of the example configuration, which is installed.
const (
	iqn = "iqn.2015-02.com.stu31:t1"
	lun = 1
)

// scene is the machine, what it runs, and the I/O on that.
type scene struct {
	*lab.Lab
	host     *lab.Machine
	portal   string
	packages []string // of one version after the other
	unit     string   // the service
	io       *lab.IO
}

func run(ctx context.Context, l *lab.Lab) error {
	s := &scene{Lab: l, host: l.Machine(lab.MachineOptions{Number: 1})}
	s.portal = s.host.Address() + ":3260"
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"make packages from a tarball, two versions", s.makePackages},
		{"boot", s.host.Boot},
		{"apt install in the machine", s.install},
		{"shut down", s.host.PowerOff},
		{"boot with the socket enabled", s.host.Boot},
		{"the socket listens, nothing serves", s.socketAlone},
	} {
		if err := l.Step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	if err := s.supervised(ctx); err != nil {
		return err
	}
	if err := s.direct(ctx); err != nil {
		return err
	}
	return l.Step(ctx, "apt purge leaves the disk and nothing else", s.purge)
}

// begin logs in and starts the I/O.
func (s *scene) begin(ctx context.Context, name string) error {
	err := s.Step(ctx, "log in, which starts "+s.unit, func(ctx context.Context) error {
		if err := s.host.Login(ctx, iqn, s.portal); err != nil {
			return err
		}
		_, err := s.host.Run(ctx, "systemctl is-active "+s.unit)
		return err
	})
	if err != nil {
		return err
	}
	return s.Step(ctx, "I/O", func(ctx context.Context) error {
		device, err := s.host.Device(ctx, iqn, s.portal, lun)
		if err != nil {
			return err
		}
		s.io, err = s.host.StartIO(ctx, name, device, 0)
		return err
	})
}

// end stops the I/O and logs out.
func (s *scene) end(ctx context.Context) error {
	return s.Step(ctx, "no I/O has failed; log out", func(ctx context.Context) error {
		return errors.Join(s.io.Stop(), s.host.Logout(ctx, iqn, s.portal))
	})
}

// calm does f, during which the initiator must not notice anything: it returns how long the
// slowest operation took.
func (s *scene) calm(ctx context.Context, f func(context.Context) error) (worst time.Duration, err error) {
	if _, err := s.io.Check(ctx); err != nil {
		return 0, err
	}
	watch, err := s.host.Watch(ctx)
	if err != nil {
		return 0, err
	}
	if err := f(ctx); err != nil {
		return 0, err
	}
	worst, err = s.io.Check(ctx)
	return worst, errors.Join(err, watch.Undisturbed(ctx))
}

// shaken does f, which ends the process that serves: the initiator notices it, recovers
// by itself and finishes every operation. It is an error too if nothing is to be noticed,
// for then the checks of calm would be worth nothing.
func (s *scene) shaken(ctx context.Context, event string, f func(context.Context) error) error {
	if _, err := s.io.Check(ctx); err != nil {
		return err
	}
	watch, err := s.host.Watch(ctx)
	if err != nil {
		return err
	}
	s.Mark(event)
	if err := f(ctx); err != nil {
		return err
	}
	worst, err := s.io.Check(ctx)
	if err != nil {
		return err
	}
	if watch.Undisturbed(ctx) == nil {
		return fmt.Errorf("the initiator has not noticed that the process has ended")
	}
	s.Figure("longest operation: "+event, "%.1f s", worst.Seconds())
	return watch.Recovered(ctx)
}
