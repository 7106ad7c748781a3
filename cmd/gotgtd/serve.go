// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/gotgtd/gotgtd/internal/logging"
	"github.com/gotgtd/gotgtd/internal/unixhttp"
	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/generation"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/storage"
)

// stopTimeout bounds what an exit waits for: initiators that log out, commands
// that end, answers on the control socket.
const stopTimeout = 10 * time.Second

func serveCommand() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve targets until SIGTERM; SIGHUP or `gotgtd upgrade` replaces the process",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("serve takes no arguments: to serve %s, give --disk %[1]s, or --config %[1]s if it is a configuration", args[0])
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", "", "configuration `FILE`: YAML, tgt's targets.conf or gotgt's JSON")
	f.StringArrayVar(&o.disks, "disk", nil, "serve this file or device, `PATH[,size=1GiB]`, as LUN 1; with size= a missing file is made, sparse; repeated: LUN 2 and on")
	f.StringVar(&o.target, "target", defaultTarget, "name, `IQN`, of the target that --disk belongs to")
	f.StringArrayVar(&o.listen, "listen", nil, "listen on this `ADDR` instead of the configured portals; may be repeated (default "+defaultListen+" when nothing else says where)")
	f.StringVar(&o.stateDir, "state-dir", "", "`DIR` for what outlives a restart: reservations that persist through power loss, and the numbers that targets and LUNs were given (numbers.yaml); without it they are forgotten")
	f.StringVar(&o.level, "log-level", "info", "least `LEVEL` to log: debug, info, warn or error; gotgtd log-level changes it while the daemon runs")
	f.StringVar(&o.format, "log-format", logging.Auto, "`FORMAT` of the log on standard error: text, json, or auto, which is text, or fields in systemd's journal if it leads there")
	completeFlag(c, "log-level", logging.Levels()...)
	completeFlag(c, "log-format", logging.Formats()...)
	c.MarkFlagsMutuallyExclusive("config", "disk")
	c.MarkFlagsMutuallyExclusive("config", "target")
	c.RunE = func(c *cobra.Command, _ []string) error {
		o.control = c.Flag("control").Value.String()
		return serve(c.Context(), &o)
	}
	return c
}

// daemon is a running generation.
type daemon struct {
	options    *serveOptions
	log        *slog.Logger
	level      *slog.LevelVar // of log
	recent     *logging.Recent
	process    *supervisor.Process
	successor  bool             // there is a predecessor that serves, or did
	clock      func() time.Time // nil but in tests, see [target.Options]
	server     *target.Server
	conf       *config.Config // what server was made of
	socket     net.Listener   // of the control socket
	control    *control.Server
	scraped    *heldListener  // for metrics; nil: none is configured
	metrics    *metricsServer // nil as long as it does not serve
	past       []byte         // what the predecessor's page has told
	generation *generation.Generation
	moved      chan struct{}   // closed when a successor has taken over
	life       context.Context // ends when the daemon stops, and with it an upgrade under way

	levelAsked string // by command, empty if none was; whoever has the turn has it

	asked   atomic.Bool      // whether a signal has asked for an upgrade that is the successor's to make
	turn    chan struct{}    // holds an element while an upgrade is prepared and carried out
	overlay *overlay.Overlay // what tgtadm has changed; the generation's own, never altered

	plan []string // what this generation has changed when it took over, nil if nobody knows

	ledgerMu sync.Mutex // protects what ledger holds
	ledger   *ledger
}

// serve runs a generation from its start to its end.
func serve(ctx context.Context, o *serveOptions) error {
	// First of all, so that a signal that comes too early kills nobody.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)
	// Whoever read the log of the generation before may be gone: a line that
	// nobody reads is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	addProcessors()
	level, recent := new(slog.LevelVar), new(logging.Recent)
	log, err := o.logger(level, recent)
	if err != nil {
		return err
	}
	p, err := supervisor.Start(supervisor.Options{Log: log})
	if err != nil {
		return err
	}
	d := &daemon{options: o, log: log, level: level, recent: recent, process: p, moved: make(chan struct{}), turn: make(chan struct{}, 1)}
	return d.run(ctx, signals)
}

