// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/gotgtd/gotgtd/test/peer"
)

// Login has the kernel's initiator log in to the target at a portal, host:port.
// Settings are open-iscsi's, NAME=VALUE, such as node.conn[0].iscsi.HeaderDigest=CRC32C;
// without any, they are Debian's.
func (m *Machine) Login(ctx context.Context, iqn, portal string, settings ...string) error {
	node := fmt.Sprintf("iscsiadm -m node -T %s -p %s", iqn, portal)
	script := []string{
		"modprobe iscsi_tcp",
		// A record made by hand has the portal as the machine reaches it, whatever the
		// target announces.
		fmt.Sprintf("{ %s >/dev/null 2>&1 || %s -o new; }", node, node),
	}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		script = append(script, fmt.Sprintf("%s -o update -n '%s' -v '%s'", node, name, value))
	}
	_, err := m.Run(ctx, strings.Join(append(script, node+" --login"), " && "))
	return err
}

// Logout ends the session that Login began, when udev has looked at all that has
// changed: its reads of a disk that is just going are errors in the kernel's log.
func (m *Machine) Logout(ctx context.Context, iqn, portal string) error {
	_, err := m.Run(ctx, fmt.Sprintf("udevadm settle --timeout=10; iscsiadm -m node -T %s -p %s --logout", iqn, portal))
	return err
}

// DevicePath is where a machine has the block device of a logical unit.
func DevicePath(iqn, portal string, lun int) string {
	return fmt.Sprintf("/dev/disk/by-path/ip-%s-iscsi-%s-lun-%d", portal, iqn, lun)
}

// Device waits until the machine has the block device of a logical unit, and returns its
// path in /dev, which has no ':' that some programs do not like.
func (m *Machine) Device(ctx context.Context, iqn, portal string, lun int) (string, error) {
	path := DevicePath(iqn, portal, lun)
	out, err := m.Run(ctx, fmt.Sprintf("n=0; until [ -b %[1]s ]; do n=$((n+1)); [ $n -lt 600 ] || exit 1; sleep 0.1; done; readlink -f %[1]s", path))
	return strings.TrimSpace(out), err
}

// Sessions is what a machine has of iSCSI sessions that an undisturbed one does not
// change: a line each for the sessions' IDs and states, and for the TCP connections.
func (m *Machine) Sessions(ctx context.Context) ([]string, error) {
	// The status 21 is that of a machine without any session.
	out, err := m.Run(ctx, "{ iscsiadm -m session -P 3 || [ $? -eq 21 ]; } && ss -Htn state established dport = :3260")
	if err != nil {
		return nil, err
	}
	return sessionState(out), nil
}

func sessionState(out string) []string {
	var state []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); len(f) == 4 && strings.HasSuffix(f[3], ":3260") {
			state = append(state, "TCP "+f[2]+" to "+f[3])
		}
		if sessionLine.MatchString(line) {
			state = append(state, line)
		}
	}
	slices.Sort(state)
	return state
}

var sessionLine = regexp.MustCompile(`^(SID|Target|Current Portal|iSCSI Connection State|iSCSI Session State|Internal iscsid Session State):|^Attached scsi disk `)

// disturbance is what the kernel and iscsid say when a connection or an operation has
// failed.
var disturbance = regexp.MustCompile(`(?i)conn(ection)? ?(\S+ )?error|i/o error|recovery|recovered|ping timeout|timed out|rejecting|medium error|` +
	`critical (target|medium|space|nexus)|reservation conflict|abort|reset by|blk_update_request|sense key|target error|offline`)

// Watch is the state of a machine's initiator at some moment.
type Watch struct {
	machine  *Machine
	sessions []string
	cursor   string
}

// Watch remembers how the machine's initiator stands now.
func (m *Machine) Watch(ctx context.Context) (*Watch, error) {
	w := &Watch{machine: m}
	var err error
	if w.sessions, err = m.Sessions(ctx); err != nil {
		return nil, err
	}
	out, err := m.Run(ctx, "journalctl -q -n 1 --show-cursor -o cat")
	if err != nil {
		return nil, err
	}
	if _, w.cursor, _ = strings.Cut(out, "-- cursor: "); w.cursor == "" {
		return nil, fmt.Errorf("%s: the journal has no cursor: %s", m.Name(), out)
	}
	w.cursor = strings.TrimSpace(w.cursor)
	return w, nil
}

// Disturbances are the lines that the kernel and iscsid have logged since the watch began, and
// that tell of errors or of recovery from them.
func (w *Watch) Disturbances(ctx context.Context) ([]string, error) {
	out, err := w.machine.Run(ctx, fmt.Sprintf("journalctl --sync && journalctl -q --no-pager -o short-monotonic --after-cursor='%s' _TRANSPORT=kernel + _SYSTEMD_UNIT=iscsid.service", w.cursor))
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(out) {
		if disturbance.MatchString(line) {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines, nil
}

// Undisturbed returns an error if since the watch began the kernel or iscsid have logged
// any error or recovery, or if a session or its TCP connection is another one now.
func (w *Watch) Undisturbed(ctx context.Context) error {
	lines, err := w.Disturbances(ctx)
	if err != nil {
		return err
	}
	if len(lines) > 0 {
		return fmt.Errorf("%s: the initiator was disturbed:\n%s", w.machine.Name(), strings.Join(lines, "\n"))
	}
	now, err := w.machine.Sessions(ctx)
	if err != nil {
		return err
	}
	if !slices.Equal(now, w.sessions) {
		return fmt.Errorf("%s: the sessions were\n%s\nand are\n%s", w.machine.Name(), strings.Join(w.sessions, "\n"), strings.Join(now, "\n"))
	}
	return nil
}

// Recovered waits until the machine's sessions are logged in again after a
// disturbance.
func (w *Watch) Recovered(ctx context.Context) error {
	return peer.Until(ctx, func() error {
		now, err := w.machine.Sessions(ctx)
		if err != nil {
			return err
		}
		text := strings.Join(now, "\n")
		if n := strings.Count(strings.Join(w.sessions, "\n"), "iSCSI Session State: LOGGED_IN"); n == 0 || strings.Count(text, "iSCSI Session State: LOGGED_IN") != n {
			return fmt.Errorf("%s: the sessions are\n%s", w.machine.Name(), text)
		}
		return nil
	})
}
