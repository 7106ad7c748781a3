// SPDX-License-Identifier: Apache-2.0

// Package control is how commands talk to a running daemon: HTTP with JSON
// over a unix socket that only the daemon's user can open. docs/api.md describes it.
//
//	GET  /v1/status                     Status
//	GET  /v1/running                    plan.Running
//	GET  /v1/config?secrets=BOOL        Config
//	PUT  /v1/config                     Proposal; Planned, or a problem
//	POST /v1/plan                       Proposal; Planned
//	POST /v1/running                    a list of overlay.Operation, carried out as one; {} or a problem
//	DELETE /v1/sessions/{tsih}?reject-for=DURATION
//	                                    target.SessionEnd, when the session has ended
//	GET  /v1/log-level                  LogLevel
//	PUT  /v1/log-level                  LogLevel, which is answered too
//	GET  /v1/diagnosis                  Diagnosis
//	POST /v1/upgrade?timeout=DURATION&force=BOOL
//	                                    handoff.Report, or a problem
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gotgtd/gotgtd/internal/unixhttp"
	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/overlay"
	"github.com/gotgtd/gotgtd/target/plan"
)

// Status is what a daemon says about itself.
type Status struct {
	Version       string                `json:"version"`
	Generation    int                   `json:"generation"` // 1 for the first process, one more with each upgrade
	PID           int                   `json:"pid"`
	Config        string                `json:"config,omitempty"`   // absolute path of the configuration file, if there is one
	Upgrades      []handoff.Report      `json:"upgrades"`           // the last ones and the failures among them, oldest first; durations in nanoseconds
	UpgradeTotals handoff.UpgradeTotals `json:"upgrade_totals"`     // of all of them since the service was started
	Accounts      []string              `json:"accounts,omitempty"` // names of those that tgtadm has made

	DiscoveryAccounts   []string `json:"discovery_accounts,omitempty"` // CHAP names of initiators in discovery
	DiscoveryOutAccount string   `json:"discovery_outgoing_account,omitempty"`

	target.Status
}

// ErrLeft is the answer of a Daemon that has handed over already.
var ErrLeft = errors.New("this process has handed over")

// Daemon is what the server speaks for.
type Daemon interface {
	Configurer
	Leveler
	Diagnoser
	Status() Status
	// Running describes what is served, for a plan.
	Running() *plan.Running
	// Change carries out operations of tgtadm.
	Change(ctx context.Context, ops []overlay.Operation) error
	// EndSession ends a session; see [target.Server.EndSession].
	EndSession(ctx context.Context, tsih uint16, rejectFor time.Duration) (target.SessionEnd, error)
	// Upgrade replaces the process. With force it is done though initiators that
	// are logged in would be hurt. The report is complete as far as things
	// went, also with an error.
	Upgrade(ctx context.Context, force bool) (handoff.Report, error)
}

// problem is an answer that is no success.
type problem struct {
	Error   string          `json:"error"`
	Report  *handoff.Report `json:"report,omitempty"`
	Refused []string        `json:"refused,omitempty"` // the changes that need force
	Tgt     string          `json:"tgt,omitempty"`     // what tgt says in this case
}

const (
	readTimeout   = 10 * time.Second // for a request
	maxAnswer     = 256 << 20        // bytes that a client reads
	maxHeader     = 16 << 10
	maxOperations = 4 << 20 // bytes of a list of operations
	upgradeFactor = 2       // how much longer than the upgrade a client waits for its answer
)

// Server answers commands.
type Server struct {
	daemon Daemon
	http   *unixhttp.Server
	left   atomic.Bool
}

// Serve answers commands on l until Close. l's file must be closed to others
// by its permissions.
func Serve(l net.Listener, d Daemon) *Server {
	s := &Server{daemon: d}
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.HandleFunc(pattern, h)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		unixhttp.Reply(w, http.StatusNotFound, problem{Error: fmt.Sprintf("there is no %s %s here: docs/api.md has what there is", r.Method, r.URL.Path)})
	})
	s.http = unixhttp.Serve(l, mux, unixhttp.Options{ReadTimeout: readTimeout, MaxHeader: maxHeader})
	return s
}

