// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// Target is gotgtd under upgraded, outside of the machines.
type Target struct {
	*peer.Process
	lab     *Lab
	name    string
	dir     string
	program string // gotgtd, of this target alone: what replaces it is the next generation

	upgrades, rolledBack int // how many were begun, and how many of them given up
}

// configFile has no extension, so that the contents tell which language it is in.
const configFile = "gotgtd-config"

// StartTarget runs gotgtd with a configuration, YAML or a targets.conf, at the
// addresses given, host:port, and waits until it serves. name is a file name, and the
// target's own. Everything of it is in the folder Dir.
func (l *Lab) StartTarget(ctx context.Context, name, config string, addresses ...string) (*Target, error) {
	t := &Target{lab: l, name: name, dir: filepath.Join(l.Dir, name)}
	t.program = filepath.Join(t.dir, "gotgtd")
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, err
	}
	if err := errors.Join(t.Install(l.Program("gotgtd")), t.Configure(config)); err != nil {
		return nil, err
	}
	args := []string{"run", "--control", t.path("upgraded.sock")}
	for i, a := range addresses {
		args = append(args, "--listen", "portal"+strconv.Itoa(i)+"="+a)
	}
	args = append(args, "--", t.program, "serve", "--config", t.path(configFile), "--control", t.path("gotgtd.sock"), "--state-dir", t.dir)
	var err error
	if t.Process, err = peer.Spawn(l.Program("upgraded"), args...); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.targets = append(l.targets, t)
	l.mu.Unlock()
	err = untilOrDone(ctx, t.Process, func() error {
		_, err := t.Ask(ctx, "show")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("target %s does not serve: %w", name, err)
	}
	return t, nil
}

// Name is the target's name.
func (t *Target) Name() string { return t.name }

// Dir is the target's folder.
func (t *Target) Dir() string { return t.dir }

func (t *Target) path(file string) string { return filepath.Join(t.dir, file) }

// Configure replaces the configuration; the next generation reads it.
func (t *Target) Configure(config string) error {
	return os.WriteFile(t.path(configFile), []byte(config), 0o600)
}

// Install replaces the program by a copy of another; it is the next generation.
func (t *Target) Install(program string) error {
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	next := t.program + ".new"
	if err := os.WriteFile(next, text, 0o755); err != nil {
		return err
	}
	return os.Rename(next, t.program)
}

// Ask runs `gotgtd COMMAND --json` for this target and returns what it says.
func (t *Target) Ask(ctx context.Context, command ...string) (string, error) {
	return peer.Run(ctx, t.program, append(command, "--json", "--control", t.path("gotgtd.sock"))...)
}

// reachedLimit is in what upgraded says of an upgrade that was given up because the pause
// would have become too long.
const reachedLimit = "the pause reached its limit"

// Upgrade replaces the process by its next generation, marks that in the report, and returns how
// long the pause was.
//
// The limit of the pause is in real time, and a busy computer may not come round to both
// generations within it. The upgrade is rolled back then, as it should be, and tried
// again, as an administrator would. The report counts those, and more of them than
// mayRollBack are an error.
func (t *Target) Upgrade(ctx context.Context) (time.Duration, error) {
	for {
		t.lab.Mark("upgrade")
		t.upgrades++
		pause, err := t.reload(ctx)
		if err == nil || !RolledBack(err.Error()) {
			return pause, err
		}
		t.lab.Mark("upgrade rolled back")
		if t.rolledBack++; t.rolledBack > t.mayRollBack() {
			return 0, fmt.Errorf("%d of %d upgrades were rolled back: %w", t.rolledBack, t.upgrades, err)
		}
	}
}

// RolledBack reports whether what a program says is that an upgrade was given up because its pause
// reached its limit. The old generation serves on then, and the upgrade can be tried again.
func RolledBack(text string) bool { return strings.Contains(text, reachedLimit) }

// mayRollBack is how many of the upgrades so far may have been rolled back: one, and
// one in a hundred.
func (t *Target) mayRollBack() int { return 1 + t.upgrades/100 }

// reload does an upgrade and returns how long the pause was.
func (t *Target) reload(ctx context.Context) (time.Duration, error) {
	if _, err := peer.Run(ctx, t.lab.Program("upgraded"), "reload", "--control", t.path("upgraded.sock")); err != nil {
		return 0, err
	}
	out, err := t.Ask(ctx, "show")
	if err != nil {
		return 0, err
	}
	var show struct {
		Upgrades []struct {
			Pause time.Duration `json:"pause"`
			Error string        `json:"error"`
		} `json:"upgrades"`
	}
	if err := json.Unmarshal([]byte(out), &show); err != nil {
		return 0, fmt.Errorf("can't read what gotgtd show says: %w", err)
	}
	if len(show.Upgrades) == 0 {
		return 0, errors.New("gotgtd shows no upgrade")
	}
	last := show.Upgrades[len(show.Upgrades)-1]
	if last.Error != "" {
		return 0, fmt.Errorf("the upgrade has failed: %s", last.Error)
	}
	return last.Pause, nil
}
