// SPDX-License-Identifier: Apache-2.0

// Package generation runs a [target.Server] in a process that can be replaced while
// initiators use it. It joins package target, which knows nothing of processes, and
// package supervisor, which knows nothing of targets, and has the order in which the
// two are used:
//
//	supervisor.Start    by the program, first of all
//	Prepare             the program reads its configuration
//	target.New          the Server opens its stores
//	Open                the program adds targets and portals: listeners open last
//	TakeOver            sessions come from the predecessor, if there is one
//	Serve               connections are accepted
//	Serving             the program begins what else it does
//	Ready               the service manager and the predecessor are told
//
// What fails before TakeOver is over leaves the predecessor serving as before.
package generation

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"github.com/gotgtd/gotgtd/internal/contain"
	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// Options say what a generation is made of. The zero value is valid: a Server without
// targets or portals.
type Options struct {
	Version string       // of this build, for reports of upgrades
	Log     *slog.Logger // nil: slog.Default()

	// Prepare returns what the Server is made of, and what that changes of what the
	// predecessor serves, for people, a line each. Whether there is a predecessor, Start
	// sees to. nil: zero options.
	Prepare func() (o target.Options, changes []string, err error)

	// Open gives the Server its portals, with listeners from [supervisor.Process.Listen],
	// and targets that are not in its configuration.
	Open func(ctx context.Context, s *target.Server) error

	// Serving is called when the Server serves, before anybody is told of it, and returns
	// the line that the service manager shows. nil: "serving iSCSI".
	Serving func(*Generation) string

	// Moved is called when a successor has taken over, before Upgrade returns: there
	// is nothing left to do but [Generation.Stop].
	Moved func()
}

// A Generation is a Server that serves in a process. A nil one is one that has ended.
type Generation struct {
	server  *target.Server
	process *supervisor.Process // nil: it can't be replaced
	options Options
	log     *slog.Logger

	// upgrading is held by one upgrade, until what is left of a successor that has failed is gone.
	upgrading sync.Mutex

	mu      sync.Mutex // protects what follows
	history []handoff.Report
	rested  bool // the history has how long data took that followed
	moved   bool
}

// Start makes a Server, takes over what a predecessor has, and serves. p is what
// supervisor.Start has returned; nil is a process that can't be replaced. On an error nothing
// is left open but p, and the predecessor has been told why it goes on.
func Start(ctx context.Context, p *supervisor.Process, o Options) (*Generation, error) {
	g := &Generation{process: p, options: o, log: o.Log}
	if g.log == nil {
		g.log = slog.Default()
	}
	var predecessor *net.UnixConn
	if p != nil {
		predecessor = p.Predecessor()
	}
	if err := g.start(ctx, predecessor); err != nil {
		if predecessor != nil {
			handoff.Decline(predecessor, err) // in vain if they have talked already
		}
		if g.server != nil {
			err = errors.Join(err, g.server.Close())
		}
		return nil, err
	}
	g.server.Serve()
	status := "serving iSCSI"
	if o.Serving != nil {
		status = o.Serving(g)
	}
	if p != nil {
		if err := p.Ready(status); err != nil {
			g.log.Warn("service manager not told of readiness", "error", err)
		}
	}
	return g, nil
}

// start does all that can fail.
func (g *Generation) start(ctx context.Context, predecessor *net.UnixConn) error {
	var changes []string
	build := func() (err error) {
		changes, err = g.build(ctx, predecessor != nil)
		return err
	}
	if predecessor == nil {
		return build()
	}
	// A panic is a fault of this version: the predecessor goes on, and its report has it.
	// Once this process has taken over, there is nobody to go on.
	if err := contain.Call(build); err != nil {
		return err
	}
	defer predecessor.Close()
	var err error
	g.history, err = g.server.TakeOver(ctx, predecessor, g.options.Version, changes...)
	return err
}

// build makes the Server with its targets and portals, and returns what that changes.
func (g *Generation) build(ctx context.Context, successor bool) (changes []string, err error) {
	var o target.Options
	if g.options.Prepare != nil {
		if o, changes, err = g.options.Prepare(); err != nil {
			return nil, err
		}
	}
	o.Successor = successor
	if o.Log == nil {
		o.Log = g.log
	}
	if g.server, err = target.New(o); err != nil {
		return nil, err
	}
	if g.options.Open != nil {
		err = g.options.Open(ctx, g.server)
	}
	return changes, err
}

// Server returns the Server, which is the Generation's to close.
func (g *Generation) Server() *target.Server {
	if g == nil {
		return nil
	}
	return g.server
}

// History returns the reports of upgrades, the last one last: those that have succeeded,
// and those of this process that have not.
func (g *Generation) History() []handoff.Report {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if took, ok := g.server.RestTook(); ok && !g.rested {
		g.rested = true
		g.history = handoff.WithPhase(g.history, handoff.Phase{Name: "rest", Duration: took})
	}
	return g.history
}

// Stop ends the Server: initiators are asked to log out and have until ctx ends for it,
// unless a successor serves them. What was registered with [supervisor.Process.AtExit]
// runs before, and after it the process lets go of the listeners.
func (g *Generation) Stop(ctx context.Context) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	moved := g.moved
	g.mu.Unlock()
	end := g.server.Shutdown
	if moved {
		end = func(context.Context) error { return g.server.Close() }
	}
	if g.process == nil {
		return end(ctx)
	}
	g.process.AtExit("server", end) // after the service manager is told
	return g.process.Exit(ctx)
}
