// SPDX-License-Identifier: Apache-2.0

// Package control is how commands talk to a running daemon: HTTP with JSON
// over a unix socket that only the daemon's user can open.
//
//	GET  /v1/status                     Status
//	POST /v1/upgrade?timeout=DURATION   handoff.Report, or a problem
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// Status is what a daemon says about itself.
type Status struct {
	Version    string           `json:"version"`
	Generation int              `json:"generation"` // 1 for the first process, one more with each upgrade
	PID        int              `json:"pid"`
	Upgrades   []handoff.Report `json:"upgrades"` // the last ones and the failures among them, oldest first; durations in nanoseconds
	target.Status
}

// ErrLeft is the answer of a Daemon that has handed over already.
var ErrLeft = errors.New("this process has handed over")

// Daemon is what the server speaks for.
type Daemon interface {
	Status() Status
	// Upgrade replaces the process. The report is complete as far as things
	// went, also with an error.
	Upgrade(ctx context.Context) (handoff.Report, error)
}

// problem is an answer that is no success.
type problem struct {
	Error  string          `json:"error"`
	Report *handoff.Report `json:"report,omitempty"`
}

const (
	readTimeout   = 10 * time.Second
	maxAnswer     = 256 << 20 // bytes that a client reads
	maxHeader     = 16 << 10
	upgradeFactor = 2 // how much longer than the upgrade a client waits for its answer
)

// DefaultSocket is the path of the control socket when nobody names one.
func DefaultSocket() string {
	if os.Getuid() == 0 {
		return "/run/gotgtd/gotgtd.sock"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "gotgtd", "gotgtd.sock")
	}
	return filepath.Join(os.TempDir(), "gotgtd-"+strconv.Itoa(os.Getuid()), "gotgtd.sock")
}

// Clear makes way for a socket at path: its folder is made if it is missing,
// and a socket that nobody listens on any more is removed. A socket that
// somebody listens on is an error.
func Clear(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("can't make the folder of the control socket: %w", err)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("another daemon listens on the control socket %q", path)
	}
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// Server answers commands.
type Server struct {
	daemon   Daemon
	listener net.Listener
	http     http.Server
	done     chan struct{}
	left     atomic.Bool
}

// Serve answers commands on l until Close. l's file must be closed to others
// by its permissions.
func Serve(l net.Listener, d Daemon) *Server {
	s := &Server{daemon: d, listener: l, done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("POST /v1/upgrade", s.upgrade)
	s.http = http.Server{Handler: mux, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, MaxHeaderBytes: maxHeader}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l)
	}()
	return s
}

// Leave stops taking commands because a successor takes them from the same
// socket: a client that has reached this process is sent there.
func (s *Server) Leave() {
	s.left.Store(true)
	_ = s.listener.Close()
	<-s.done // from here on Close knows of every connection
}

// Close stops taking commands and waits, until ctx ends, for the answers to
// those under way.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	<-s.done
	return err
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	if s.left.Load() {
		reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return
	}
	reply(w, http.StatusOK, s.daemon.Status())
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	// An upgrade under way must not end because the one who asked for it
	// does not want to know any more.
	ctx := context.WithoutCancel(r.Context())
	if v := r.FormValue("timeout"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("timeout %q is not a positive duration", v)})
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, fmt.Errorf("not done within the %v that were given", d))
		defer cancel()
	}
	report, err := s.daemon.Upgrade(ctx)
	if errors.Is(err, ErrLeft) {
		reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return
	}
	if err != nil {
		reply(w, http.StatusConflict, problem{Error: err.Error(), Report: &report})
		return
	}
	reply(w, http.StatusOK, report)
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}