// addProcessors gives Go's scheduler twice as many processors as there are cores,
// unless the environment has set their number: half of them may be kept by readers
// that wait in the kernel (package socket), and as many as there are cores are left for work.
func addProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
}

// holdCollector keeps the garbage collector from running until its result is called: it
// would have a core that the pause of an upgrade needs. A server that stands still or
// does not serve yet takes no more memory, whatever initiators do.
func holdCollector() (release func()) {
	percent := debug.SetGCPercent(-1)
	return func() { debug.SetGCPercent(percent) }
}

// heapBeside is how many bytes of the heap are for what is on no initiator's account.
const heapBeside = 48 << 20

// boundHeap has the collector run in time for what initiators may have at once. Otherwise it would
// wait until the heap is twice what is in use, and what was given back would count twice. Buffers are
// not of the heap: resident is told what they take, and the heap has so much less.
// GOMEMLIMIT in the environment goes before.
func boundHeap(memory int64) (resident func(bytes int64)) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	resident = func(bytes int64) { debug.SetMemoryLimit(max(memory-bytes, 0) + heapBeside) }
	resident(0)
	return resident
}

// prepare says what the server is made of, and what that changes.
func (d *daemon) prepare() (o target.Options, changes []string, err error) {
	d.successor = d.process.Predecessor() != nil
	brief, err := parseBriefing(d.process.Briefing())
	if err == nil {
		d.keepLogLevel(brief)
		o, err = d.configure(brief)
	}
	return o, d.plan, err
}

// configure makes a configuration of what the flags, the briefing and the state directory
// say, unless the plan that leads to it from what the briefing tells hurts somebody. It
// returns what the server is made of.
func (d *daemon) configure(brief *briefing) (o target.Options, err error) {
	if d.ledger, err = openLedger(d.options.state()); err != nil {
		return o, err
	}
	d.past = brief.Page
	d.ledger.clock = newCalendar()
	if brief.Clock != nil {
		d.ledger.clock = *brief.Clock
	}
	conf, err := d.options.configuration(brief.numbers(d.ledger.numbers()))
	if err != nil {
		return o, err
	}
	d.sayLost(brief, conf)
	if err := d.lay(brief, conf); err != nil {
		return o, err
	}
	d.conf = conf
	if err := d.follow(brief, conf); err != nil {
		return o, err
	}
	if err := openFiles.raise(descriptors(conf), conf.Limits.Connections); err != nil {
		d.log.Warn("configuration", "warning", err)
	}
	for _, w := range conf.Warnings {
		d.log.Warn("configuration", "warning", w)
	}
	fast, err := fastPaths()
	return target.Options{
		Config: conf, Log: d.log, StateDir: d.options.state(), Successor: d.successor, FastPaths: fast, Force: brief.Force, ForceFor: brief.ForceFor, Clock: d.clock,
		MayBeLate: func(target string, lun uint16) bool { return !d.successor || brief.Running.NotOpen(target, lun) },
		Opened:    d.noteNumbers,
		Pausing:   d.pausing,
		Arena:     true,
		Resident:  boundHeap(conf.Limits.Memory),
		Known:     d.served,
	}, err
}

// sayLost says that the numbers that were given are not there any more, or will not be.
func (d *daemon) sayLost(b *briefing, conf *config.Config) {
	switch file := filepath.Join(d.options.state(), ledgerName); {
	case d.ledger.lost() && b.Running != nil:
		d.log.Warn("the file with the numbers of targets and LUNs is not there; they stay as they were given in the process that runs, and are written down again", "file", file)
		d.ledger.adopt(b.Running.Noted)
	case d.successor || !conf.NewIdentities():
	case d.ledger.lost():
		d.log.Warn("no numbers of targets and LUNs are known, and the configuration leaves some to order: if these disks have been served before, initiators may take one for another. "+
			"Stop, put the file back from a backup or give every lun and controller_tid in the configuration, and start again", "file", file)
	case d.ledger.path == "":
		d.log.Warn("there is no state folder to keep the numbers of targets and LUNs in that the configuration leaves to order: after a restart disks may have others. Give one with --state-dir")
	}
}

