// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Status is how a service and its supervisor stand. Times are in the
// supervisor's time zone.
type Status struct {
	State      State            `json:"state"`
	Strategy   Strategy         `json:"strategy"`
	Command    []string         `json:"command"`
	Main       *GenerationInfo  `json:"main,omitempty"`
	Next       *GenerationInfo  `json:"next,omitempty"`
	Retiring   []GenerationInfo `json:"retiring,omitempty"`
	Sockets    []SocketInfo     `json:"sockets"`
	Stored     map[string]int   `json:"stored"`          // number of descriptors by name
	Vault      *VaultInfo       `json:"vault,omitempty"` // absent without one
	Restarts   int              `json:"restarts"`
	Reloads    Reloads          `json:"reloads"`
	Failure    *Failure         `json:"last_failure,omitempty"`
	Supervisor SupervisorInfo   `json:"supervisor"`
}

// Reloads is what reloads have come to since the supervisor was started. A reload that is a
// restart, by its strategy, is none.
type Reloads struct {
	Succeeded int       `json:"succeeded"`
	Failed    int       `json:"failed"`
	Last      time.Time `json:"last,omitzero"`         // when the last one ended
	LastGood  time.Time `json:"last_success,omitzero"` // and the last one that has succeeded
}

// GenerationInfo describes one process of the service.
type GenerationInfo struct {
	Number  int       `json:"generation"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Ready   time.Time `json:"ready,omitzero"`
	Text    string    `json:"text,omitempty"`
}

// SocketInfo describes a socket that is held for the service.
type SocketInfo struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Bound   bool   `json:"bound"` // by the supervisor itself
}

// SupervisorInfo describes the supervisor.
type SupervisorInfo struct {
	PID     int       `json:"pid"`
	Version string    `json:"version"`
	Started time.Time `json:"started"` // also before it replaced itself
	Reexecs int       `json:"reexecs"`
}

func (g *generation) info() *GenerationInfo {
	if g == nil {
		return nil
	}
	return &GenerationInfo{g.number, g.pid, g.started, g.ready, g.status}
}

func (s *Service) status() Status {
	st := Status{
		State: s.state, Strategy: s.cfg.Strategy, Command: s.cfg.Command,
		Main: s.main.info(), Next: s.next.info(),
		Sockets: []SocketInfo{}, Stored: map[string]int{}, Vault: s.vaultInfo(), Restarts: s.restarts, Reloads: s.reloads,
		Supervisor: SupervisorInfo{os.Getpid(), s.cfg.Version, s.began, s.reexecs},
	}
	for _, g := range s.retiring {
		st.Retiring = append(st.Retiring, *g.info())
	}
	for _, o := range s.sockets {
		st.Sockets = append(st.Sockets, SocketInfo{o.name, o.address, o.bound})
	}
	for _, f := range s.store.files {
		st.Stored[f.name]++
	}
	if s.failure.Reason != "" {
		failure := s.failure
		st.Failure = &failure
	}
	return st
}

// Print writes the status for people.
func (st Status) Print(w io.Writer) error {
	var b strings.Builder
	now := time.Now()
	fmt.Fprintf(&b, "state:       %s\n", st.State)
	line := func(label string, g *GenerationInfo) {
		if g == nil {
			return
		}
		fmt.Fprintf(&b, "%-12s %d, PID %d, up %s", label+":", g.Number, g.PID, now.Sub(g.Started).Round(time.Second))
		if g.Text != "" {
			fmt.Fprintf(&b, ": %s", g.Text)
		}
		b.WriteString("\n")
	}
	line("generation", st.Main)
	line("next", st.Next)
	for i := range st.Retiring {
		line("retiring", &st.Retiring[i])
	}
	for _, o := range st.Sockets {
		fmt.Fprintf(&b, "socket:      %s on %s\n", o.Name, o.Address)
	}
	for _, name := range slices.Sorted(maps.Keys(st.Stored)) {
		fmt.Fprintf(&b, "stored:      %d as %s\n", st.Stored[name], name)
	}
	if v := st.Vault; v != nil {
		fmt.Fprintf(&b, "vault:       %d of at most %d", v.Held, v.Max)
		if v.Refused > 0 {
			fmt.Fprintf(&b, ", %d refused", v.Refused)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "strategy:    %s\nrestarts:    %d\n", st.Strategy, st.Restarts)
	if st.Failure != nil {
		fmt.Fprintf(&b, "failure:     %s: %s\n", st.Failure.Time.Format(time.DateTime), st.Failure.Reason)
	}
	fmt.Fprintf(&b, "supervisor:  %s, PID %d, up %s, %d reexecs\n", st.Supervisor.Version,
		st.Supervisor.PID, now.Sub(st.Supervisor.Started).Round(time.Second), st.Supervisor.Reexecs)
	_, err := io.WriteString(w, b.String())
	return err
}
