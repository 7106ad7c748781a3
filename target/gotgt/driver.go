// SPDX-License-Identifier: Apache-2.0

package gotgt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/config"
	"github.com/gostor/gotgt/pkg/scsi"

	"github.com/gotgtd/gotgtd/target"
	own "github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/generation"
	"github.com/gotgtd/gotgtd/target/handoff"
	engine "github.com/gotgtd/gotgtd/target/scsi"
)

// driverState is where a Driver is in its life.
//
//	fresh ──Run──► running ──Close, or a successor──► closed
//	  └───────────────Close─────────────────────────────▲
type driverState int

const (
	fresh driverState = iota
	running
	closed
)

// A Driver is a target driver for gotgt, a scsi.SCSITargetDriver. Its methods
// may be called from any goroutine, but not while another one changes gotgt's
// LUN map.
type Driver struct {
	service *scsi.SCSITargetService
	log     *slog.Logger
	stats   *stats // nil: nobody counts
	blocks  atomic.Bool
	group   atomic.Pointer[map[netip.AddrPort]uint16] // by portal
	server  atomic.Pointer[target.Server]             // set once, with mu held
	process *upgradable                               // nil: can't be upgraded

	mu      sync.Mutex // protects what follows; held during an upgrade
	state   driverState
	targets []*driverTarget
	port    uint16        // that Run listens on
	cluster string        // address that SetClusterIP has set
	done    chan struct{} // closed with state closed
	moved   bool          // a successor has taken over

	generation *generation.Generation // set with state running
}

var _ scsi.SCSITargetDriver = (*Driver)(nil)

// driverTarget is a target of a Driver.
type driverTarget struct {
	name    string // as gotgt's LUN map has it
	tid     int
	portals map[netip.AddrPort]uint16 // portal group tags
	units   map[uint16]*unit
}

// NewISCSITargetDriver makes a driver for the targets of a service. gotgt's
// scsi.NewTargetDriver calls it for the name "iscsi".
func NewISCSITargetDriver(service *scsi.SCSITargetService) (scsi.SCSITargetDriver, error) {
	d := &Driver{service: service, log: Log, done: make(chan struct{})}
	if d.log == nil {
		d.log = slog.Default()
	}
	if EnableStats {
		d.stats = new(stats)
	}
	d.group.Store(&map[netip.AddrPort]uint16{})
	return d, nil
}

// NewTarget adds a target: its portal groups are those that c has under
// the name, its logical units those of gotgt's LUN map. It may be called
// before and after Run.
func (d *Driver) NewTarget(name string, c *config.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &driverTarget{name: name, tid: len(d.targets) + 1}
	for _, o := range d.targets {
		if strings.EqualFold(o.name, name) {
			return fmt.Errorf("target %s is there already", name)
		}
	}
	if d.state == closed {
		return net.ErrClosed
	}
	var err error
	if t.portals, err = parsePortals(name, c); err == nil {
		err = d.checkGroups(t)
	}
	if err == nil && d.state == running {
		err = d.serveTarget(t)
	}
	if err == nil {
		err = d.announceToService(t)
	}
	if err != nil {
		return fmt.Errorf("can't add target %s: %w", name, err)
	}
	d.targets = append(d.targets, t)
	d.publishLocked()
	return nil
}

// serveTarget has the server serve a target. The caller holds mu.
func (d *Driver) serveTarget(t *driverTarget) error {
	units, err := mappedUnits(t.name)
	if err != nil {
		return err
	}
	made := make(map[uint16]*engine.LogicalUnit)
	for n, u := range units {
		if made[n], err = u.make(d.log); err != nil {
			return fmt.Errorf("LUN %d: %w", n, err)
		}
	}
	c := &own.Target{Name: t.name, AnyName: true, TID: t.tid, PortalGroups: t.tags()}
	if err := d.server.Load().AddTarget(c, made); err != nil {
		return err
	}
	t.units = units
	return nil
}

// Run serves on a TCP port of all addresses until Close is called or a
// successor has taken over, which are no errors. It may be called once.
func (d *Driver) Run(port int) error {
	err := d.start(port)
	if err != nil {
		err = fmt.Errorf("can't serve iSCSI on port %d: %w", port, err)
		d.log.Error("target driver", "error", err)
		return err
	}
	<-d.done
	return nil
}

