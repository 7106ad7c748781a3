// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"net/http"

	"github.com/gotgtd/gotgtd/internal/unixhttp"
)

// Diagnosis is what the daemon's process can tell of itself for a bug report. No secret is in it.
type Diagnosis struct {
	Goroutines string `json:"goroutines"`      // the stack of each
	Metrics    string `json:"metrics"`         // as Prometheus would be told, whether it is or not
	Log        string `json:"log"`             // the last lines that this process has logged
	Error      string `json:"error,omitempty"` // why something of it is missing
}

// Diagnoser is the part of a Daemon that tells of its process.
type Diagnoser interface {
	Diagnosis() Diagnosis
}

// diagnosis answers also when a successor has taken over: what a process does that is there still may be what is asked for.
func (s *Server) diagnosis(w http.ResponseWriter, _ *http.Request) {
	unixhttp.Reply(w, http.StatusOK, s.daemon.Diagnosis())
}

// Diagnosis asks for what belongs in a bug report.
func (c *Client) Diagnosis(ctx context.Context) (*Diagnosis, error) {
	d := new(Diagnosis)
	if err := c.call(ctx, http.MethodGet, "/v1/diagnosis", d); err != nil {
		return nil, err
	}
	return d, nil
}