// routes are what docs/openapi.yaml describes.
func (s *Server) routes() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /v1/status":             s.status,
		"GET /v1/running":            s.running,
		"POST /v1/running":           s.change,
		"GET /v1/config":             s.config,
		"PUT /v1/config":             s.apply,
		"POST /v1/plan":              s.plan,
		"DELETE /v1/sessions/{tsih}": s.endSession,
		"GET /v1/log-level":          s.logLevel,
		"PUT /v1/log-level":          s.setLogLevel,
		"GET /v1/diagnosis":          s.diagnosis,
		"POST /v1/upgrade":           s.upgrade,
	}
}

// Leave stops taking commands because a successor takes them from the same
// socket: a client that has reached this process is sent there.
func (s *Server) Leave() {
	s.left.Store(true)
	s.http.Leave()
}

// Close stops taking commands and waits, until ctx ends, for the answers to
// those under way.
func (s *Server) Close(ctx context.Context) error { return s.http.Close(ctx) }

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	if s.left.Load() {
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return
	}
	unixhttp.Reply(w, http.StatusOK, s.daemon.Status())
}

func (s *Server) running(w http.ResponseWriter, _ *http.Request) {
	if s.left.Load() {
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return
	}
	unixhttp.Reply(w, http.StatusOK, s.daemon.Running())
}

func (s *Server) change(w http.ResponseWriter, r *http.Request) {
	var ops []overlay.Operation
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOperations))
	d.DisallowUnknownFields()
	if err := d.Decode(&ops); err != nil {
		unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("can't read the operations: %v", err)})
		return
	}
	err := s.daemon.Change(context.WithoutCancel(r.Context()), ops)
	switch {
	case err == nil:
		unixhttp.Reply(w, http.StatusOK, struct{}{})
	case errors.Is(err, ErrLeft):
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
	default:
		unixhttp.Reply(w, http.StatusConflict, problem{Error: err.Error(), Tgt: overlay.Words(err)})
	}
}

func (s *Server) endSession(w http.ResponseWriter, r *http.Request) {
	tsih, err := strconv.ParseUint(r.PathValue("tsih"), 10, 16)
	if err != nil {
		unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("TSIH %q is not a number from 0 to 65535", r.PathValue("tsih"))})
		return
	}
	var rejectFor time.Duration
	if v := r.FormValue("reject-for"); v != "" {
		if rejectFor, err = time.ParseDuration(v); err != nil || rejectFor <= 0 {
			unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("reject-for %q is not a positive duration", v)})
			return
		}
	}
	end, err := s.daemon.EndSession(r.Context(), uint16(tsih), rejectFor)
	var none *target.NoSessionError
	switch {
	case err == nil:
		unixhttp.Reply(w, http.StatusOK, end)
	case errors.Is(err, ErrLeft):
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
	case errors.As(err, &none):
		unixhttp.Reply(w, http.StatusNotFound, problem{Error: err.Error()})
	default:
		unixhttp.Reply(w, http.StatusConflict, problem{Error: err.Error()})
	}
}

func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	// An upgrade goes on even if the client that asked for it has closed its connection.
	ctx := context.WithoutCancel(r.Context())
	if v := r.FormValue("timeout"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("timeout %q is not a positive duration", v)})
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, fmt.Errorf("not done within the %v that were given", d))
		defer cancel()
	}
	force := false
	if v := r.FormValue("force"); v != "" {
		var err error
		if force, err = strconv.ParseBool(v); err != nil {
			unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("force %q is neither true nor false", v)})
			return
		}
	}
	report, err := s.daemon.Upgrade(ctx, force)
	if errors.Is(err, ErrLeft) {
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return
	}
	if err != nil {
		unixhttp.Reply(w, http.StatusConflict, problem{Error: err.Error(), Report: &report})
		return
	}
	unixhttp.Reply(w, http.StatusOK, report)
}