// start does what comes before waiting for the end.
func (d *Driver) start(port int) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.state == closed:
		return net.ErrClosed
	case d.state == running:
		return errors.New("the driver runs already")
	case port < 0 || port > 65535:
		return errors.New("there is no such port")
	}
	if d.process, err = claimProcess(d); err != nil {
		return err
	}
	g, err := generation.Start(context.Background(), d.process.supervised(), generation.Options{
		Version: d.process.version(), Log: d.log, Prepare: d.prepare, Serving: d.serving,
		Open:  func(ctx context.Context, s *target.Server) error { return d.open(ctx, s, port) },
		Moved: func() { d.moved = true }, // upgrade holds mu
	})
	if err != nil {
		return err
	}
	d.generation = g
	d.process.tell()
	d.log.Info("serving iSCSI", "address", d.server.Load().Status().Portals[0].Address.String(), "targets", len(d.targets))
	return nil
}

// prepare says what the server is made of. It gets its targets in open.
func (d *Driver) prepare() (target.Options, []string, error) {
	o := target.Options{Admit: d.admit, State: (*handedOver)(d)}
	if d.stats != nil {
		o.Observe = d.stats.observe
	}
	return o, nil, nil
}

// open gives the server all targets so far, and its portal. start holds mu.
func (d *Driver) open(ctx context.Context, s *target.Server, port int) error {
	d.server.Store(s)
	for _, t := range d.targets {
		if err := d.serveTarget(t); err != nil {
			return fmt.Errorf("target %s: %w", t.name, err)
		}
	}
	l, err := d.process.listen(ctx, ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	d.port = l.Addr().(*net.TCPAddr).AddrPort().Port()
	d.publishLocked()
	if err := s.AddPortal(l, unknownGroup, ""); err != nil {
		return errors.Join(err, l.Close())
	}
	return nil
}

// serving notes that the driver runs. start holds mu.
func (d *Driver) serving(*generation.Generation) (status string) {
	d.state = running
	d.process.serving()
	return "serving iSCSI"
}

// Close stops listening, ends all sessions, waits for commands under way and
// flushes the backing stores, which stay open. The second call is an error.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == closed {
		return net.ErrClosed
	}
	return d.endLocked()
}

// endLocked closes what there is to close.
func (d *Driver) endLocked() error {
	var err error
	if d.state == running {
		err = errors.Join(d.server.Load().Close(), d.process.exit())
	}
	d.state = closed
	close(d.done)
	return err
}

// upgrade hands everything over to a successor that the process starts; moved
// tells that there is nothing left here, whatever the error.
func (d *Driver) upgrade(ctx context.Context) (r handoff.Report, moved bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != running {
		return r, false, errors.New("the driver does not run")
	}
	r, err = d.generation.Upgrade(ctx, nil)
	if moved = d.moved; moved {
		err = errors.Join(err, d.endLocked())
	}
	return r, moved, err
}

// EnableBlockMultipleHostLogin refuses connections from all hosts but the one
// that has one already.
func (d *Driver) EnableBlockMultipleHostLogin() { d.blocks.Store(true) }

// Stats returns what was counted since the driver was created, or, across
// upgrades, since its first predecessor was; see [EnableStats]. Times are in
// nanoseconds; as in gotgt, the "IOPS" are numbers of commands and the block
// counts are bytes. Whether an initiator is logged in is told in any case.
func (d *Driver) Stats() scsi.Stats {
	s := d.stats.snapshot()
	if server := d.server.Load(); server != nil {
		for _, session := range server.Status().Sessions {
			s.IsClientConnected = s.IsClientConnected || session.Target != ""
		}
	}
	return s
}

// portalsLocked returns the portals of all targets.
func (d *Driver) portalsLocked() map[netip.AddrPort]uint16 {
	all := make(map[netip.AddrPort]uint16)
	for _, t := range d.targets {
		maps.Copy(all, t.portals)
	}
	return all
}
