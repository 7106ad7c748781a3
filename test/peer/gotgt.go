// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// GotgtVersion is the release of gotgt that this one is compared with.
const GotgtVersion = "v0.2.2"

// BuildGotgt builds gotgt from its module. The folder of path has to be there, and gets
// more files.
func BuildGotgt(ctx context.Context, path string) error {
	const script = `cd "$1" && printf 'module peer\n\ngo 1.20\n' >go.mod && export GOFLAGS=-mod=mod &&
go get github.com/gostor/gotgt@"$2" && go build -o "$3" github.com/gostor/gotgt`
	_, err := Run(ctx, "sh", "-c", script, "sh", filepath.Dir(path), GotgtVersion, path)
	return err
}

// Gotgt is a running gotgt.
type Gotgt struct {
	*Process
	portal string
}

// StartGotgt runs gotgt with a configuration of its own, JSON, that has the
// portal in it, and waits until it serves there.
func StartGotgt(ctx context.Context, program, config, portal string) (*Gotgt, error) {
	// It reads config.json in a folder, and listens on the flag's port.
	home, err := os.MkdirTemp(filepath.Dir(config), "gotgt-")
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(filepath.Join(home, "config.json"), text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(portal)
	if err != nil {
		return nil, err
	}
	api, err := FreePort()
	if err != nil {
		return nil, err
	}
	p, err := Spawn("env", "GOSTOR_CONFIG="+home, program, "daemon", "--log", "error", "--port", port, "--host", "tcp://"+api)
	if err != nil {
		return nil, err
	}
	if err := untilServing(ctx, p, []string{portal}); err != nil {
		p.Kill()
		return nil, fmt.Errorf("gotgt: %w", err)
	}
	return &Gotgt{p, portal}, nil
}

// Portals is the address at which gotgt serves.
func (g *Gotgt) Portals() []string { return []string{g.portal} }
