// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"fmt"
)

// direct is what gotgtd-direct.service goes through, without upgraded.
func (s *scene) direct(ctx context.Context) error {
	err := s.Step(ctx, "change to gotgtd-direct", func(ctx context.Context) error {
		_, err := s.host.Run(ctx, "systemctl disable --now gotgtd.socket gotgtd.service && systemctl enable --now gotgtd-direct.socket")
		return err
	})
	if err != nil {
		return err
	}
	s.unit = "gotgtd-direct.service"
	if err := s.begin(ctx, "I/O, gotgtd-direct.service"); err != nil {
		return err
	}
	s.reloads(ctx, s.reloadDirect)
	for _, b := range breakages {
		s.Step(ctx, "a direct reload that fails: "+b.what, func(ctx context.Context) error { return s.failingReload(ctx, b) })
	}
	s.Step(ctx, "gotgtd is killed, directly under systemd", func(ctx context.Context) error {
		return s.shaken(ctx, "kill of gotgtd, direct", func(ctx context.Context) error { return s.signalMain(ctx, "KILL") })
	})
	if !s.Short {
		s.Step(ctx, "gotgtd hangs, directly under systemd", func(ctx context.Context) error {
			return s.shaken(ctx, "systemd's watchdog, direct", func(ctx context.Context) error { return s.signalMain(ctx, "STOP") })
		})
	}
	return s.end(ctx)
}

// reloadDirect has systemd follow the main process from one generation to the next.
func (s *scene) reloadDirect(ctx context.Context) error {
	before, err := s.mainPID(ctx)
	if err != nil {
		return err
	}
	if _, err := s.host.Run(ctx, "systemctl reload "+s.unit); err != nil {
		return err
	}
	after, err := s.mainPID(ctx)
	if err != nil {
		return err
	}
	if after == before || after == 0 {
		return fmt.Errorf("the main process was %d before the reload, and is %d", before, after)
	}
	return nil
}
