// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/supervisor/notify"
	"github.com/gotgtd/gotgtd/supervisor/vault"
)

// aim is what happens when the running generation has stopped.
type aim int

const (
	aimStop aim = iota
	aimRestart
)

// Service is a supervised service. One goroutine, that of Run, owns all of
// it; others reach it through the channels.
type Service struct {
	cfg  Config
	log  *slog.Logger
	self string // the path of the supervisor's own binary
	up   upstream

	arrivals chan arrival
	requests chan *request
	ended    chan *generation
	hungUp   chan *storedFile
	done     chan struct{} // closed when Run no longer reads the channels
	helpers  sync.WaitGroup
	complain *limit.Limiter

	sockets []*socket
	store   *fdStore
	vault   *vault.Vault // nil: Config.MaxVault is less than 0
	notify  *notify.Server
	control *net.UnixListener
	metrics *net.TCPListener // nil without Config.Metrics
	began   time.Time

	state    State
	number   int           // of the last generation
	main     *generation   // the one that serves, starts or stops
	next     *generation   // while reloading, the one that is to take over
	retiring []*generation // those that have handed over and have not ended
	known    map[int]bool  // the children that main had when the reload began
	orphans  map[int]bool  // the children that the supervisor had then
	deadline time.Time     // of Starting, Reloading, Stopping
	startAt  time.Time     // of Waiting
	aim      aim           // of Stopping
	quitting bool
	asked    []*request // those to be answered when the state settles
	waiting  []*request // reloads that wait for the end of what is under way, oldest first

	vaultStays bool // the program that was probed can take up the vault

	deaths   int // in a row, for the delay
	restarts int
	reexecs  int
	reloads  Reloads
	failure  Failure
}

// Run supervises a service until ctx ends, and then stops it.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if probing() {
		return answerProbe()
	}
	s := &Service{
		cfg: cfg, log: cfg.Log, state: Stopped, began: time.Now(),
		arrivals: make(chan arrival), requests: make(chan *request),
		ended: make(chan *generation), hungUp: make(chan *storedFile),
		done: make(chan struct{}), complain: limit.New(20, time.Second),
	}
	var err error
	if s.self, err = os.Executable(); err != nil {
		return fmt.Errorf("can't find the supervisor's own binary: %w", err)
	}
	// The service's processes become ours when their parents end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("can't become the service's reaper: %w", err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGHUP)
	if os.Getpid() == 1 {
		signal.Notify(signals, forwarded...)
	}
	defer signal.Stop(signals)
	hups, err := watchHangups(s.hungUp)
	if err != nil {
		return err
	}
	s.store = &fdStore{max: cfg.MaxStored, hups: hups}
	if err := s.open(); err != nil {
		s.shut()
		return err
	}
	if s.vault != nil {
		s.vault.Serve()
	}
	s.serveControl()
	s.serveMetrics()
	s.helpers.Go(s.receive)
	s.loop(ctx, signals)
	s.shut()
	return nil
}

// open takes up what an earlier supervisor has left, or begins anew.
func (s *Service) open() error {
	s.up = newUpstream()
	if state := inheritedState(); state != nil {
		return s.resume(state)
	}
	err := s.listenMetrics()
	if err != nil {
		return err
	}
	if s.control, err = listenControl(s.cfg.Control); err != nil {
		return err
	}
	if err := refuseLeftOvers(notifyPath(s.cfg.Control)); err != nil {
		return err
	}
	var stored []*os.File
	s.sockets, stored, err = openSockets(s.cfg.Listen, passedFiles())
	if err != nil {
		return err
	}
	if n := len(stored); n > 0 {
		s.log.Info("descriptors taken up from the service manager: the supervisor before this one has left them", "stored", n)
	}
	if err := s.store.takeUp(stored, false); err != nil {
		s.log.Warn("stored descriptors refused", "error", err)
	}
	for _, o := range s.sockets {
		s.log.Info("socket held", "name", o.name, "address", o.address, "bound", o.bound)
		if !o.bound {
			continue
		}
		if err := s.up.Store(boundPrefix+o.name, o.file); err != nil {
			s.log.Warn("socket not kept by the service manager", "name", o.name, "error", err)
		}
	}
	if err := s.openVault(nil); err != nil {
		return err
	}
	path := notifyPath(s.cfg.Control)
	if err := removeNotify(path); err != nil {
		return err
	}
	if s.notify, err = notify.Listen(path); err != nil {
		return err
	}
	s.begin()
	return nil
}

