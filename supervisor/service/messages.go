// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/gotgtd/gotgtd/internal/limit"
	"github.com/gotgtd/gotgtd/supervisor/notify"
)

const (
	// messageRate bounds the notifications that are heard, a second. Beyond
	// it the socket's queue fills, and its senders wait.
	messageRate = 500
	// floodLogged bounds how often the log says that they are held up.
	floodLogged = 10 * time.Second
	// maxExtension bounds what EXTEND_TIMEOUT_USEC can ask for at a time.
	maxExtension = time.Hour
	// maxStatus bounds the STATUS that is kept, in bytes.
	maxStatus = 512
)

// receive has the owner hear one notification after the other.
func (s *Service) receive() {
	pace := limit.New(messageRate, time.Second)
	// Apart from the other complaints: a flood of bad messages uses those up.
	floods := limit.New(1, floodLogged)
	for {
		if err := s.notify.Wait(); err != nil {
			s.deaf(err)
			return
		}
		a := arrival{make(chan heard, 1)}
		select {
		case s.arrivals <- a:
		case <-s.done:
			return
		}
		h := <-a.heard
		if h.err != nil {
			s.deaf(h.err)
			return
		}
		if h.none {
			continue
		}
		if pace.Wait(s.done) {
			floods.Log(s.log, slog.LevelWarn, "notifications come too fast, and have to wait", "pid", h.sender, "bound_per_second", messageRate)
		}
	}
}

// An arrival tells the owner that a notification can be received.
type arrival struct{ heard chan heard }

// heard is what has become of an arrival.
type heard struct {
	sender int
	none   bool  // there was none any more
	err    error // the socket can't be used
}

func (s *Service) deaf(err error) {
	if !errors.Is(err, net.ErrClosed) {
		s.log.Error("notifications can't be received any more: upgraded reexec mends that", "error", err)
	}
}

// hearNext receives a notification, if there is one, and deals with it. The owner does both, so
// that none is ever between the socket and the owner when that looks whether there are more.
func (s *Service) hearNext() heard {
	m, err := s.notify.TryReceive()
	var bad *notify.BadMessage
	switch {
	case errors.As(err, &bad):
		s.complainf("notification refused", "error", err)
		return heard{sender: bad.PID}
	case err != nil:
		return heard{err: err}
	case m == nil:
		return heard{none: true}
	}
	defer m.Close()
	s.hear(m)
	return heard{sender: m.PID}
}

// maxDrained bounds the notifications that are heard before a reap. It is twice what systemd has the kernel
// queue (net.unix.max_dgram_qlen), so that only a flood is cut off.
const maxDrained = 1024

// drain hears what has been sent so far. A process that has ended is known by its PID until it is
// reaped, and no longer: what it had sent just before would come from a stranger.
func (s *Service) drain() {
	if s.notify == nil {
		return
	}
	for range maxDrained {
		if h := s.hearNext(); h.none || h.err != nil {
			return
		}
	}
}

// complainf logs what anyone can bring about, as often as is useful.
func (s *Service) complainf(text string, args ...any) {
	s.complain.Log(s.log, slog.LevelWarn, text, args...)
}

// hear deals with a message. What has no right to be sent is refused and
// logged.
func (s *Service) hear(m *notify.Message) {
	chain := ancestry(m.PID)
	if chain == nil {
		s.complainf("notification refused", "pid", m.PID, "error", errNotDescendant)
		return
	}
	if m.Is("BARRIER") {
		// Its descriptor is closed when this is done. It tells the sender
		// that all it has sent before was heard.
		return
	}
	if text, ok := m.Field("MAINPID"); ok {
		if err := s.hearMainPID(m, chain); err != nil {
			s.complainf("MAINPID refused", "pid", m.PID, "mainpid", text, "error", err)
			return
		}
	}
	g := s.generationOf(chain)
	if g == nil {
		s.complainf("notification refused", "pid", m.PID, "error", "it belongs to no generation that runs")
		return
	}
	s.hearNews(g, m)
	s.hearFiles(m)
	s.hearPhase(g, m)
}

// generationOf returns the generation to which the first of the processes
// that is a generation's belongs.
func (s *Service) generationOf(chain []int) *generation {
	for _, pid := range chain {
		for _, g := range s.tracked() {
			if g.pid == pid {
				return g
			}
		}
	}
	return nil
}

// hearMainPID notes which process is to be the service's main one: the old
// main process may name any of the service, and during a reload a process may
// name itself.
func (s *Service) hearMainPID(m *notify.Message, chain []int) error {
	pid, ok := m.Int("MAINPID")
	if !ok {
		return errors.New("it is no number")
	}
	for _, g := range s.tracked() {
		if g.pid == pid {
			return nil
		}
	}
	switch {
	case ancestry(pid) == nil:
		return errNotDescendant
	case s.main != nil && m.PID == s.main.pid && s.state != Stopping:
	case s.state == Reloading && m.PID == pid && s.mayFollow(chain):
	case s.state == Reloading:
		return errors.New("only the successor itself or the main process can name it")
	default:
		return errors.New("no reload is under way")
	}
	if s.next != nil {
		return fmt.Errorf("process %d is to take over already", s.next.pid)
	}
	g, err := hold(s.number+1, pid, s.ended, s.done)
	if err != nil {
		return err
	}
	g.watchdog = s.cfg.Watchdog
	s.number = g.number
	s.next = g
	s.log.Info("successor known", "generation", g.number, "pid", pid)
	if s.state != Reloading {
		// A service that goes to the background: it is as ready as it was.
		s.retire(s.main)
		g.ready = s.main.ready
		s.main, s.next = g, nil
	}
	return nil
}

