// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/gotgtd/gotgtd/internal/logging"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/iscsi"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

const (
	defaultTarget = "iqn.2026-11.io.gotgtd:disk"
	defaultListen = "127.0.0.1:3260"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	config   string
	disks    []string
	target   string
	listen   []string
	stateDir string
	control  string
	level    string
	format   string
}

// configuration makes the configuration that the flags ask for; known are the
// numbers that were given before.
func (o *serveOptions) configuration(known config.Numbers) (*config.Config, error) {
	var c *config.Config
	var err error
	switch {
	case o.config != "":
		c, err = config.LoadToServe(o.config, known)
	case len(o.disks) > 0:
		c, err = diskConfig(o.disks, o.target)
	default:
		return nil, usagef("nothing to serve: give --config FILE or --disk PATH")
	}
	if err != nil {
		return nil, err
	}
	if len(o.listen) > 0 {
		g := config.PortalGroup{Tag: 1}
		if len(c.PortalGroups) > 0 {
			g.Tag = c.PortalGroups[0].Tag
		}
		for _, a := range o.listen {
			addr, err := config.ParsePortal(a)
			if err != nil {
				return nil, usagef("--listen %s: %w", a, err)
			}
			g.Portals = append(g.Portals, config.Portal{Address: addr})
		}
		c.PortalGroups = []config.PortalGroup{g}
	}
	return c, nil
}

// file is the absolute path of the configuration file, empty if there is none.
func (o *serveOptions) file() string {
	if o.config == "" {
		return ""
	}
	path, err := filepath.Abs(o.config)
	if err != nil {
		return o.config
	}
	return path
}

// diskConfig is the configuration of disks alone, LUN 1 and on, of a target that is
// open to all who reach it. What initiators know them by comes from the target's
// name, as in YAML. The default name is the same on every host: there, machine and path
// tell the disks apart.
func diskConfig(disks []string, target string) (*config.Config, error) {
	t := config.Target{Name: target, TID: 1}
	for i, disk := range disks {
		path, size, err := parseDisk(disk)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && size == 0 && !strings.HasPrefix(path, "/dev/") {
			return nil, config.Errors{{Err: fmt.Errorf("can't find %q: to have the file made, give --disk %s,size=1GiB, or how large it is to be", path, disk)}}
		}
		l := config.LUN{Number: uint16(i + 1), Options: storage.Options{Path: path, Size: size, Create: size > 0}}
		if strings.EqualFold(t.Name, defaultTarget) {
			id := diskIdentity(machineID(), path)
			l.SCSIID, l.Serial, l.NAA = id.SCSIID, id.Serial, id.NAA
		}
		t.LUNs = append(t.LUNs, l)
	}
	c := &config.Config{Targets: []config.Target{t}}
	c.SetDefaults()
	return c, c.Validate()
}

// diskIdentity is made of what tells a disk of the default target apart.
func diskIdentity(machine, path string) scsi.Identity {
	return scsi.DigestIdentity("gotgtd disk\x00" + machine + "\x00" + path)
}

// machineID tells this host from others: machine-id(5), or the host's name.
func machineID() string {
	if b, err := os.ReadFile("/etc/machine-id"); err == nil && len(bytes.TrimSpace(b)) > 0 {
		return string(bytes.TrimSpace(b))
	}
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// parseDisk splits PATH[,size=SIZE].
func parseDisk(s string) (path string, size int64, err error) {
	path, option, found := strings.Cut(s, ",")
	if found {
		value, ok := strings.CutPrefix(option, "size=")
		if !ok {
			return "", 0, usagef("--disk %s: unknown option %q, there is only size=", s, option)
		}
		if size, err = config.ParseSize(value); err != nil || size == 0 {
			return "", 0, usagef("--disk %s: bad size %q", s, value)
		}
	}
	if path == "" {
		return "", 0, usagef("--disk needs a path")
	}
	path, err = filepath.Abs(path)
	return path, size, err
}

// fastPathsVariable names an environment variable for tests, which makes the
// data path take its shortcuts "always" or "never". A successor inherits it.
const fastPathsVariable = "GOTGTD_FAST_PATHS"

// fastPaths is what the variable says.
func fastPaths() (iscsi.FastPaths, error) {
	f, err := iscsi.ParseFastPaths(os.Getenv(fastPathsVariable))
	if err != nil {
		return f, fmt.Errorf("%s: %w", fastPathsVariable, err)
	}
	return f, nil
}

// logger makes the daemon's logger, whose level can be changed while it runs, and which keeps its last lines in recent.
func (o *serveOptions) logger(level *slog.LevelVar, recent *logging.Recent) (*slog.Logger, error) {
	l, err := logging.ParseLevel(o.level)
	if err != nil {
		return nil, usagef("--log-level %w", err)
	}
	level.Set(l)
	log, err := logging.New("gotgtd", o.format, level)
	if err != nil {
		return nil, usagef("--log-format %w", err)
	}
	return recent.Keep(log, level), nil
}

// state returns the state folder: the flag's, or what systemd gives.
func (o *serveOptions) state() string {
	if o.stateDir != "" {
		return o.stateDir
	}
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return dir
}

// humanSize is a size for people: "1.0 GiB".
func humanSize(n int64) string {
	const units = "KMGTPE"
	unit, v := -1, float64(n)
	for v >= 1024 && unit < len(units)-1 {
		v /= 1024
		unit++
	}
	if unit < 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}