// removeNotify removes the socket of an earlier run; the control socket, which
// is taken first, rules out that it is in use.
func removeNotify(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("can't make the notification socket: %w", err)
	}
	return nil
}

// shut ends the helpers and closes everything.
func (s *Service) shut() {
	close(s.done)
	if s.notify != nil {
		_ = s.notify.Close()
		_ = os.Remove(notifyPath(s.cfg.Control))
	}
	if s.control != nil {
		_ = s.control.Close()
		_ = os.Remove(s.cfg.Control)
	}
	if s.metrics != nil {
		_ = s.metrics.Close()
	}
	for _, g := range s.tracked() {
		g.release()
		g.watch.Wait()
	}
	s.helpers.Wait()
	if s.vault != nil {
		s.vault.Close()
	}
	s.store.closeAll()
	s.store.hups.close()
	closeSockets(s.sockets)
}

// loop deals with events until the service is to end and has ended.
func (s *Service) loop(ctx context.Context, signals <-chan os.Signal) {
	quit := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !s.finished() {
		s.arm(timer)
		select {
		case <-quit:
			quit = nil
			s.quit()
		case sig := <-signals:
			s.signalled(sig)
		case g := <-s.ended:
			s.hasDied(g, "")
		case a := <-s.arrivals:
			a.heard <- s.hearNext()
		case r := <-s.requests:
			s.handle(r)
		case f := <-s.hungUp:
			s.hangUp(f)
		case <-timer.C:
			s.tick(time.Now())
		}
		s.attendWaiting(time.Now())
	}
}

// forwarded are the signals that a supervisor which is PID 1 passes on to the service. From
// outside of a container only its PID 1 is signalled; elsewhere the service can be signalled
// itself.
var forwarded = []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2}

// signalled deals with a signal.
func (s *Service) signalled(sig os.Signal) {
	switch sig {
	case syscall.SIGHUP:
		s.handle(newRequest(verbReload))
	case syscall.SIGCHLD:
		s.reap()
	default:
		if s.main == nil {
			return
		}
		if err := s.main.signal(sig.(syscall.Signal)); err != nil {
			s.log.Warn("signal not forwarded", "signal", sig.String(), "pid", s.main.pid, "error", err)
		}
	}
}

func (s *Service) finished() bool {
	return s.quitting && s.main == nil && s.next == nil && len(s.retiring) == 0
}

// tracked returns the generations whose processes have not ended.
func (s *Service) tracked() []*generation {
	var all []*generation
	for _, g := range append([]*generation{s.main, s.next}, s.retiring...) {
		if g != nil {
			all = append(all, g)
		}
	}
	return all
}

// arm sets the timer to what is due next.
func (s *Service) arm(timer *time.Timer) {
	var due time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	consider(s.deadline)
	consider(s.startAt)
	consider(s.up.due())
	if len(s.waiting) > 0 {
		consider(s.waiting[0].until)
	}
	for _, g := range s.tracked() {
		consider(g.killBy)
	}
	if s.main != nil {
		consider(s.main.pingBy)
	}
	timer.Stop()
	if !due.IsZero() {
		timer.Reset(time.Until(due))
	}
}

// tick does what is due.
func (s *Service) tick(now time.Time) {
	isDue := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	s.up.tick(now)
	for _, g := range s.tracked() {
		if isDue(g.killBy) {
			g.killBy = time.Time{}
			cause := g.cause // why it was to end, if that was no request
			if cause == "" {
				cause = fmt.Sprintf("it did not end within %v", s.cfg.StopTimeout)
			}
			g.kill(cause)
		}
	}
	if s.main != nil && isDue(s.main.pingBy) {
		s.expireWatchdog("it gave no sign of life for " + s.main.watchdog.String())
	}
	if isDue(s.startAt) {
		s.startAt = time.Time{}
		s.begin()
	}
	if isDue(s.deadline) {
		s.deadline = time.Time{}
		s.expire()
	}
}
