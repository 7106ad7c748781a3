// SPDX-License-Identifier: Apache-2.0

// Package systemd is the lab's suite under systemd as PID 1: gotgtd installed as a
// package would do it, started by its socket at boot, reloaded, broken, killed and
// hung while the kernel's initiator in the same machine does I/O on it.
package systemd

import (
	"context"

	"github.com/gotgtd/gotgtd/test/lab"
)

// Suite is the suite.
var Suite = lab.Suite{Name: "systemd", Title: "gotgtd as a service of systemd", Run: run}

func run(ctx context.Context, l *lab.Lab) error {
	host := l.Machine(lab.MachineOptions{Number: 1})
	if err := l.Step(ctx, "boot", host.Boot); err != nil {
		return err
	}
	return l.Step(ctx, "systemd has started everything", func(ctx context.Context) error {
		_, err := host.Run(ctx, "systemctl is-system-running")
		return err
	})
}
