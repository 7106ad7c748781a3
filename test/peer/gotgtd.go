// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Gotgtd is a running gotgtd.
type Gotgtd struct {
	*Process
	program string
	control string
	portals []string
}

// StartGotgtd runs the gotgtd that program names and waits until it serves, at
// ports that it chooses itself.
func StartGotgtd(ctx context.Context, program string, o Options) (*Gotgtd, error) {
	config, text := filepath.Join(o.Dir, "targets.conf"), o.Config
	if o.YAML != "" {
		config, text = filepath.Join(o.Dir, "gotgtd.yaml"), o.YAML
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("can't write gotgtd's configuration: %w", err)
	}
	g := &Gotgtd{program: program, control: filepath.Join(o.Dir, "control.sock")}
	args := []string{"serve", "--config", config, "--control", g.control, "--state-dir", o.Dir}
	for range max(o.Portals, 1) {
		if o.OwnPortals {
			break
		}
		args = append(args, "--listen", "127.0.0.1:0")
	}
	var err error
	if g.Process, err = Spawn("env", append(append(slices.Clone(o.Env), program), args...)...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err = Until(ctx, func() error {
		select {
		case <-g.Done():
			cancel() // or it would be waited for without end
			return fmt.Errorf("gotgtd has ended:\n%s", tail(g.Log(), 4<<10))
		default:
		}
		show, err := g.Show(ctx)
		if err == nil && len(show.Portals) < max(o.Portals, 1) {
			err = fmt.Errorf("gotgtd has %d portals", len(show.Portals))
		}
		for _, p := range show.Portals {
			g.portals = append(g.portals, p.Address)
		}
		return err
	})
	if err != nil {
		g.Kill()
		return nil, err
	}
	return g, nil
}

// Portals are the addresses at which gotgtd serves.
func (g *Gotgtd) Portals() []string { return g.portals }

// Control is the path of its control socket.
func (g *Gotgtd) Control() string { return g.control }

// Show is what tests use of `gotgtd show --json`.
type Show struct {
	Portals []struct {
		Address string `json:"address"`
	} `json:"portals"`
}

// Session is what tests use of an entry of `gotgtd sessions --json`.
type Session struct {
	InitiatorName string `json:"initiator_name"`
	TSIH          uint16 `json:"tsih"`
}

// Show asks gotgtd for its portals, targets and logical units.
func (g *Gotgtd) Show(ctx context.Context) (Show, error) {
	var s Show
	return s, g.ask(ctx, &s, "show")
}

// Sessions asks gotgtd for the sessions that it has.
func (g *Gotgtd) Sessions(ctx context.Context) ([]Session, error) {
	var s []Session
	return s, g.ask(ctx, &s, "sessions")
}

func (g *Gotgtd) ask(ctx context.Context, answer any, command string) error {
	out, err := Run(ctx, g.program, command, "--json", "--control", g.control)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		return fmt.Errorf("can't read what gotgtd %s says: %w\n%s", command, err, tail(out, 1<<10))
	}
	return nil
}
