// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/gotgtd/gotgtd/internal/unixhttp"
)

// LogLevel is how much the daemon logs.
type LogLevel struct {
	Level string `json:"level"` // the least that is logged: "debug", "info", "warn" or "error"
}

// ErrLevel is a Daemon's answer for a level that there is not.
var ErrLevel = errors.New("there is no such level")

// Leveler is the part of a Daemon that logs.
type Leveler interface {
	LogLevel() LogLevel
	// SetLogLevel sets the least level that is logged, now and by those that succeed this process. An
	// error is [ErrLevel], or [ErrLeft] if the successor has to be asked.
	SetLogLevel(ctx context.Context, l LogLevel) error
}

func (s *Server) logLevel(w http.ResponseWriter, _ *http.Request) {
	if s.left.Load() {
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
		return
	}
	unixhttp.Reply(w, http.StatusOK, s.daemon.LogLevel())
}

func (s *Server) setLogLevel(w http.ResponseWriter, r *http.Request) {
	var l LogLevel
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxHeader))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		unixhttp.Reply(w, http.StatusBadRequest, problem{Error: fmt.Sprintf("can't read the level: %v", err)})
		return
	}
	switch err := s.daemon.SetLogLevel(r.Context(), l); {
	case err == nil:
		unixhttp.Reply(w, http.StatusOK, l)
	case errors.Is(err, ErrLeft):
		unixhttp.Reply(w, http.StatusServiceUnavailable, problem{Error: "ask the successor"})
	case errors.Is(err, ErrLevel):
		unixhttp.Reply(w, http.StatusBadRequest, problem{Error: err.Error()})
	default:
		unixhttp.Reply(w, http.StatusConflict, problem{Error: err.Error()})
	}
}

// LogLevel asks how much is logged.
func (c *Client) LogLevel(ctx context.Context) (l LogLevel, err error) {
	return l, c.call(ctx, http.MethodGet, "/v1/log-level", &l)
}

// SetLogLevel sets how much is logged.
func (c *Client) SetLogLevel(ctx context.Context, l LogLevel) error {
	return c.exchange(ctx, http.MethodPut, "/v1/log-level", l, new(LogLevel))
}
