// SPDX-License-Identifier: Apache-2.0

// Package target is an embeddable iSCSI target: a [Server] made from a
// configuration serves its targets on the listeners that it is given. Its
// sessions can be frozen, moved to another process and thawed there; package
// generation does so for a process that is replaced.
//
// A program makes a Server with [New], gives it listeners with [Server.AddPortal], and
// calls [Server.Serve]; [Server.Shutdown] or [Server.Close] ends it. Targets come from
// [Options], [Server.AddTarget] or [Server.Apply], at any time. Options say who decides on
// logins and who is told of them. The Server changes nothing of its process: no signals,
// no settings of the runtime, no files but those of its stores and of Options.StateDir.
// All methods may be called by several goroutines.
package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/internal/replace"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/plan"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// Options say what a Server is made of. The zero Options are valid: a Server without
// targets.
type Options struct {
	// Config is what is served, nil for no targets yet. New leaves it alone: it
	// fills in the defaults and checks a copy.
	Config *config.Config

	Log      *slog.Logger // nil: slog.Default()
	StateDir string       // for what outlives a restart: persistent reservations with APTPL; empty: nothing does

	// Successor says that TakeOver will be called. It opens the backing stores without their locks, which a
	// process that serves them now hands over later.
	Successor bool

	// Force takes over sessions though a logical unit that they use is another
	// one by now. They are told, and can't reach it before they have looked.
	Force bool

	// ForceFor is what Force is meant for; none: everything.
	ForceFor []plan.Part

	// Known, if set, tells whether the file at a path was served before: then its
	// format is not looked at, since its guest may have written anything into it.
	Known func(path string) bool

	// MayBeLate, if set, tells whether a logical unit whose backing store can't be
	// opened is served nevertheless, as not ready, and tried again from Serve on.
	// Without it New fails, unless Config.IgnoreErrors is set.
	MayBeLate func(target string, lun uint16) bool

	// RetryInterval is how often that is tried again; 0 means 5 s.
	RetryInterval time.Duration

	// Opened, if set, is called when it has succeeded.
	Opened func()

	FastPaths iscsi.FastPaths // other than the zero value for tests alone

	Clock func() time.Time // what reads and writes are timed by; other than nil, which means time.Now, for tests alone

	// Arena has the buffers for data lie outside of Go's heap, in a mapping that gives back by itself
	// what is idle; without it they are of the heap. Resident, if set, is told then how many bytes of it have
	// memory, as a program wants to know that limits its heap.
	Arena    bool
	Resident func(bytes int64)

	// What follows is for programs that embed a Server.

	// Observe, if set, is told of each command when it has ended, and how long
	// that took. It is called on the goroutine that ended the command, must be
	// quick, and must not keep c.
	Observe func(c *scsi.Command, took time.Duration)

	// Admit, if set, decides on each connection that a portal has accepted: an
	// error refuses it, and group is the tag of the portal group that it
	// belongs to, in place of the portal's own. The connections admitted
	// before are in [Server.Initiators] by then.
	Admit func(local, remote netip.AddrPort) (group uint16, err error)

	// Authorize, if set, decides on each login that everything else lets in, with the
	// CHAP account that it has proved; an error refuses it, and the log has the
	// reason. It decides too which targets an initiator is told of in discovery, and,
	// during TakeOver, which sessions may stay: everybody waits for that, so it must be
	// quick. It may be called at any time, by several goroutines, and the login waits for it.
	Authorize func(Login) error

	// LoggedIn and LoggedOut, if set, are told of each session with a target: before
	// its initiator learns that it is logged in, and when nothing of it runs any more, with
	// the reason, nil for a logout. A session that TakeOver brings was logged in
	// before, and one that HandOver takes is not logged out. They are called on
	// goroutines that HandOver and Close wait for, so they must be quick and must
	// not change the Server.
	LoggedIn  func(Login)
	LoggedOut func(l Login, why error)

	// Pausing, if set, is called when the Server is about to stand still for HandOver,
	// or to take over, and what it returns when that is over. The Server changes
	// nothing of the process that it is in; what else may take time from a pause, such as
	// the garbage collector, the program can hold back meanwhile.
	Pausing func() (end func())

	// State, if set, is handed over with the Server.
	State State
}