// open opens the portals and the control socket.
func (d *daemon) open(ctx context.Context, s *target.Server) (err error) {
	d.server = s
	if err := openPortals(ctx, d.process, s, d.conf.PortalGroups); err != nil {
		return err
	}
	if d.scraped, err = d.listenMetrics(ctx, d.conf.Metrics); err != nil {
		return err
	}
	d.socket, err = d.listenControl(ctx)
	return err
}

// pausing is called when the server is about to stand still.
func (d *daemon) pausing() (end func()) {
	if d.metrics != nil {
		d.scraped.hold(true) // until it is known who serves: see upgrade
	}
	return holdCollector()
}

// serving answers on the control socket, and those who scrape.
func (d *daemon) serving(g *generation.Generation) (status string) {
	d.generation = g
	if d.scraped != nil {
		d.metrics = d.serveMetrics(d.scraped, d.conf.Metrics, d.past)
		d.past = nil
	}
	d.control = control.Serve(d.socket, d) // last: an upgrade may be asked for at once
	return d.statusLine()
}

// left makes known that a successor has taken over.
func (d *daemon) left() {
	d.control.Leave()
	close(d.moved)
}

// follow makes the plan that leads from what the predecessor serves to conf,
// and returns an error if it hurts somebody and is not forced. Nothing has been opened so far.
func (d *daemon) follow(b *briefing, conf *config.Config) error {
	if b.Running == nil {
		return nil // a start, or a predecessor that does not tell
	}
	if err := unavailable(b.Running, conf); err != nil {
		return err
	}
	b.Running.StateDir, b.Running.Unwritable = d.options.state(), ""
	if err := d.ledger.tryToWrite(); err != nil {
		b.Running.Unwritable = err.Error()
	}
	p := plan.Make(b.Running, conf, target.Look)
	d.plan = p.Lines()
	for _, line := range d.plan {
		d.log.Info("plan", "change", line)
	}
	if b.Force && len(b.ForceFor) == 0 {
		return nil
	}
	p.Force(b.ForceFor...)
	return p.Check()
}

// unavailable returns an error about each file that can't be opened, before
// the plan says what else it would do. What is wrong besides, opening finds out.
func unavailable(running *plan.Running, conf *config.Config) error {
	var errs []error
	for i := range conf.Targets {
		t := &conf.Targets[i]
		for j := range t.LUNs {
			l := &t.LUNs[j]
			if l.Backend != "file" || conf.IgnoreErrors || running.NotOpen(t.Name, l.Number) {
				continue
			}
			o := l.Options
			o.InheritLock, o.Format = true, storage.FormatRaw
			if err := storage.Check(o); err != nil {
				place := conf.Where(fmt.Sprintf("targets[%d].luns[%d].path", i, j))
				errs = append(errs, place.Errorf("target %s LUN %d: %w", t.Name, l.Number, err))
			}
		}
	}
	return errors.Join(errs...)
}

// run serves, from its start until a signal or a successor ends that.
func (d *daemon) run(ctx context.Context, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	group, ctx := errgroup.WithContext(ctx)
	d.life = ctx
	if _, err := generation.Start(ctx, d.process, generation.Options{
		Version: versionString(), Log: d.log, Prepare: d.prepare, Open: d.open, Serving: d.serving, Moved: d.left,
	}); err != nil {
		if d.socket != nil {
			err = errors.Join(err, d.socket.Close())
		}
		return errors.Join(err, d.process.Exit(ctx))
	}
	if d.plan == nil {
		d.logServing()
		d.warnOpen()
	}
	d.noteNumbers()
	d.sweep()
	group.Go(func() error { d.process.Watchdog(ctx, d.alive()); return nil })
	group.Go(func() error {
		defer cancel(errStopping)
		d.handleSignals(ctx, signals, group)
		return nil
	})
	err := group.Wait()
	d.passOn(signals)
	err = errors.Join(err, d.stop())
	d.passOn(signals)
	return err
}

// warnOpen says at a start which targets everybody may use who reaches a
// portal that is not for this host alone.
func (d *daemon) warnOpen() {
	st := d.server.Status()
	reached := slices.ContainsFunc(st.Portals, func(p target.PortalStatus) bool { return !p.Address.Addr().IsLoopback() })
	for _, t := range st.Targets {
		if reached && len(t.Accounts) == 0 && slices.Equal(t.ACL, []string{"ALL"}) && t.State == "ready" {
			d.log.Warn("everybody who reaches a portal may use this target: limit access to addresses or initiators, or ask for CHAP with auth", "target", t.Name)
		}
	}
}