// mayFollow reports whether a process can be the successor: it descends from
// the main process, or has been left behind by it since the reload began. That
// can be before the end of the main process is known anywhere: the kernel gives
// away the children of a process at the beginning of its end.
func (s *Service) mayFollow(chain []int) bool {
	if s.main != nil && slices.Contains(chain, s.main.pid) {
		return true
	}
	return s.generationOf(chain) == nil && !s.orphans[chain[len(chain)-1]]
}

// hearNews takes note of what changes no state.
func (s *Service) hearNews(g *generation, m *notify.Message) {
	if text, ok := m.Field("STATUS"); ok {
		g.status = text[:min(len(text), maxStatus)]
		if g == s.main {
			s.up.text(s.summary())
		}
	}
	if n, ok := m.Int("ERRNO"); ok {
		g.errno = n
	}
	if d, ok := m.Duration("WATCHDOG_USEC"); ok {
		g.watchdog, g.pingBy = d, time.Time{}
		if d > 0 && !g.ready.IsZero() {
			g.pingBy = time.Now().Add(d)
		}
	}
	if d, ok := m.Duration("EXTEND_TIMEOUT_USEC"); ok {
		s.extend(g, min(d, maxExtension))
	}
	switch value, _ := m.Field("WATCHDOG"); {
	case value == "1" && !g.pingBy.IsZero():
		g.pingBy = time.Now().Add(g.watchdog)
	case value == "trigger" && g == s.main && s.state != Stopping:
		s.expireWatchdog("the service asked for it")
	}
}

// extend gives a generation more time for what it is at. systemd has a time
// limit of its own for the same.
func (s *Service) extend(g *generation, d time.Duration) {
	later := time.Now().Add(d)
	limit := &s.deadline
	if !g.killBy.IsZero() {
		limit = &g.killBy
	}
	if limit.IsZero() || g.cause != "" {
		return
	}
	if later.After(*limit) {
		*limit = later
	}
	s.up.extend(d)
}

// hearFiles puts descriptors into the store and takes them out.
func (s *Service) hearFiles(m *notify.Message) {
	name, _ := m.Field("FDNAME")
	if m.Is("FDSTOREREMOVE") {
		if s.store.remove(func(f *storedFile) bool { return f.name == name }) > 0 {
			_ = s.up.Unstore(name)
		}
		return
	}
	if !m.Is("FDSTORE") {
		return
	}
	if name == "" {
		name = defaultStoredName
	}
	value, _ := m.Field("FDPOLL")
	poll, keep := true, s.up.StorePolled
	if value == "0" {
		poll, keep = false, s.up.Store
	}
	for i, f := range m.Files {
		if err := s.store.add(name, f, poll); err != nil {
			s.complainf("descriptor refused", "pid", m.PID, "name", name, "error", err)
			continue
		}
		m.Files[i] = nil // the store's now
		if err := keep(name, f); err != nil {
			s.complainf("descriptor not kept by the service manager", "name", name, "error", err)
		}
	}
	m.Files = slices.DeleteFunc(m.Files, func(f *os.File) bool { return f == nil })
}

// hangUp drops a stored descriptor whose other end is gone.
func (s *Service) hangUp(f *storedFile) {
	if s.store.remove(func(have *storedFile) bool { return have == f }) > 0 {
		s.log.Info("stored descriptor hung up", "name", f.name)
	}
}

// hearPhase deals with RELOADING, READY and STOPPING.
func (s *Service) hearPhase(g *generation, m *notify.Message) {
	switch {
	case m.Is("READY") && g == s.next:
		s.isReady(g)
	case m.Is("READY") && g == s.main && s.state == Starting:
		s.isReady(g)
	case m.Is("READY") && m.PID == g.pid && g == s.main && s.state == Reloading && s.cfg.Strategy == Handoff:
		s.reloadedInPlace(g)
	case m.Is("RELOADING") && g == s.main && s.state == Serving:
		s.log.Info("the service reloads by itself", "generation", g.number)
		s.enterReloading(g.status)
	case m.Is("STOPPING") && g == s.main && s.state != Stopping:
		s.log.Info("the service is ending by itself", "generation", g.number)
	}
}

// reloadedInPlace ends a reload after which the old process goes on: with
// ERRNO it has failed to replace itself, without it saw no need to.
func (s *Service) reloadedInPlace(g *generation) {
	if g.errno != 0 {
		reason := g.status
		if reason == "" {
			reason = fmt.Sprintf("error number %d", g.errno)
		}
		s.reloadFailed(errors.New(reason))
		return
	}
	s.log.Info("reloaded in place", "generation", g.number)
	s.settle(Serving, nil)
	s.up.ready(s.summary())
}
