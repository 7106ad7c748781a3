// SPDX-License-Identifier: Apache-2.0

package generation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// Upgrade replaces the process by the binary that is now at argv[0], which finds briefing,
// if there is one, in [supervisor.Process.Briefing]. It returns what was done. After an
// error the Server serves as before, unless the report has phases up to the commit and
// Options.Moved was called: then the successor has died with everything. Errors
// are [supervisor.ErrUpgrading] while another upgrade is under way, and
// [supervisor.ErrHandedOver] after one.
func (g *Generation) Upgrade(ctx context.Context, briefing []byte) (handoff.Report, error) {
	if g == nil {
		return handoff.Report{}, target.ErrClosed
	}
	began := time.Now()
	r := handoff.Report{Time: began, OldPID: os.Getpid(), OldVersion: g.options.Version, Phases: []handoff.Phase{}}
	if !g.upgrading.TryLock() {
		return r, supervisor.ErrUpgrading
	}
	defer g.upgrading.Unlock()
	lengths := g.server.Lengths()
	moved := false
	err := g.refusal(r.OldPID)
	if err == nil {
		r.Generation = g.process.Generation() + 1
		err = g.process.UpgradeWith(ctx, briefing, func(ctx context.Context, s supervisor.Successor) error {
			var err error
			o := handoff.Options{Version: g.options.Version, History: g.History(), Kill: s.Kill}
			moved, err = g.server.HandOver(ctx, s.Conn, o, began, &r)
			return err
		})
	}
	if errors.Is(err, supervisor.ErrHandedOver) {
		return r, err
	}
	if err != nil && !moved { // the successor is gone
		lengths.Restore()
	}
	g.note(&r, moved, err)
	if moved && g.options.Moved != nil {
		g.options.Moved()
	}
	return r, err
}

// refusal says why a process can't be replaced. The first one of a PID namespace, which is
// a container, can't: all others are killed when it ends, its successor among them
// (pid_namespaces(7)).
func (g *Generation) refusal(pid int) error {
	switch {
	case g.process == nil:
		return errors.New("this process can't be replaced: give generation.Start what supervisor.Start returns")
	case pid == 1:
		name := filepath.Base(os.Args[0])
		return fmt.Errorf("%s is PID 1 here, and the container would end with it: let upgraded be PID 1 and start %[1]s (upgraded run ... -- %[1]s ...), or restart the container", name)
	}
	return nil
}

// note keeps what an upgrade has done. The report of one that succeeds the successor keeps.
func (g *Generation) note(r *handoff.Report, moved bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved = g.moved || moved
	if err == nil {
		g.log.Info("upgraded", "generation", r.Generation, "pid", r.NewPID, "version", r.NewVersion, "pause", r.Pause, "sessions", r.Sessions)
		return
	}
	r.Error = err.Error()
	g.history = handoff.Remember(g.history, *r)
	g.log.Error("upgrade failed, and this process goes on: mend what the error names, and reload", "error", err)
}