// noteNumbers writes down which numbers are given, and says at a start which
// paths lead to something else than when it was last served.
func (d *daemon) noteNumbers() {
	d.ledgerMu.Lock()
	defer d.ledgerMu.Unlock()
	r := d.server.Running()
	if !d.successor {
		for _, path := range d.ledger.moved(r) {
			d.log.Warn("another file or device than the one that was served before at this path: initiators take it for the same disk", "path", path)
		}
	}
	if err := d.ledger.note(r); err != nil {
		d.log.Error("numbers of targets and LUNs not noted: after a restart they may be others. Make the state folder writable, and reload", "folder", d.options.state(), "error", err)
	}
}

// served tells whether a file was served from a path before.
func (d *daemon) served(path string) bool {
	d.ledgerMu.Lock()
	defer d.ledgerMu.Unlock()
	return d.ledger.served(path)
}

// keptNumbers returns the numbers that nothing new is given, as their owners may come back.
func (d *daemon) keptNumbers() config.Numbers {
	d.ledgerMu.Lock()
	defer d.ledgerMu.Unlock()
	return d.ledger.kept()
}

// listenControl listens on the control socket, the predecessor's if there is one.
func (d *daemon) listenControl(ctx context.Context) (net.Listener, error) {
	path := d.options.control
	if !d.successor {
		if err := control.Clear(path); err != nil {
			return nil, err
		}
	}
	l, err := unixhttp.ListenPrivate(func() (net.Listener, error) { return d.process.Listen(ctx, "control", "unix", path) })
	if err != nil {
		return nil, fmt.Errorf("can't listen on the control socket: %w", err)
	}
	return l, nil
}

// handleSignals waits for the end, and upgrades on request, as a task of the
// group so that a request to stop is heard meanwhile.
func (d *daemon) handleSignals(ctx context.Context, signals <-chan os.Signal, group *errgroup.Group) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.moved:
			return
		case s := <-signals:
			if s != syscall.SIGHUP && s != syscall.SIGUSR2 {
				d.log.Info("stopping", "signal", s.String())
				// The second signal ends the process at once.
				signal.Reset(syscall.SIGINT, syscall.SIGTERM)
				return
			}
			group.Go(func() error {
				// The outcome is logged and in the history, unless it is the successor's.
				if _, err := d.Upgrade(ctx, false); errors.Is(err, control.ErrLeft) {
					d.asked.Store(true)
				}
				return nil
			})
		}
	}
}

// passOn has the successor carry out, once, the reloads that this process was asked for by signals
// while it handed over: what they are about may not be in what the successor has read.
func (d *daemon) passOn(signals <-chan os.Signal) {
	asked := d.asked.Swap(false)
	for len(signals) > 0 {
		s := <-signals
		asked = asked || s == syscall.SIGHUP || s == syscall.SIGUSR2
	}
	if !asked || !d.hasMoved() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	st, err := control.NewClient(d.options.control).Status(ctx)
	if err == nil {
		err = syscall.Kill(st.PID, syscall.SIGHUP)
	}
	if err != nil {
		d.log.Error("the reload that was asked for during the upgrade is not carried out: ask for it again", "error", err)
	}
}

// hasMoved tells whether a successor has taken over.
func (d *daemon) hasMoved() bool {
	select {
	case <-d.moved:
		return true
	default:
		return false
	}
}

// stop ends this generation, in order. The control socket comes first, since
// an upgrade that was asked for through it may still succeed.
func (d *daemon) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return errors.Join(d.metrics.close(ctx), d.control.Close(ctx), d.generation.Stop(ctx))
}

// errStopping ends an upgrade, or the wait for the end of a session, that a
// request to stop has overtaken.
var errStopping = errors.New("the daemon is stopping")

// Upgrade implements [control.Daemon].
func (d *daemon) Upgrade(ctx context.Context, force bool) (handoff.Report, error) {
	if err := d.takeTurn(ctx); err != nil {
		return handoff.Report{Time: time.Now(), Phases: []handoff.Phase{}, Error: err.Error()}, err
	}
	defer d.endTurn()
	return d.upgrade(ctx, &briefing{Running: d.Running(), Force: force})
}

