// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/gotgtd/gotgtd/test/lab"
	"github.com/gotgtd/gotgtd/test/peer"
)

// multipathConfig uses both paths in turn, and looks often whether they are well.
const multipathConfig = `defaults {
	user_friendly_names yes
	find_multipaths yes
	path_grouping_policy multibus
	path_selector "round-robin 0"
	path_checker tur
	polling_interval 1
	max_polling_interval 2
	no_path_retry 60
}
blacklist {
	devnode "^vd"
}
`

// endMultipath takes the map away and ends the daemon. Whether that has ended tells its
// process: it may do so before it answers that it will.
const endMultipath = `udevadm settle && multipath -f mpatha || exit
	multipathd shutdown || true
	n=0; while pgrep -x multipathd >/dev/null; do n=$((n+1)); [ $n -lt 600 ] || exit; sleep 0.1; done`

const mapDevice = "/dev/mapper/mpatha"

// multipath loses one of two paths to a disk while there is I/O on it, and gets it back.
func (t *trial) multipath(ctx context.Context) {
	m := t.machines[0]
	var load *lab.IO
	var sid string
	ok := t.step(ctx, "multipath: login at both portals, I/O on the map", func(ctx context.Context) (err error) {
		if err := m.PutText(ctx, multipathConfig, "/etc/multipath.conf", 0o644); err != nil {
			return err
		}
		if _, err := m.Run(ctx, "modprobe -a dm_multipath dm_round_robin && multipathd"); err != nil {
			return err
		}
		// With another path at hand a session need not wait long for its connection.
		for _, portal := range []string{portal1, portal2} {
			if err := m.Login(ctx, pathsTarget, portal, "node.session.timeo.replacement_timeout=5"); err != nil {
				return err
			}
		}
		if sid, err = sessionID(ctx, m, pathsTarget, portal2); err != nil {
			return err
		}
		if err := t.pathsActive(ctx, 2); err != nil {
			return err
		}
		// The daemon knows of its paths before udev has made the map's name.
		if err := peer.Until(ctx, func() error {
			_, err := m.Run(ctx, "test -b "+mapDevice)
			return err
		}); err != nil {
			return err
		}
		load, err = m.StartIO(ctx, "I/O on two paths", mapDevice, 0)
		return err
	})
	if load == nil {
		return
	}
	stopLoad := sync.OnceValue(load.Stop)
	defer stopLoad() // a step that failed has left it running
	if !ok {
		return
	}
	checkLoad := func(ctx context.Context) error {
		_, err := load.Check(ctx)
		return err
	}
	lines, err := t.pathLines(ctx, sid)
	if err != nil {
		t.step(ctx, "multipath: what the second path is called", func(context.Context) error { return err })
		return
	}
	_ = t.provoke(ctx, "multipath: one portal closed: its path fails, I/O goes on", lines, func(ctx context.Context) error {
		t.serves.secondPortal = false
		return errors.Join(t.upgrades.change(ctx, t.serves), t.pathsActive(ctx, 1), checkLoad(ctx))
	}) && t.provoke(ctx, "multipath: the portal opened again: its path comes back", lines, func(ctx context.Context) error {
		t.serves.secondPortal = true
		return errors.Join(t.upgrades.change(ctx, t.serves), t.pathsActive(ctx, 2), checkLoad(ctx))
	})
	_ = t.step(ctx, "multipath: an upgrade with both paths in use; flush, logout", func(ctx context.Context) error {
		err := errors.Join(t.upgrades.now(ctx), checkLoad(ctx), stopLoad())
		_, flushErr := m.Run(ctx, endMultipath)
		return errors.Join(err, flushErr, m.Logout(ctx, pathsTarget, portal1), m.Logout(ctx, pathsTarget, portal2))
	})
}

// pathsActive waits until the map has that many active paths, of two.
func (t *trial) pathsActive(ctx context.Context, want int) error {
	return peer.Until(ctx, func() error {
		out, err := t.machines[0].Run(ctx, `multipathd show paths raw format "%m %d %t %o"`)
		if err != nil {
			return err
		}
		active := 0
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) == 4 && f[0] == "mpatha" && f[2] == "active" && f[3] == "running" {
				active++
			}
		}
		if active != want {
			return fmt.Errorf("the map has %d active paths, and should have %d:\n%s", active, want, out)
		}
		return nil
	})
}

// pathLines matches what is logged about the path of a session.
func (t *trial) pathLines(ctx context.Context, sid string) (*regexp.Regexp, error) {
	out, err := t.machines[0].Run(ctx, fmt.Sprintf(`set -eu; cd /sys/class/iscsi_session/session%s/device
		for disk in target*/*/block/*; do echo "$(basename "$(dirname "$(dirname "$disk")")") $(basename "$disk") $(cat "$disk/dev")"; done`, sid))
	if err != nil {
		return nil, err
	}
	f := strings.Fields(out) // 5:0:0:1 sdc 8:32
	if len(f) != 3 {
		return nil, fmt.Errorf("session %s should have one disk, and has\n%s", sid, out)
	}
	return regexp.Compile(fmt.Sprintf(`(?i)connection *%[1]s:0|session *%[1]s\b|sd %[2]s:|\b%[3]s\b|path %[4]s\b|%[5]s`, sid, f[0], f[1], f[2], regexp.QuoteMeta(portal2)))
}
