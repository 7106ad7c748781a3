// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gotgtd/gotgtd/internal/proc"
	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// UpgradeOptions say how a process is upgraded. The zero value is valid.
type UpgradeOptions struct {
	// Version is what reports of upgrades call this build.
	Version string

	// Signals ask for an upgrade. Nil means SIGHUP and SIGUSR2; an empty list
	// leaves it to the program to call Upgrade.
	Signals []os.Signal

	// Timeout bounds the time from the start of a successor to the end of the
	// hand-over; zero: supervisor.DefaultUpgradeTimeout.
	Timeout time.Duration

	// Serving is called when Run serves, and has taken over if there was
	// something to take over. Nil: nobody wants to know.
	Serving func()

	// Moved is called once a successor has taken over: this process has
	// nothing left to do. Nil ends it with os.Exit.
	Moved func()
}

// upgradable is a process that can be replaced. A nil one can't.
type upgradable struct {
	options UpgradeOptions
	log     *slog.Logger
	process *supervisor.Process
	taken   atomic.Bool // everything was taken over from the predecessor

	mu     sync.Mutex // protects driver
	driver *Driver    // the one that is handed over
}

// theProcess is set by Upgradable.
var (
	theProcessMu sync.Mutex
	theProcess   *upgradable
)

// Upgradable makes the process one that can be replaced while initiators use
// it: a signal, or [Upgrade], starts a successor from the file that is now at
// argv[0], with the same arguments and environment. The successor runs the
// program from its beginning; when it calls Run, it takes the sessions over,
// and the process that was before ends. If anything fails before that, the
// process that was before goes on as if nothing had been.
//
// It must be called once, before the program starts processes of its own and
// before Run. One driver of the process can run then. The program sees to two
// things: both processes can have the backing stores open at a time ([Successor]
// tells them apart), and a device has the same device number in both.
func Upgradable(o UpgradeOptions) error {
	theProcessMu.Lock()
	defer theProcessMu.Unlock()
	if theProcess != nil {
		return errors.New("the process is upgradable already")
	}
	u := &upgradable{options: o, log: Log}
	if u.log == nil {
		u.log = slog.Default()
	}
	if o.Signals == nil {
		u.options.Signals = []os.Signal{syscall.SIGHUP, syscall.SIGUSR2}
	}
	var err error
	if u.process, err = supervisor.Start(supervisor.Options{Log: u.log, UpgradeTimeout: o.Timeout}); err != nil {
		return err
	}
	if len(u.options.Signals) > 0 {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, u.options.Signals...)
		go u.obey(signals) // for as long as the process lives
	}
	theProcess = u
	return nil
}

// obey upgrades when it is asked to.
func (u *upgradable) obey(signals <-chan os.Signal) {
	for range signals {
		_, _ = u.upgrade(context.Background()) // the outcome is logged
	}
}

// Upgrade replaces the process; see [Upgradable]. On success, it calls
// UpgradeOptions.Moved before it returns.
func Upgrade(ctx context.Context) (handoff.Report, error) {
	theProcessMu.Lock()
	u := theProcess
	theProcessMu.Unlock()
	if u == nil {
		return handoff.Report{}, errors.New("the process is not upgradable")
	}
	return u.upgrade(ctx)
}

// Successor reports whether the process is going to take over from another
// one, which has the backing stores open and holds their locks. It is false
// before Upgradable, and again when Run has taken over.
func Successor() bool {
	theProcessMu.Lock()
	defer theProcessMu.Unlock()
	return theProcess.successor()
}

func (u *upgradable) upgrade(ctx context.Context) (handoff.Report, error) {
	u.mu.Lock()
	d := u.driver
	u.mu.Unlock()
	if d == nil {
		return handoff.Report{}, errors.New("no driver runs")
	}
	r, moved, err := d.upgrade(ctx)
	switch {
	case moved && u.options.Moved != nil:
		u.options.Moved()
	case moved && err != nil: // the successor has died, with everything
		os.Exit(1)
	case moved:
		os.Exit(0)
	}
	return r, err
}

// claimProcess gives the process to the driver that runs; nil if it can't be
// upgraded.
func claimProcess(d *Driver) (*upgradable, error) {
	theProcessMu.Lock()
	u := theProcess
	theProcessMu.Unlock()
	if u == nil {
		return nil, nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.driver != nil {
		return nil, errors.New("an upgradable process runs one driver, once")
	}
	u.driver = d
	return u, nil
}

func (u *upgradable) successor() bool {
	return u != nil && u.process.Predecessor() != nil && !u.taken.Load()
}

// listen returns the listener on a TCP address, the predecessor's if there is
// one.
func (u *upgradable) listen(ctx context.Context, address string) (net.Listener, error) {
	if u == nil {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		return l, proc.ExplainListen("tcp", address, err)
	}
	return u.process.Listen(ctx, "portal", "tcp", address)
}

// supervised returns the supervised process, nil if it can't be upgraded.
func (u *upgradable) supervised() *supervisor.Process {
	if u == nil {
		return nil
	}
	return u.process
}

func (u *upgradable) version() string {
	if u == nil {
		return ""
	}
	return u.options.Version
}

// serving notes that the driver serves, and has taken over.
func (u *upgradable) serving() {
	if u != nil {
		u.taken.Store(true)
	}
}

// tell tells the program that the driver serves.
func (u *upgradable) tell() {
	if u != nil && u.options.Serving != nil {
		u.options.Serving()
	}
}

// exit lets go of the listeners.
func (u *upgradable) exit() error {
	if u == nil {
		return nil
	}
	return u.process.Exit(context.Background())
}
