// SPDX-License-Identifier: Apache-2.0

// Package service supervises one service: it holds the service's listening
// sockets, starts it, replaces it on request and restarts it when it dies. It
// is a service manager to the service, and a service to systemd.
package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/supervisor/notify"
)

// Strategy is how one generation is replaced by the next.
type Strategy string

const (
	// Handoff sends SIGHUP: the service starts its successor itself, and
	// tells with MAINPID which it is. Package supervisor does that.
	Handoff Strategy = "handoff"
	// Overlap starts the new generation and stops the old one when the new
	// one is ready.
	Overlap Strategy = "overlap"
	// Restart stops the old generation and starts the new one. Connections
	// wait in the sockets' backlog meanwhile.
	Restart Strategy = "restart"
)

// Readiness is how a started service is known to be ready.
type Readiness string

const (
	// ReadyByNotify waits for READY=1.
	ReadyByNotify Readiness = "notify"
	// ReadyByExec takes a service that has been executed for ready.
	ReadyByExec Readiness = "exec"
)

// Defaults of Config.
const (
	DefaultReadyTimeout = 60 * time.Second
	DefaultStopTimeout  = 30 * time.Second
	DefaultRestartDelay = 50 * time.Millisecond
	DefaultMaxStored    = 512
	DefaultMaxVault     = 8192

	// maxRestartDelay bounds the delay between two attempts.
	maxRestartDelay = 5 * time.Second
	// provenAfter is how long a generation serves before its death counts as
	// the first one.
	provenAfter = 10 * time.Second
	// maxSockets bounds the sockets that the service is given.
	maxSockets = 128
)

// Listen is a socket to bind.
type Listen struct {
	Name    string
	Address string // "host:port", "/path" or "@abstract"
}

// ParseListen reads NAME=ADDRESS.
func ParseListen(text string) (Listen, error) {
	name, address, found := strings.Cut(text, "=")
	if !found || address == "" {
		return Listen{}, fmt.Errorf("can't listen on %q: it is not NAME=ADDRESS", text)
	}
	if err := notify.CheckName(name); err != nil {
		return Listen{}, fmt.Errorf("can't listen on %q: %w", text, err)
	}
	l := Listen{name, address}
	if l.network() == "tcp" {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return Listen{}, fmt.Errorf("can't listen on %q: %w", text, err)
		}
	}
	return l, nil
}

func (l Listen) network() string {
	if strings.HasPrefix(l.Address, "/") || strings.HasPrefix(l.Address, "@") {
		return "unix"
	}
	return "tcp"
}

// Config says what to supervise and how.
type Config struct {
	// Command is the program and its arguments. The program's path is looked
	// up anew at every start.
	Command []string
	// Listen are sockets to bind, except those whose name is among what
	// systemd has passed.
	Listen []Listen
	// Control is the path of the control socket.
	Control string
	// Strategy is how a reload replaces the service; empty means Handoff.
	Strategy Strategy
	// Readiness is how a start is known to be done; empty means ReadyByNotify.
	Readiness Readiness
	// ReadyTimeout bounds a start and a reload; 0 means DefaultReadyTimeout.
	ReadyTimeout time.Duration
	// StopTimeout is the time from SIGTERM to SIGKILL; 0 means
	// DefaultStopTimeout.
	StopTimeout time.Duration
	// RestartDelay is the second restart's delay. The first is made at once,
	// and the delay doubles up to 5 s. 0 means DefaultRestartDelay.
	RestartDelay time.Duration
	// MaxStored bounds the descriptors that the service may store; 0 means
	// DefaultMaxStored, less than 0 means none.
	MaxStored int
	// MaxVault bounds the descriptors in the vault; 0 means DefaultMaxVault, less
	// than 0 that there is none.
	MaxVault int
	// Watchdog is the time after which a service that has sent no WATCHDOG=1
	// is killed and restarted; 0 means never.
	Watchdog time.Duration
	// Metrics is a TCP address at which Prometheus can ask; empty means none.
	Metrics string
	// Version is what status shows as the supervisor's version.
	Version string
	// Log is where events go; nil means none.
	Log *slog.Logger
}

// check fills in defaults and reports what can't be.
func (c *Config) check() error {
	if len(c.Command) == 0 {
		return errors.New("there is no command to run")
	}
	if c.Control == "" {
		return errors.New("there is no control socket")
	}
	if len(notifyPath(c.Control)) > maxUnixPath {
		return fmt.Errorf("control socket %q: the path has more than %d bytes", c.Control, maxUnixPath-len(notifySuffix))
	}
	if c.Metrics != "" {
		if _, _, err := net.SplitHostPort(c.Metrics); err != nil {
			return fmt.Errorf("can't serve metrics on %q: %w", c.Metrics, err)
		}
	}
	if c.Strategy == "" {
		c.Strategy = Handoff
	}
	if c.Strategy != Handoff && c.Strategy != Overlap && c.Strategy != Restart {
		return fmt.Errorf("strategy %q is none of handoff, overlap, restart", c.Strategy)
	}
	if c.Readiness == "" {
		c.Readiness = ReadyByNotify
	}
	if c.Readiness != ReadyByNotify && c.Readiness != ReadyByExec {
		return fmt.Errorf("readiness %q is neither notify nor exec", c.Readiness)
	}
	if c.Strategy == Handoff && c.Readiness == ReadyByExec {
		return errors.New("strategy handoff needs a service that notifies")
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"ready timeout", &c.ReadyTimeout, DefaultReadyTimeout},
		{"stop timeout", &c.StopTimeout, DefaultStopTimeout},
		{"restart delay", &c.RestartDelay, DefaultRestartDelay},
		{"watchdog", &c.Watchdog, 0},
	} {
		if *d.value < 0 {
			return fmt.Errorf("%s is negative", d.name)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if c.MaxStored == 0 {
		c.MaxStored = DefaultMaxStored
	}
	c.MaxStored = max(c.MaxStored, 0)
	if c.MaxVault == 0 {
		c.MaxVault = DefaultMaxVault
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	c.Control, err = filepath.Abs(c.Control)
	return err
}

// maxUnixPath is the length of the longest path that a socket can have
// (unix(7): sun_path with its terminating zero).
const maxUnixPath = 107

const notifySuffix = ".notify"

// notifyPath is where the service sends its notifications.
func notifyPath(control string) string { return control + notifySuffix }