// Server is a running set of targets. New builds it, Serve adds listeners,
// Shutdown or Close ends it. A nil Server is one that is closed.
type Server struct {
	conf    *config.Config
	options Options
	log     *slog.Logger
	started time.Time
	node    *iscsi.Node
	retired atomic.Bool // a successor has taken over

	strangers *slog.Logger // for what initiators cause, which is limited, all together

	// changes is held by what changes the targets, and by HandOver and TakeOver,
	// which none of that may disturb. It is taken before mu.
	changes  sync.Mutex
	applies  chan struct{}    // holds one element while there is an Apply
	applying []*config.Target // that an Apply will add; protected by changes

	waits atomic.Bool // for TakeOver: the locks of stores come from a predecessor

	// mu protects changes of what follows, and reading it while another
	// goroutine may change it. The list of targets, and its elements, are
	// replaced and never altered in place.
	mu        sync.Mutex
	targets   []*served
	removals  []*removal // of targets that were among them
	portals   []*portal
	serving   bool                // connections are accepted
	resume    bool                // they are again after a freeze
	frozen    bool                // by Freeze
	announced []iscsi.PortalGroup // in place of the portals

	acceptsIdle chan struct{} // is closed when no loop accepts any more, if somebody waits for that

	made  []madeFile  // by a successor that has not taken over yet: New's alone
	taken atomic.Bool // it has

	openings *openings     // New's alone
	late     []*lateUnit   // New's, then that of the goroutine that retries
	retrying sync.Once     // begins that
	opening  chan struct{} // holds one element while a late store is being opened, or must not be
	holding  atomic.Int32  // how many wait to put one in

	background sync.WaitGroup
	shares     scsi.ShareLimit // of all devices
	rested     chan struct{}   // closed when all data has come that followed TakeOver; nil if none did
	restTook   time.Duration   // how long that took; may be read once rested is closed
	ctx        context.Context // until Close
	cancel     context.CancelFunc
}

// served is a target with what belongs to it.
type served struct {
	conf   *config.Target
	device *scsi.Device
	target *iscsi.Target
	log    *slog.Logger
}

// New opens every backing store and builds the targets. It serves nobody yet.
// An error names all targets and logical units that can't be served, with
// their places in the configuration; nothing stays open then.
func New(o Options) (*Server, error) {
	conf, err := o.Config.Complete()
	if err != nil {
		return nil, err
	}
	o.Config = conf
	if o.StateDir != "" {
		// A missing one costs persistence alone.
		if err := replace.Folder(o.StateDir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("can't keep reservations in the state folder: %w", err)
		}
	}
	s := &Server{conf: conf, options: o, log: o.Log, started: time.Now(), opening: make(chan struct{}, 1), applies: make(chan struct{}, 1)}
	s.waits.Store(o.Successor)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if s.log == nil {
		s.log = slog.Default()
	}
	s.strangers = limit.Logger(s.log)
	s.node = iscsi.NewNode(iscsi.Options{
		Log: s.strangers, Limits: conf.Limits, FastPaths: o.FastPaths, Arena: o.Arena, Resident: o.Resident,
		Opened: o.opened(), Ended: o.ended(),
	})
	var errs []error
	s.openings = newOpenings(s.log, conf)
	for i := range conf.Targets {
		t, err := s.build(&conf.Targets[i], fmt.Sprintf("targets[%d]", i), s.mayBeLate)
		if err != nil {
			errs = append(errs, err)
		}
		if t != nil {
			s.targets = append(s.targets, t)
		}
	}
	if len(errs) > 0 {
		s.Close()
		return nil, errors.Join(errs...)
	}
	s.openings = nil
	s.publish()
	s.background.Add(2)
	go s.every(sampleInterval, s.sample)
	go s.every(measureInterval, s.measure)
	return s, nil
}

