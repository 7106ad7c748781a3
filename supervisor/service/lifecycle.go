// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/supervisor"
	"github.com/gotgtd/gotgtd/supervisor/internal/kernel"
)

// Failure is the last thing that went wrong.
type Failure struct {
	Time   time.Time `json:"time,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// failed notes and logs what went wrong.
func (s *Service) failed(err error) {
	s.failure = Failure{time.Now(), err.Error()}
	s.log.Error("failure", "error", err, "state", string(s.state), "generation", s.number)
}

// launchGeneration starts a process of the service.
func (s *Service) launchGeneration() (*generation, error) {
	number := s.number + 1
	l := launch{command: s.cfg.Command, env: []string{
		"NOTIFY_SOCKET=" + notifyPath(s.cfg.Control),
		supervisor.GenerationVariable + "=" + strconv.Itoa(number),
	}}
	if s.cfg.Watchdog > 0 {
		// Launch puts its own PID in.
		l.env = append(l.env, "WATCHDOG_USEC="+strconv.FormatInt(s.cfg.Watchdog.Microseconds(), 10), "WATCHDOG_PID=0")
	}
	for _, o := range s.sockets {
		l.files, l.names = append(l.files, o.file), append(l.names, o.name)
	}
	for _, f := range s.store.files {
		l.files, l.names = append(l.files, f.file), append(l.names, f.name)
	}
	if s.vault != nil {
		l.vault = s.vault.Door()
	}
	pid, err := l.start()
	if err != nil {
		if pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // a child that is not reaped yet
		}
		return nil, err
	}
	g, err := hold(number, pid, s.ended, s.done)
	if err != nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		return nil, err
	}
	s.number = number
	g.watchdog = s.cfg.Watchdog
	s.log.Info("generation started", "generation", number, "pid", pid)
	return g, nil
}

// begin starts the service when none of it runs.
func (s *Service) begin() {
	if !s.move(Starting) {
		return
	}
	g, err := s.launchGeneration()
	if err != nil {
		s.failed(err)
		s.retryLater(err)
		return
	}
	s.main = g
	s.deadline = time.Now().Add(s.cfg.ReadyTimeout)
	s.up.text(s.summary())
	if s.cfg.Readiness == ReadyByExec {
		s.isReady(g)
	}
}

// isReady makes g the generation that serves.
func (s *Service) isReady(g *generation) {
	g.ready = time.Now()
	if g.watchdog > 0 {
		g.pingBy = g.ready.Add(g.watchdog)
	}
	if g != s.main {
		s.retire(s.main)
		s.main, s.next = g, nil
	}
	s.log.Info("generation serves", "generation", g.number, "pid", g.pid, "after", g.ready.Sub(g.started).Round(time.Millisecond))
	s.up.ready(s.summary())
	s.settle(Serving, nil)
}

// retire lets a generation that has been replaced end, within the time for
// it.
func (s *Service) retire(g *generation) {
	if g == nil {
		return
	}
	g.pingBy = time.Time{}
	g.killBy = time.Now().Add(s.cfg.StopTimeout)
	s.retiring = append(s.retiring, g)
	if s.cfg.Strategy == Overlap {
		_ = g.signal(syscall.SIGTERM)
	}
}

// reload replaces the service by the strategy.
func (s *Service) reload() {
	switch s.cfg.Strategy {
	case Restart:
		s.stop(aimRestart)
		return
	case Overlap:
		g, err := s.launchGeneration()
		if err != nil {
			err = fmt.Errorf("the new generation did not start: %w", err)
			s.failed(err)
			s.countReload(err)
			s.answerAsked(err) // and nothing has changed
			return
		}
		s.enterReloading("")
		s.next = g
		if s.cfg.Readiness == ReadyByExec {
			s.isReady(g)
		}
	case Handoff:
		s.enterReloading("")
		if err := s.main.signal(syscall.SIGHUP); err != nil {
			s.reloadFailed(fmt.Errorf("can't signal process %d: %w", s.main.pid, err))
		}
	}
}

func (s *Service) enterReloading(status string) {
	if !s.move(Reloading) {
		return
	}
	s.deadline = time.Now().Add(s.cfg.ReadyTimeout)
	s.known, s.orphans = childrenOf(s.main.pid), childrenOf(os.Getpid())
	s.main.errno = 0
	s.up.reloading(status)
}

func childrenOf(parent int) map[int]bool {
	set := map[int]bool{}
	for _, pid := range kernel.Children(parent) {
		set[pid] = true
	}
	return set
}

// reloadFailed goes back to the generation that has been serving all along.
func (s *Service) reloadFailed(err error) {
	s.failed(fmt.Errorf("reload: %w", err))
	s.dropNext("the reload failed")
	s.settle(Serving, err)
	s.up.ready(s.summary())
}

// dropNext kills what was to take over.
func (s *Service) dropNext(cause string) {
	if s.next != nil {
		s.next.kill(cause)
		s.next.killBy = time.Time{}
		s.retiring = append(s.retiring, s.next)
		s.next = nil
	}
	if s.main == nil || s.cfg.Strategy != Handoff {
		return
	}
	for _, pid := range kernel.Children(s.main.pid) {
		if !s.known[pid] {
			s.log.Warn("successor killed", "pid", pid, "cause", cause)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// stop ends the running generation; what comes then is the aim.
func (s *Service) stop(a aim) {
	if s.state == Reloading {
		s.dropNext("the service is being stopped")
	}
	s.aim = a
	s.startAt = time.Time{}
	if s.main == nil {
		s.hasStopped()
		return
	}
	if !s.move(Stopping) {
		return
	}
	s.deadline = time.Time{}
	s.main.pingBy = time.Time{}
	s.main.killBy = time.Now().Add(s.cfg.StopTimeout)
	s.up.text(s.summary())
	_ = s.main.signal(syscall.SIGTERM)
}

func (s *Service) hasStopped() {
	s.killStrays()
	if s.aim == aimRestart && !s.quitting {
		s.begin()
		return
	}
	s.discardVault()
	s.settle(Stopped, nil)
	s.up.text(s.summary())
}

// quit stops everything for good.
func (s *Service) quit() {
	s.quitting = true
	s.up.stopping()
	err := errors.New("the supervisor is ending")
	s.answerAsked(err)
	s.answerWaiting(err)
	for _, g := range s.retiring {
		_ = g.signal(syscall.SIGTERM)
	}
	s.stop(aimStop)
}

// reap collects every child that has ended, each after it has been found to have ended and
// what it has sent was heard, in this order.
func (s *Service) reap() {
	for {
		pid := endedChild()
		if pid == 0 {
			return
		}
		s.drain()
		status, err := collect(pid)
		if err != nil {
			return
		}
		for _, g := range s.tracked() {
			if g.pid == pid {
				s.hasDied(g, describe(status))
			}
		}
	}
}

// hasDied deals with the end of a generation's process. how is empty if it is
// not known yet. A generation that has been dealt with is not tracked any
// more.
func (s *Service) hasDied(g *generation, how string) {
	if how == "" {
		s.drain()
		how = g.reap()
	}
	if g.cause != "" {
		how += ": " + g.cause
	}
	for i, r := range s.retiring {
		if r == g {
			s.retiring = append(s.retiring[:i], s.retiring[i+1:]...)
			s.log.Info("old generation ended", "generation", g.number, "pid", g.pid, "how", how)
			g.release()
			return
		}
	}
	err := fmt.Errorf("generation %d (process %d) %s", g.number, g.pid, how)
	switch g {
	case s.next:
		s.next = nil
		g.release()
		s.nextDied(fmt.Errorf("%w before it was ready", err))
	case s.main:
		s.main = nil
		g.release()
		s.mainDied(g, err)
	}
}

func (s *Service) nextDied(err error) {
	if s.main != nil {
		s.reloadFailed(err)
		return
	}
	s.failed(err)
	s.retryLater(err)
}

func (s *Service) mainDied(g *generation, err error) {
	switch s.state {
	case Stopping:
		s.log.Info("generation stopped", "generation", g.number, "pid", g.pid, "how", err)
		s.hasStopped()
		return
	case Reloading:
		if s.next != nil || s.cfg.Strategy == Handoff && len(s.strays()) > 0 {
			// Its successor may be about to take over.
			s.log.Warn("the old generation ended during a reload", "error", err)
			return
		}
	}
	if s.state == Starting {
		err = fmt.Errorf("%w before it was ready", err)
	}
	if !g.ready.IsZero() && time.Since(g.ready) >= provenAfter {
		s.deaths = 0
	}
	s.failed(err)
	s.retryLater(err)
}

// retryLater starts the service anew after the delay that is due.
func (s *Service) retryLater(err error) {
	s.killStrays()
	s.settle(Waiting, err)
	delay := restartDelay(s.deaths, s.cfg.RestartDelay)
	s.deaths++
	s.restarts++
	s.startAt = time.Now().Add(delay)
	s.log.Info("restart", "in", delay, "restarts", s.restarts)
	s.up.text(s.summary())
}

// restartDelay is the delay before the restart after that many others.
func restartDelay(deaths int, base time.Duration) time.Duration {
	if deaths == 0 {
		return 0
	}
	delay := base
	for range deaths - 1 {
		if delay >= maxRestartDelay {
			break
		}
		delay *= 2
	}
	return min(delay, maxRestartDelay)
}

// expire deals with a start or a reload that takes too long.
func (s *Service) expire() {
	late := fmt.Errorf("not ready within %v", s.cfg.ReadyTimeout)
	switch {
	case s.state == Starting:
		s.main.kill(late.Error())
	case s.state == Reloading && s.main != nil:
		s.reloadFailed(fmt.Errorf("the new generation was %w", late))
	case s.state == Reloading && s.next != nil:
		s.next.kill(late.Error())
	case s.state == Reloading:
		s.failed(late)
		s.retryLater(late)
	}
}

// expireWatchdog kills a generation that hangs. A core dump shows where.
func (s *Service) expireWatchdog(cause string) {
	g := s.main
	g.pingBy = time.Time{}
	g.cause = "watchdog: " + cause
	// A stopped process takes SIGABRT when it goes on, which SIGCONT brings
	// about; one that ignores both is killed.
	_ = g.signal(syscall.SIGABRT)
	_ = g.signal(syscall.SIGCONT)
	g.killBy = time.Now().Add(abortTime)
}

// abortTime is the time that a hanging service has for its core dump.
const abortTime = 2 * time.Second

// strays returns the PIDs of the processes below the supervisor that belong to
// no generation, which are what a dead one has left.
func (s *Service) strays() []int {
	mine := map[int]bool{}
	for _, g := range s.tracked() {
		mine[g.pid] = true
	}
	var found []int
	todo := []int{os.Getpid()}
	for len(todo) > 0 {
		parent := todo[0]
		todo = todo[1:]
		for _, pid := range kernel.Children(parent) {
			if !mine[pid] && pidAlive(pid) {
				found, todo = append(found, pid), append(todo, pid)
			}
		}
	}
	return found
}

// killStrays ends what a dead generation has left.
func (s *Service) killStrays() {
	for _, pid := range s.strays() {
		s.log.Info("left-over process killed", "pid", pid)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			s.log.Warn("left-over process not killed", "pid", pid, "error", err)
		}
	}
}
