// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"time"
)

// Notify sends fields of sd_notify(3) in one message, each such as "STATUS=2
// sessions". Without a service manager it does nothing.
func (p *Process) Notify(fields ...string) error { return p.manager.Send(fields...) }

// Status sets the one-line text that the service manager shows.
func (p *Process) Status(text string) error { return p.Notify("STATUS=" + text) }

// Reloading tells the service manager that the daemon is reloading; the next
// READY=1 ends it. status may be empty.
func (p *Process) Reloading(status string) error { return p.manager.Reloading(status) }

// Stopping tells the service manager that the daemon is about to end. status
// may be empty.
func (p *Process) Stopping(status string) error { return p.manager.Stopping(status) }

// Watchdog tells the service manager that the daemon is alive, at half the
// interval that it asks for, as long as alive returns true. alive must report
// progress of the daemon's real work. Watchdog returns when ctx ends or, at
// once, when no watchdog is asked for.
func (p *Process) Watchdog(ctx context.Context, alive func() bool) {
	if p.watchdog <= 0 {
		return
	}
	ticker := time.NewTicker(p.watchdog / 2)
	defer ticker.Stop()
	for {
		if alive() {
			if err := p.Notify("WATCHDOG=1"); err != nil {
				p.log.Warn("watchdog ping failed", "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