// newServed makes a target without logical units.
func (s *Server) newServed(conf *config.Target) (*served, error) {
	t := &served{conf: conf, log: s.strangers}
	device, err := scsi.NewDevice(scsi.DeviceOptions{
		Name: conf.Name, TID: conf.TID, StateDir: s.options.StateDir, Log: s.strangers, Observe: s.options.Observe, Clock: s.options.Clock,
		Shares: &s.shares,
	})
	if err != nil {
		return nil, err
	}
	t.device = device
	for _, tag := range s.groupTags(conf) {
		device.AddTargetPort(tag, fmt.Sprintf("%s,t,0x%04x", conf.Name, tag))
	}
	t.target = &iscsi.Target{
		Name: conf.Name, Alias: conf.Alias, Device: device, Groups: conf.PortalGroups,
		Auth: auth(&conf.Auth), Limits: conf.Parameters, Allowed: s.allowed(conf), Masked: masked(conf), Offline: conf.Offline, Resets: resets(conf),
	}
	return t, nil
}

// build makes a target, which stands at a place of the Server's configuration.
func (s *Server) build(conf *config.Target, at string, mayBeLate func(target string, c *config.LUN) bool) (*served, error) {
	t, err := s.newServed(conf)
	if err != nil {
		return nil, conf.Pos.Errorf("target %s: %w", conf.Name, err)
	}
	var errs []error
	for j := range conf.LUNs {
		if err := s.attach(t, j, mayBeLate(conf.Name, &conf.LUNs[j])); err != nil {
			place := cmp.Or(s.conf.Where(fmt.Sprintf("%s.luns[%d].path", at, j)), conf.LUNs[j].Pos)
			errs = append(errs, place.Errorf("target %s LUN %d: %w", conf.Name, conf.LUNs[j].Number, err))
		}
		s.openings.opened()
	}
	if t.device.LogicalUnit(0) == nil {
		if err := attachController(t.device, s.strangers); err != nil {
			errs = append(errs, conf.Pos.Errorf("target %s LUN 0: %w", conf.Name, err))
		}
	}
	return t, errors.Join(errs...)
}

// attach opens the j-th logical unit of a target and adds it to the device.
func (s *Server) attach(t *served, j int, late bool) error {
	conf := &t.conf.LUNs[j]
	successor := s.waits.Load()
	store, err := s.openStore(conf, successor, func() error {
		if successor && late {
			return errPaused // the upgrade would have to wait for it
		}
		return nil
	})
	if err != nil {
		if late {
			return s.attachLate(t, conf, err)
		}
		return err
	}
	lu, err := newUnit(conf, store, s.strangers)
	if err == nil {
		err = t.attach(conf.Number, lu)
	}
	if err != nil {
		store.Close()
	}
	return err
}

func attachController(d *scsi.Device, log *slog.Logger) error {
	lu, err := scsi.NewController(scsi.LogicalUnitOptions{Log: log})
	if err != nil {
		return err
	}
	return d.Attach(0, lu)
}

// Shutdown stops accepting, asks the initiators to log out and gives them
// until ctx ends, then closes everything: commands under way finish and the
// backing stores are flushed.
func (s *Server) Shutdown(ctx context.Context) error {
	if s == nil {
		return nil
	}
	_ = s.pauseAccepting(ctx) // Close waits for it
	s.node.Shutdown(ctx)
	return s.Close()
}

// Close ends all sessions at once, flushes and closes the backing stores, and
// returns the errors of those.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	s.cancel()
	s.background.Wait()
	_ = s.pauseAccepting(context.Background())
	s.mu.Lock()
	for _, p := range s.portals {
		_ = p.listener.Close()
	}
	targets := s.targets
	s.portals, s.targets = nil, nil
	s.mu.Unlock()
	s.node.Close()
	s.awaitRemovals()
	end := (*scsi.LogicalUnit).Close
	if s.retired.Load() {
		end = (*scsi.LogicalUnit).Abandon
	}
	var errs []error
	for _, t := range targets {
		for _, u := range t.device.LogicalUnits() {
			if err := end(u.Unit); err != nil {
				errs = append(errs, fmt.Errorf("target %s LUN %d: %w", t.conf.Name, u.Number, err))
			}
		}
	}
	if !s.taken.Load() {
		s.removeMade()
	}
	return errors.Join(errs...)
}

// Beats counts signs of life, one a second: while it stands still, the Server
// does too. It is what a watchdog wants to know.
func (s *Server) Beats() uint64 {
	if s == nil {
		return 0
	}
	return s.node.Beats()
}