// takeTurn waits for the upgrade that somebody else has asked for. If that succeeds, the
// successor is to be asked.
func (d *daemon) takeTurn(ctx context.Context) error {
	var err error
	select {
	case d.turn <- struct{}{}:
		if d.hasMoved() {
			d.endTurn()
		}
	case <-d.moved:
	case <-d.life.Done():
		err = context.Cause(d.life)
	case <-ctx.Done():
		err = fmt.Errorf("another upgrade is under way: %w", context.Cause(ctx))
	}
	if d.hasMoved() { // which is why the rest has ended
		return control.ErrLeft
	}
	return err
}

func (d *daemon) endTurn() { <-d.turn }

// upgrade replaces the process; b is what the successor is told.
func (d *daemon) upgrade(ctx context.Context, b *briefing) (handoff.Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.life, func() { cancel(context.Cause(d.life)) })()
	b.Clock, b.LogLevel, b.Page = &d.ledger.clock, d.levelAsked, d.metrics.past()
	text, err := json.Marshal(b)
	if err != nil {
		return handoff.Report{}, err
	}
	r, err := d.generation.Upgrade(ctx, text)
	if errors.Is(err, supervisor.ErrHandedOver) {
		return r, control.ErrLeft
	}
	if d.metrics != nil && err != nil {
		d.scraped.hold(false)
	}
	return r, err
}

// EndSession implements [control.Daemon].
func (d *daemon) EndSession(ctx context.Context, tsih uint16, rejectFor time.Duration) (target.SessionEnd, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.life, func() { cancel(errStopping) })()
	end, err := d.server.EndSession(ctx, tsih, rejectFor)
	if errors.Is(err, iscsi.ErrClosed) {
		return end, control.ErrLeft
	}
	return end, err
}

// Running implements [control.Daemon].
func (d *daemon) Running() *plan.Running {
	r := d.server.Running()
	r.Metrics = plan.MetricsOf(d.conf)
	r.Overlay, r.Noted, r.StateDir = d.overlay, d.keptNumbers(), d.options.state()
	if err := d.ledger.writable(); err != nil {
		r.Unwritable = err.Error()
	}
	if len(d.options.listen) == 0 {
		r.Portals = plan.Portals(d.conf)
	}
	return r
}

// Status implements [control.Daemon].
func (d *daemon) Status() control.Status {
	st := control.Status{
		Version: versionString(), Generation: d.process.Generation(), PID: os.Getpid(),
		Config: d.options.file(), Upgrades: d.generation.History(), Status: d.server.Status(), Accounts: d.overlay.Accounts(),
	}
	st.UpgradeTotals = handoff.TotalsOf(st.Upgrades)
	if st.Upgrades == nil {
		st.Upgrades = []handoff.Report{}
	}
	for _, u := range d.conf.Discovery.Users {
		st.DiscoveryAccounts = append(st.DiscoveryAccounts, u.User)
	}
	if o := d.conf.Discovery.Outgoing; o != nil {
		st.DiscoveryOutAccount = o.User
	}
	return st
}

// alive returns a function that reports whether the server has shown signs of
// life since the last call.
func (d *daemon) alive() func() bool {
	var last uint64
	return func() bool {
		beats := d.server.Beats()
		alive := beats != last || beats == 0
		last = beats
		return alive
	}
}

func (d *daemon) statusLine() string {
	st := d.server.Status()
	return fmt.Sprintf("generation %d, %d targets, %d sessions", d.process.Generation(), len(st.Targets), len(st.Sessions))
}

// logServing says what is served where. After a reload the plan has said what
// is new, which may be one of a thousand.
func (d *daemon) logServing() {
	st := d.server.Status()
	for _, t := range st.Targets {
		for _, l := range t.LUNs {
			if l.Type == "controller" || l.Error != "" {
				continue
			}
			for _, p := range st.Portals {
				d.log.Info("serving", "target", t.Name, "lun", l.LUN, "path", l.StorePath, "size", humanSize(l.Size), "portal", p.Address.String())
			}
		}
	}
}
