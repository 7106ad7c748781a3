// SPDX-License-Identifier: Apache-2.0

// Package xen is the lab's suite of the scenario that gotgtd is made for: two Xen hosts
// share a logical unit, a guest that has its root disk there moves from one to
// the other and back while it writes, and gotgtd is upgraded all the while.
package xen

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

// Suite is the suite.
var Suite = lab.Suite{
	Name: "xen", Title: "a guest migrates between two Xen hosts, its disk on gotgtd", Run: run,
	// A migration copies what the guest changes meanwhile, which takes both hosts, a processor for each.
	Alone: true,
}

// portal is where the target serves.
const portal = lab.HostAddress + ":3260"

// Where the counter is on the disk, and the whole disk's size, in bytes: as disk.sh has it.
const (
	counterOffset = 1 << 30
	counterSize   = 64 << 20
	diskSize      = counterOffset + counterSize
)

// counterProgram is where the hosts have the program that checks the counter.
const counterProgram = "/run/lab-counter"

// scenario is what the suite's steps share.
type scenario struct {
	lab     *lab.Lab
	hosts   [2]*lab.Machine
	device  [2]string // the logical unit on each host
	disk    string    // the logical unit's file
	target  *lab.Target
	longest time.Duration // of the pauses that gotgtd reports of its upgrades
}

// targetsConf is the logical unit in the language of tgt, for the hosts' network.
func (s *scenario) targetsConf() string {
	return fmt.Sprintf("<target %s>\n    backing-store %s\n    initiator-address 172.16.31.0/24\n</target>\n", peer.IQN, s.disk)
}

func run(ctx context.Context, l *lab.Lab) error {
	s := &scenario{lab: l, disk: filepath.Join(l.Dir, "busybox.img")}
	for i := range s.hosts {
		s.hosts[i] = l.Machine(lab.MachineOptions{Number: i + 1, Xen: true})
	}
	err := s.steps(ctx, []step{
		{"the guest's disk is made", s.makeDisk},
		{"gotgtd serves it", s.serve},
		{"both hosts boot", s.boot},
		{"both hosts log in", s.login},
	})
	if err != nil {
		return err
	}
	e, err := s.migrate(ctx)
	if err != nil {
		return err
	}
	s.check(ctx, e)
	if l.Short {
		return nil
	}
	return s.control(ctx)
}

type step struct {
	name string
	do   func(context.Context) error
}

// steps does one step after the other until one fails.
func (s *scenario) steps(ctx context.Context, steps []step) error {
	for _, step := range steps {
		if err := s.lab.Step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for both hosts at once.
func (s *scenario) each(ctx context.Context, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range s.hosts {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}

func (s *scenario) makeDisk(ctx context.Context) error {
	_, err := peer.Run(ctx, "test/lab/xen/disk.sh", s.disk, s.lab.Program("counter"))
	return err
}

func (s *scenario) serve(ctx context.Context) (err error) {
	s.target, err = s.lab.StartTarget(ctx, "gotgtd", s.targetsConf(), portal)
	return err
}

func (s *scenario) boot(ctx context.Context) error {
	return s.each(ctx, func(ctx context.Context, i int) error { return s.hosts[i].Boot(ctx) })
}

// login has both hosts log in, and furnishes them with what they need for the guest.
func (s *scenario) login(ctx context.Context) error {
	return s.each(ctx, func(ctx context.Context, i int) error {
		host := s.hosts[i]
		if err := host.Login(ctx, peer.IQN, portal); err != nil {
			return err
		}
		var err error
		if s.device[i], err = host.Device(ctx, peer.IQN, portal, 1); err != nil {
			return err
		}
		return errors.Join(
			host.Put(ctx, s.lab.Program("counter"), counterProgram),
			host.PutText(ctx, guestConfig(lab.DevicePath(peer.IQN, portal, 1)), guestFile, 0o644))
	})
}

// upgrade replaces gotgtd's file by a copy and upgrades to it.
func (s *scenario) upgrade(ctx context.Context) error {
	if err := s.target.Install(s.lab.Program("gotgtd")); err != nil {
		return err
	}
	pause, err := s.target.Upgrade(ctx)
	s.longest = max(s.longest, pause)
	return err
}

// upgradePause is the time between two upgrades while a guest migrates.
const upgradePause = 5 * time.Second

// upgradeWhile upgrades again and again while f runs, and returns how often.
func (s *scenario) upgradeWhile(ctx context.Context, f func(context.Context) error) (upgrades int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	pause := time.NewTicker(upgradePause)
	defer pause.Stop()
	for {
		if err := s.upgrade(ctx); err != nil {
			cancel()
			return upgrades, errors.Join(err, <-done)
		}
		select {
		case err := <-done:
			return upgrades, err
		default:
			upgrades++ // began and ended while f ran
		}
		select {
		case err := <-done:
			return upgrades, err
		case <-pause.C:
		}
	}
}
