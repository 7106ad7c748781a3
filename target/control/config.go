// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/gotgtd/gotgtd/internal/unixhttp"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/plan"
)

// maxBody bounds a request's body in bytes: a configuration of the largest
// size, as JSON.
const maxBody = 16 << 20

// Config is what the daemon runs on.
type Config struct {
	File     string `json:"file,omitempty"` // absolute path of the configuration file, if there is one
	Revision string `json:"revision"`       // another as soon as what runs or the file is
	Config   string `json:"config"`         // what runs, as YAML, with all numbers and identities
}

// Proposal is a configuration that somebody would like to have.
type Proposal struct {
	Config   string `json:"config"`             // the whole text of the configuration file
	Revision string `json:"revision,omitempty"` // that it is a change of; to apply it, it must be there
	Force    bool   `json:"force,omitempty"`    // though it hurts initiators that are logged in
}

// Planned is what a proposal would do, or has done.
type Planned struct {
	Changes []plan.Change   `json:"changes"`
	Lines   []string        `json:"lines"`             // the changes, for people
	Refused []string        `json:"refused"`           // those that need force, for people
	Pending []string        `json:"pending,omitempty"` // those of the lines that the file has already, though it was not reloaded
	Applied bool            `json:"applied"`
	Report  *handoff.Report `json:"report,omitempty"` // if it was applied
}

// NewPlanned describes a plan.
func NewPlanned(p *plan.Plan) Planned {
	return Planned{Changes: p.Changes, Lines: p.Lines(), Refused: append([]string{}, p.Refused()...)}
}

// Errors that a Daemon's answer about a configuration may be.
var (
	ErrInvalid  = errors.New("the configuration is not valid")                                                                       // 422
	ErrRevision = errors.New("the configuration has changed meanwhile: read it again (GET /v1/config), and make the change in that") // 409
	ErrNoFile   = errors.New("the daemon has no configuration file")                                                                 // 409
)

// Configurer is the part of a Daemon that has a configuration.
type Configurer interface {
	Config(secrets bool) (Config, error)
	Plan(p Proposal) (Planned, error)
	Apply(ctx context.Context, p Proposal) (Planned, error)
}

func (s *Server) config(w http.ResponseWriter, r *http.Request) {
	secrets := false
	if v := r.FormValue("secrets"); v != "" {
		var err error
		if secrets, err = strconv.ParseBool(v); err != nil {
			unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("secrets %q is neither true nor false", v)})
			return
		}
	}
	if s.left.Load() {
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return
	}
	c, err := s.daemon.Config(secrets)
	if err != nil {
		unixhttp.Reply(w, http.StatusConflict, problem{Error: err.Error()})
		return
	}
	unixhttp.Reply(w, http.StatusOK, c)
}

func (s *Server) plan(w http.ResponseWriter, r *http.Request) {
	if p, ok := s.proposal(w, r); ok {
		planned, err := s.daemon.Plan(p)
		s.planned(w, planned, err)
	}
}

func (s *Server) apply(w http.ResponseWriter, r *http.Request) {
	p, ok := s.proposal(w, r)
	if !ok {
		return
	}
	if p.Revision == "" {
		unixhttp.Reply(w, http.StatusBadRequest, problem{Error: "revision is missing: give that of the configuration which this one was made of"})
		return
	}
	planned, err := s.daemon.Apply(context.WithoutCancel(r.Context()), p)
	s.planned(w, planned, err)
}

// proposal reads a request's body.
func (s *Server) proposal(w http.ResponseWriter, r *http.Request) (p Proposal, ok bool) {
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	if err := body.Decode(&p); err != nil {
		unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("can't read the proposal: %v", err)})
		return p, false
	}
	if strings.TrimSpace(p.Config) == "" {
		// An empty configuration would remove every target: that can only be a mistake.
		unixhttp.Reply(w, http.StatusBadRequest, problem{Error: "config is missing: give the whole text of the configuration"})
		return p, false
	}
	if s.left.Load() {
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return p, false
	}
	return p, true
}

func (s *Server) planned(w http.ResponseWriter, p Planned, err error) {
	switch {
	case err == nil:
		unixhttp.Reply(w, http.StatusOK, p)
	case errors.Is(err, ErrLeft):
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
	case errors.Is(err, ErrInvalid):
		unixhttp.Reply(w, http.StatusUnprocessableEntity, problem{Error: err.Error()})
	default:
		unixhttp.Reply(w, http.StatusConflict, problem{Error: err.Error(), Report: p.Report, Refused: p.Refused})
	}
}

// Config asks for what the daemon runs on.
func (c *Client) Config(ctx context.Context, secrets bool) (*Config, error) {
	conf := new(Config)
	if err := c.call(ctx, http.MethodGet, fmt.Sprintf("/v1/config?secrets=%v", secrets), conf); err != nil {
		return nil, err
	}
	return conf, nil
}

// Plan asks what a proposal would do.
func (c *Client) Plan(ctx context.Context, p Proposal) (*Planned, error) {
	return c.propose(ctx, http.MethodPost, "/v1/plan", p)
}

// Apply asks for a proposal to be carried out.
func (c *Client) Apply(ctx context.Context, p Proposal) (*Planned, error) {
	return c.propose(ctx, http.MethodPut, "/v1/config", p)
}

func (c *Client) propose(ctx context.Context, method, path string, p Proposal) (*Planned, error) {
	answer := new(Planned)
	if err := c.exchange(ctx, method, path, p, answer); err != nil {
		return nil, err
	}
	return answer, nil
}
