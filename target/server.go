// SPDX-License-Identifier: Apache-2.0

// Package target is an embeddable iSCSI target: a [Server] made from a
// configuration serves its targets on the listeners that it is given. Its
// sessions can be frozen, moved to another process and thawed there.
package target

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/scsi"
)

// Options says what a Server is made of. Config must be there; it is
// validated and has its defaults.
type Options struct {
	Config   *config.Config
	Log      *slog.Logger // nil: slog.Default()
	StateDir string       // for what outlives a restart: persistent reservations with APTPL; empty: nothing does

	// Successor opens the backing stores without their locks, which a
	// process that serves them now hands over later.
	Successor bool

	// Force takes over sessions though a logical unit that they use is another
	// one by now. They are told, and can't reach it before they have looked.
	Force bool

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

	// State, if set, is handed over with the Server.
	State State
}

// Server is a running set of targets. New builds it, Serve adds listeners,
// Shutdown or Close ends it.
type Server struct {
	conf    *config.Config
	options Options
	log     *slog.Logger
	started time.Time
	node    *iscsi.Node
	retired atomic.Bool // a successor has taken over

	refusals *limit.Limiter // of log lines about connections

	// mu protects changes of what follows, and reading it while another
	// goroutine may change it. The list of targets changes by AddTarget and
	// Close alone.
	mu        sync.Mutex
	targets   []*served
	portals   []*portal
	announced []iscsi.PortalGroup // in place of the portals

	accepts sync.WaitGroup

	late     []*lateUnit   // New's, then that of the goroutine that retries
	retrying sync.Once     // begins that
	opening  chan struct{} // holds one element while a late store is being opened, or must not be
	holding  atomic.Int32  // how many wait to put one in

	background sync.WaitGroup
	ctx        context.Context // until Close
	cancel     context.CancelFunc
}

// served is a target with what belongs to it.
type served struct {
	conf   *config.Target
	device *scsi.Device
	target *iscsi.Target
}

// portal is a listener and the portal group that it belongs to.
type portal struct {
	listener *net.TCPListener
	places   []PortalAddress // at least one
	name     string
}

// PortalAddress is an address of a listener that is a portal of its own.
type PortalAddress struct {
	Address netip.AddrPort // unspecified for every address that no other portal has
	Group   uint16         // its portal group tag

	// Announce is what discovery tells instead of Address; none: Address.
	Announce []string
}

// group is the portal group that a connection to a local address belongs to.
func (p *portal) group(local netip.AddrPort) uint16 {
	group := p.places[0].Group
	for _, at := range p.places {
		if at.Address == local {
			return at.Group
		}
		if at.Address.Addr().IsUnspecified() {
			group = at.Group
		}
	}
	return group
}

// has reports whether one of the portals is in a group.
func (p *portal) has(group uint16) bool {
	return slices.ContainsFunc(p.places, func(at PortalAddress) bool { return at.Group == group })
}

