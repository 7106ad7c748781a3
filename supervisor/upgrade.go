// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// upgradeState says what a generation may still do.
//
//	serving --Upgrade--> upgrading --callback ok--> handedOver
//	   ^                     |
//	   +------ failure ------+
type upgradeState int

const (
	serving upgradeState = iota
	upgrading
	handedOver
)

var (
	// ErrUpgrading is Upgrade's answer while another one runs.
	ErrUpgrading = errors.New("an upgrade is under way")
	// ErrHandedOver is Upgrade's answer once a successor has taken over.
	ErrHandedOver = errors.New("this generation has handed over already")
)

// readyWait bounds how long a generation that has handed everything over
// waits for its successor's Ready.
const readyWait = 10 * time.Second

// Successor is the generation that an Upgrade has started.
type Successor struct {
	// Conn is the SOCK_SEQPACKET socket to it; its end is Predecessor there.
	// It reads EOF when the successor dies. Upgrade closes it.
	Conn *net.UnixConn

	process *os.Process // nil if it is dead
}

// PID is the successor's process identifier, 0 if it is dead already.
func (s Successor) PID() int {
	if s.process == nil {
		return 0
	}
	return s.process.Pid
}

// Kill sends SIGKILL to the successor. It does no harm to any other process,
// even if the successor has ended.
func (s Successor) Kill() {
	if s.process != nil {
		_ = s.process.Kill()
	}
}

// Upgrade starts a successor from the binary that is now at argv[0] and runs
// handoff, which talks to it. ctx, and with it the context that handoff gets,
// ends at the latest after Options.UpgradeTimeout, and when the successor has
// died.
//
// If handoff returns nil, everything has been handed over: Upgrade waits a
// while for the successor's Ready and returns nil whatever happens. On any
// error before that the successor is killed and reaped, Upgrade returns the
// error, and the caller goes on serving as before.
func (p *Process) Upgrade(ctx context.Context, handoff func(ctx context.Context, s Successor) error) error {
	return p.UpgradeWith(ctx, nil, handoff)
}

// UpgradeWith is [Process.Upgrade] with a briefing, which the successor finds
// in [Process.Briefing] as soon as it has called [Start]: what it has to know
// before it builds anything.
func (p *Process) UpgradeWith(ctx context.Context, briefing []byte, handoff func(ctx context.Context, s Successor) error) error {
	if err := p.begin(); err != nil {
		return err
	}
	if err := p.briefing.write(briefing); err != nil {
		p.end(false)
		return err
	}
	if err := p.Reloading("starting the next generation"); err != nil {
		p.log.Warn("service manager not told of the upgrade", "error", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout,
		fmt.Errorf("the successor did not take over within %v: %w", p.timeout, context.DeadlineExceeded))
	defer cancel()
	pid, err := p.upgrade(ctx, handoff)
	p.end(err == nil)
	if err != nil {
		closeFlipPipes()
		p.reportFailure(err)
		return err
	}
	// A manager that heeds the main process alone learns of the new one here.
	if err := p.Notify(fmt.Sprintf("MAINPID=%d", pid)); err != nil {
		p.log.Warn("service manager not told of the successor", "error", err)
	}
	return nil
}

// reportFailure ends the reload for the service manager: with an error number,
// so that it can tell this from a reload that needed no new process.
func (p *Process) reportFailure(err error) {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.ECANCELED
	}
	if err := p.Notify("READY=1", fmt.Sprintf("ERRNO=%d", int(errno)), "STATUS=upgrade failed: "+err.Error()); err != nil {
		p.log.Warn("service manager not told of the failed upgrade", "error", err)
	}
}

func (p *Process) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.state {
	case upgrading:
		return ErrUpgrading
	case handedOver:
		return ErrHandedOver
	}
	p.state = upgrading
	return nil
}

func (p *Process) end(moved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = serving
	if moved {
		p.state = handedOver
	}
}

// upgrade returns the PID of the successor that has taken over.
func (p *Process) upgrade(ctx context.Context, handoff func(context.Context, Successor) error) (int, error) {
	b, err := p.startLaunch(ctx)
	if err != nil {
		return 0, err
	}
	defer b.conn.Close()
	process, err := b.attach(ctx)
	if err != nil && b.spoke {
		err = b.heardAfterExit(ctx, err, handoff)
	}
	if err != nil {
		return 0, err
	}
	defer process.Release()
	s := Successor{Conn: b.conn, process: process}
	if err := b.watched(ctx, func(ctx context.Context) error { return handoff(ctx, s) }); err != nil {
		s.Kill()
		<-b.done
		// If the successor has exited for a reason of its own, that is most likely the
		// cause of handoff's error: report both. Its death by our own SIGKILL says nothing.
		if b.err != nil && !errors.Is(b.err, errKilled) && !errors.Is(err, b.err) {
			err = fmt.Errorf("%w (%w)", err, b.err)
		}
		return 0, err
	}
	timer := time.NewTimer(readyWait)
	defer timer.Stop()
	select {
	case <-b.done:
		if b.err != nil {
			p.log.Error("the successor took over and is gone", "pid", s.PID(), "error", b.err)
		}
	case <-timer.C:
		p.log.Warn("the successor took over but is not ready", "pid", s.PID(), "waited", readyWait)
	}
	return s.PID(), nil
}
