// SPDX-License-Identifier: Apache-2.0

package initiator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/gotgtd/gotgtd/test/lab"
)

// errDisturbed is what the checks after each step find.
var errDisturbed = errors.New("an initiator was disturbed")

// step does something that no machine's initiator may take for an error, and checks that
// none did.
func (t *trial) step(ctx context.Context, name string, f func(context.Context) error) bool {
	return t.check(ctx, name, nil, f)
}

// provoke does something that makes errors on purpose. What the machines log of errors,
// "hostN: LINE", has to match, and there has to be some of it.
func (t *trial) provoke(ctx context.Context, name string, errorLine *regexp.Regexp, f func(context.Context) error) bool {
	return t.check(ctx, name, errorLine, f)
}

// check does a step, and then looks at what has happened since the step before. It reports
// whether the step went well: the next ones may depend on it.
func (t *trial) check(ctx context.Context, name string, expected *regexp.Regexp, f func(context.Context) error) bool {
	err := t.lab.Step(ctx, name, func(ctx context.Context) error {
		return errors.Join(f(ctx), t.logsSince(ctx, expected), t.sameSession(ctx))
	})
	return err == nil
}

// logsSince looks at the lines of the machines' logs that tell of errors, since the last step.
func (t *trial) logsSince(ctx context.Context, expected *regexp.Regexp) error {
	seen, wrong := 0, []string(nil)
	for i, m := range t.machines {
		lines, err := t.watches[i].Disturbances(ctx)
		if err != nil {
			return err
		}
		from := min(t.logged[i], len(lines))
		t.logged[i] = len(lines)
		for _, line := range lines[from:] {
			line = m.Name() + ": " + line
			if expected == nil || !expected.MatchString(line) {
				wrong = append(wrong, line)
			} else {
				seen++
			}
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%w:\n%s", errDisturbed, strings.Join(wrong, "\n"))
	}
	if expected != nil && seen == 0 {
		return fmt.Errorf("no log has a line like %q", expected)
	}
	return nil
}

// sameSession returns an error if the session of the load is another one than at the beginning.
func (t *trial) sameSession(ctx context.Context) error {
	now, err := t.loadSession(ctx)
	if err != nil {
		return err
	}
	if now != t.session {
		return fmt.Errorf("%w: the session was\n%s\nand is\n%s", errDisturbed, t.session, now)
	}
	return nil
}

// loadSession is what both sides have of the load's session: all that would be
// another one after a new login, and the state. Of targets other than gotgtd
// it is what the initiator has.
func (t *trial) loadSession(ctx context.Context) (string, error) {
	session := ""
	if t.target != nil {
		out, err := t.target.Ask(ctx, "sessions")
		if err != nil {
			return "", err
		}
		if session, err = targetSession(out); err != nil {
			return "", err
		}
	}
	out, err := t.machines[0].Run(ctx, fmt.Sprintf("iscsiadm -m session -r %[1]s -P 3 && echo Local Port: $(cat /sys/class/iscsi_connection/connection%[1]s:0/local_port)", t.loadSID))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		if sessionLine.MatchString(line) {
			session += "\n" + strings.TrimSpace(line)
		}
	}
	return session, nil
}

var sessionLine = regexp.MustCompile(`^\s*(SID|Current Portal|Local Port|iSCSI Connection State|iSCSI Session State|Internal iscsid Session State|HeaderDigest|DataDigest|Attached scsi disk)\b`)

// targetSession is what gotgtd's list of sessions has of the load's.
func targetSession(list string) (string, error) {
	var sessions []struct {
		Target      string `json:"target"`
		ISID        string `json:"isid"`
		TSIH        uint16 `json:"tsih"`
		Started     string `json:"started"`
		Connections []struct {
			CID          uint16 `json:"cid"`
			Remote       string `json:"remote"`
			HeaderDigest bool   `json:"header_digest"`
			DataDigest   bool   `json:"data_digest"`
		} `json:"connections"`
	}
	if err := json.Unmarshal([]byte(list), &sessions); err != nil {
		return "", fmt.Errorf("can't read gotgtd's sessions: %w", err)
	}
	for _, s := range sessions {
		if s.Target == loadTarget {
			return fmt.Sprintf("ISID %s, TSIH %d, since %s, connections %+v", s.ISID, s.TSIH, s.Started, s.Connections), nil
		}
	}
	return "", fmt.Errorf("gotgtd has no session with %s:\n%s", loadTarget, list)
}

// sessionID is the number that a machine's initiator gives a session.
func sessionID(ctx context.Context, m *lab.Machine, iqn, portal string) (string, error) {
	out, err := m.Run(ctx, "iscsiadm -m session")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(out) {
		// tcp: [1] 172.16.31.1:3260,1 iqn.2015-02.com.stu31:load (non-flash)
		f := strings.Fields(line)
		if len(f) >= 4 && strings.HasPrefix(f[2], portal+",") && f[3] == iqn {
			return strings.Trim(f[1], "[]"), nil
		}
	}
	return "", fmt.Errorf("%s has no session with %s at %s:\n%s", m.Name(), iqn, portal, out)
}

// Settings of a login.
var (
	digests = []string{"node.conn[0].iscsi.HeaderDigest=CRC32C", "node.conn[0].iscsi.DataDigest=CRC32C"}
	plain   = []string{"node.conn[0].iscsi.HeaderDigest=None", "node.conn[0].iscsi.DataDigest=None"}
)

// login logs a machine in at the first portal, makes sure that the settings came into
// effect, and returns the logical unit's device.
func (t *trial) login(ctx context.Context, m *lab.Machine, iqn string, lun int, settings []string) (string, error) {
	if err := m.Login(ctx, iqn, portal1, settings...); err != nil {
		return "", err
	}
	sid, err := sessionID(ctx, m, iqn, portal1)
	if err != nil {
		return "", err
	}
	out, err := m.Run(ctx, fmt.Sprintf("iscsiadm -m session -r %s -P 2", sid))
	if err != nil {
		return "", err
	}
	for _, s := range settings {
		name, value, _ := strings.Cut(s[strings.LastIndex(s, ".")+1:], "=")
		if !strings.Contains(out, name+": "+value+"\n") {
			return "", fmt.Errorf("%s: %s is not %s:\n%s", m.Name(), name, value, out)
		}
	}
	return m.Device(ctx, iqn, portal1, lun)
}