// New opens every backing store and builds the targets. It serves nobody yet.
// An error names all targets and logical units that can't be served, with
// their places in the configuration; nothing stays open then.
func New(o Options) (*Server, error) {
	s := &Server{conf: o.Config, options: o, log: o.Log, started: time.Now(), refusals: limit.New(iscsi.LogRate, time.Second), opening: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if s.log == nil {
		s.log = slog.Default()
	}
	l := &o.Config.Limits
	s.node = iscsi.NewNode(iscsi.Options{
		Log: s.log, MaxSessions: l.Sessions, MaxConnections: l.Connections, MaxLogins: l.Logins,
		MemoryLimit: l.Memory, LoginTimeout: l.LoginTimeout, FastPaths: o.FastPaths,
	})
	var errs []error
	for i := range o.Config.Targets {
		t, err := s.build(i)
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
	s.publish()
	s.background.Add(1)
	go s.sample()
	return s, nil
}

// newServed makes a target without logical units.
func (s *Server) newServed(conf *config.Target) (*served, error) {
	t := &served{conf: conf}
	device, err := scsi.NewDevice(scsi.DeviceOptions{
		Name: conf.Name, TID: conf.TID, StateDir: s.options.StateDir, Log: s.log, Observe: s.options.Observe,
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
		Auth: auth(&conf.Auth), Limits: limits(&conf.Parameters), Allowed: allowed(conf), Masked: masked(conf), Offline: conf.Offline,
	}
	return t, nil
}

// build makes the i-th target of the configuration.
func (s *Server) build(i int) (*served, error) {
	o := &s.options
	conf := &o.Config.Targets[i]
	t, err := s.newServed(conf)
	if err != nil {
		return nil, conf.Pos.Errorf("target %s: %w", conf.Name, err)
	}
	var errs []error
	for j := range conf.LUNs {
		if err := s.attach(o, t, j); err != nil {
			place := o.Config.Where(fmt.Sprintf("targets[%d].luns[%d].path", i, j))
			errs = append(errs, place.Errorf("target %s LUN %d: %w", conf.Name, conf.LUNs[j].Number, err))
		}
	}
	if t.device.LogicalUnit(0) == nil {
		if err := attachController(t.device, s.log); err != nil {
			errs = append(errs, conf.Pos.Errorf("target %s LUN 0: %w", conf.Name, err))
		}
	}
	return t, errors.Join(errs...)
}

// attach opens the j-th logical unit of a target and adds it to the device.
func (s *Server) attach(o *Options, t *served, j int) error {
	conf := &t.conf.LUNs[j]
	late := s.mayBeLate(t.conf.Name, conf)
	store, err := s.openStore(conf, o.Successor, func() error {
		if o.Successor && late {
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
	lu, err := newUnit(conf, t.conf.TID, store, s.log)
	if err == nil {
		err = t.device.Attach(conf.Number, lu)
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

// groupTags returns the tags of the portal groups that offer a target.
func (s *Server) groupTags(t *config.Target) []uint16 {
	if len(t.PortalGroups) > 0 {
		return t.PortalGroups
	}
	var tags []uint16
	for _, g := range s.conf.PortalGroups {
		tags = append(tags, g.Tag)
	}
	if len(tags) == 0 {
		tags = []uint16{1}
	}
	return tags
}

// offers reports whether a portal group offers a target. A target without groups is
// offered by those that have a portal; with no portal at all, they may come later.
func (s *Server) offers(t *served, group uint16) bool {
	if len(t.conf.PortalGroups) > 0 {
		return slices.Contains(t.conf.PortalGroups, group)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.portals) == 0 || slices.ContainsFunc(s.portals, func(p *portal) bool { return p.has(group) })
}

// publish makes targets and portals known to initiators.
func (s *Server) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var targets []*iscsi.Target
	for _, t := range s.targets {
		targets = append(targets, t.target)
	}
	groups := s.announced
	if groups == nil {
		for _, p := range s.portals {
			for _, at := range p.places {
				groups = addPortal(groups, at)
			}
		}
	}
	s.node.SetTargets(targets, groups, auth(&s.conf.Discovery))
}

func addPortal(groups []iscsi.PortalGroup, at PortalAddress) []iscsi.PortalGroup {
	i := slices.IndexFunc(groups, func(g iscsi.PortalGroup) bool { return g.Tag == at.Group })
	if i < 0 {
		i = len(groups)
		groups = append(groups, iscsi.PortalGroup{Tag: at.Group})
	}
	if g := &groups[i]; len(at.Announce) > 0 {
		g.Announced = append(g.Announced, at.Announce...)
	} else {
		g.Portals = append(g.Portals, at.Address)
	}
	return groups
}

func (p *portal) address() netip.AddrPort { return unmapped(p.listener.Addr()) }

// AddPortal announces a listener as a portal of the group tag. name is what a
// service manager calls the socket, if it is one of its own. Nobody is served
// before [Server.Serve].
func (s *Server) AddPortal(l net.Listener, group uint16, name string) error {
	tl, ok := l.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("can't serve iSCSI on %v: not a TCP socket", l.Addr())
	}
	return s.AddPortals(tl, name, PortalAddress{Address: unmapped(tl.Addr()), Group: group})
}

// AddPortals is AddPortal of a listener that is several portals: it accepts what
// comes for all their addresses, and they may be in several groups.
func (s *Server) AddPortals(l *net.TCPListener, name string, places ...PortalAddress) error {
	if len(places) == 0 {
		return fmt.Errorf("the socket %v has no portal", l.Addr())
	}
	s.mu.Lock()
	s.portals = append(s.portals, &portal{listener: l, places: places, name: name})
	s.mu.Unlock()
	s.publish()
	return nil
}

// Serve accepts connections on every portal, until Pause, Shutdown or Close.
func (s *Server) Serve() {
	s.retrying.Do(s.startRetrying)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.portals {
		_ = p.listener.SetDeadline(time.Time{})
		s.accepts.Add(1)
		go s.accept(p)
	}
}

// acceptPause is how long a portal rests after accept failed, for example for
// want of file descriptors.
const acceptPause = 100 * time.Millisecond

func (s *Server) accept(p *portal) {
	defer s.accepts.Done()
	for {
		c, err := p.listener.AcceptTCP()
		switch {
		case err == nil:
			if err := s.admit(c, p.group(unmapped(c.LocalAddr()))); err != nil {
				s.refusals.Log(s.log, slog.LevelWarn, "connection refused", "error", err)
			}
		case errors.Is(err, net.ErrClosed) || isTimeout(err):
			return
		default:
			s.log.Warn("can't accept", "portal", p.address().String(), "error", err)
			time.Sleep(acceptPause)
		}
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// pauseAccepting makes every accept loop end; the listeners stay open and
// their backlogs fill.
func (s *Server) pauseAccepting() {
	s.mu.Lock()
	for _, p := range s.portals {
		_ = p.listener.SetDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	s.accepts.Wait()
}

func (s *Server) portalStatus() []PortalStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []PortalStatus{}
	for _, p := range s.portals {
		for _, at := range p.places {
			list = append(list, PortalStatus{Group: at.Group, Address: at.Address, Name: p.name, Announce: at.Announce})
		}
	}
	return list
}

// Shutdown stops accepting, asks the initiators to log out and gives them
// until ctx ends, then closes everything: commands under way finish and the
// backing stores are flushed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.pauseAccepting()
	s.node.Shutdown(ctx)
	return s.Close()
}

// Close ends all sessions at once, flushes and closes the backing stores, and
// returns the errors of those.
func (s *Server) Close() error {
	s.cancel()
	s.background.Wait()
	s.pauseAccepting()
	s.mu.Lock()
	for _, p := range s.portals {
		p.listener.Close()
	}
	targets := s.targets
	s.portals, s.targets = nil, nil
	s.mu.Unlock()
	s.node.Close()
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
	return errors.Join(errs...)
}

// Beats counts signs of life, one a second: while it stands still, the Server
// does too. It is what a watchdog wants to know.
func (s *Server) Beats() uint64 { return s.node.Beats() }
