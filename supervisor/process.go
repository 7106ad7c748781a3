// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// DefaultUpgradeTimeout is how long a successor may take to take over.
const DefaultUpgradeTimeout = 30 * time.Second

// GenerationVariable is the environment variable in which a service manager
// that counts generations itself (upgraded does) tells a process its number.
const GenerationVariable = "SUPERVISOR_GENERATION"

// Options say how a process is supervised. The zero value is valid.
type Options struct {
	// Log receives what has no caller to be returned to. Nil means none.
	Log *slog.Logger

	// UpgradeTimeout bounds the time from the start of a successor to the end
	// of the hand-over. Zero means DefaultUpgradeTimeout.
	UpgradeTimeout time.Duration

	// os is what the operating system does; its zero value means the real one.
	os system
}

// system holds what a Process wants of the operating system, for fakes.
type system struct {
	newUpgrader func(timeout time.Duration) (upgrader, error)
	activation  func() []*os.File
	getenv      func(string) string
	unsetenv    func(string) error
}

func (s system) withDefaults() system {
	if s.newUpgrader == nil {
		s.newUpgrader = newTableflip
	}
	if s.activation == nil {
		s.activation = func() []*os.File { return activation.Files(true) }
	}
	if s.getenv == nil {
		s.getenv = os.Getenv
	}
	if s.unsetenv == nil {
		s.unsetenv = os.Unsetenv
	}
	return s
}

// A Process is the running generation of a daemon. Its methods may be called
// from any goroutine.
type Process struct {
	log        *slog.Logger
	timeout    time.Duration
	upg        upgrader
	slot       *slot
	briefing   *briefing
	manager    notify.Client
	watchdog   time.Duration
	generation int
	pred       *net.UnixConn
	stored     []Stored
	vault      *os.File // nil: the service manager has none

	mu        sync.Mutex // protects what follows
	listeners []*heldListener
	hooks     []hook
	state     upgradeState
	ready     bool // Ready was called

	exitOnce sync.Once
	exitErr  error
}

// hook is a function to run when the process ends.
type hook struct {
	name string
	run  func(context.Context) error
}

// Start finds out how the process was started and takes over the descriptors that it was given.
// It must be called once, before the daemon starts any process of its own. It
// takes LISTEN_* and WATCHDOG_PID out of the environment, because they are
// meant for this process and not for its successor.
func Start(o Options) (*Process, error) {
	sys := o.os.withDefaults()
	p := &Process{log: o.Log, timeout: o.UpgradeTimeout, generation: 1}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.timeout <= 0 {
		p.timeout = DefaultUpgradeTimeout
	}
	var err error
	p.upg, err = sys.newUpgrader(p.timeout)
	if err != nil {
		return nil, fmt.Errorf("can't take up the predecessor's files: %w", err)
	}
	if err := p.readEnvironment(sys); err != nil {
		p.upg.Stop()
		return nil, err
	}
	if p.upg.HasParent() {
		err = p.takeInheritance()
	} else {
		p.takeActivation(sys.activation())
		p.slot, err = newSlot(p.upg)
	}
	if err == nil {
		p.briefing, err = takeBriefing(p.upg)
	}
	if err == nil {
		err = p.takeVault(sys)
	}
	if err != nil {
		p.upg.Stop()
		return nil, err
	}
	return p, nil
}

// readEnvironment reads the service manager's variables, and takes away those
// that name this process or its predecessor.
func (p *Process) readEnvironment(sys system) error {
	if p.upg.HasParent() {
		hideFlipPipes()
		// These were set for the predecessor, and inherited with its environment.
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"} {
			if err := sys.unsetenv(name); err != nil {
				return err
			}
		}
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		p.log.Warn("watchdog settings are not usable", "error", err)
	}
	p.watchdog = interval
	p.manager = notify.NewClient(sys.getenv("NOTIFY_SOCKET"))
	if n, err := strconv.Atoi(sys.getenv(GenerationVariable)); err == nil && n > 0 {
		p.generation = n
	}
	for _, name := range []string{"WATCHDOG_PID", tableflipVariable, GenerationVariable} {
		if err := sys.unsetenv(name); err != nil {
			return err
		}
	}
	return nil
}

// Generation is 1 for the first process of a service and one more for each
// successor. Under a service manager that counts, it goes on counting across
// restarts.
func (p *Process) Generation() int { return p.generation }

// Predecessor is the SOCK_SEQPACKET socket to the generation that started
// this one, or nil if there is none. The caller owns it and closes it.
func (p *Process) Predecessor() *net.UnixConn { return p.pred }

// Briefing returns what the predecessor has left by [Process.UpgradeWith], nil
// if that was nothing or there is none. After [Process.Ready] it is gone.
func (p *Process) Briefing() []byte { return p.briefing.text }

// Ready tells the predecessor and the service manager that this process
// serves. A successor calls it after it has told its predecessor that it has
// taken over. Listeners that the predecessor had bound and that this process
// has not asked for with Listen are closed.
func (p *Process) Ready(status string) error {
	p.mu.Lock()
	p.ready = true
	p.mu.Unlock()
	p.dropUnclaimed()
	if err := p.briefing.forget(); err != nil {
		p.log.Warn("the predecessor's briefing is kept", "error", err)
	}
	if err := p.upg.Ready(); err != nil {
		// The hand-over is done; a predecessor that has gone already is no
		// reason not to serve.
		p.log.Warn("the predecessor could not be told of readiness", "error", err)
	}
	fields := []string{"READY=1", fmt.Sprintf("MAINPID=%d", os.Getpid())}
	if status != "" {
		fields = append(fields, "STATUS="+status)
	}
	return p.Notify(fields...)
}

// AtExit registers a function that Exit runs, whether the process ends for
// good or because a successor has taken over. name is for error messages.
func (p *Process) AtExit(name string, run func(context.Context) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hooks = append(p.hooks, hook{name, run})
}

// Exit runs the AtExit functions in the order in which they were registered,
// and lets go of the listeners. A hook that fails does not keep the next from
// running; all errors are returned joined. Further calls do nothing more and
// return what the first one did.
func (p *Process) Exit(ctx context.Context) error {
	p.exitOnce.Do(func() { p.exitErr = p.exit(ctx) })
	return p.exitErr
}

func (p *Process) exit(ctx context.Context) error {
	p.mu.Lock()
	hooks := p.hooks
	// A successor that fails sends no STOPPING=1 and unlinks no socket: its predecessor goes on.
	serves := p.state != handedOver && (p.ready || p.pred == nil)
	p.mu.Unlock()
	var errs []error
	if serves {
		errs = append(errs, p.Stopping(""))
	}
	for _, h := range hooks {
		if err := h.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", h.name, err))
		}
	}
	p.closeListeners(serves)
	p.upg.Stop()
	p.slot.close()
	p.briefing.close()
	if p.vault != nil {
		_ = p.vault.Close()
	}
	return errors.Join(errs...)
}
