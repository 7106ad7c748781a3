// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Tgt is Debian's tgt: the target that this one's users come from. Tests are
// tried on it to see what is the initiator's own doing, and it is a benchmark's
// yardstick.
type Tgt struct {
	*Process
	portals []string
	control string
}

// StartTgt runs a private tgtd, beside any other on the machine, and loads the
// configuration into it.
func StartTgt(ctx context.Context, o Options) (*Tgt, error) {
	t := new(Tgt)
	for len(t.portals) < max(o.Portals, 1) {
		address, err := FreePort()
		if err != nil {
			return nil, err
		}
		t.portals = append(t.portals, address)
	}
	var portals []string
	for _, address := range t.portals {
		portals = append(portals, "portal="+address)
	}
	file := filepath.Join(o.Dir, "targets.conf")
	if err := os.WriteFile(file, []byte(o.Config), 0o600); err != nil {
		return nil, fmt.Errorf("can't write tgt's configuration: %w", err)
	}
	// tgtd is reached by its control port's number, which names a socket. The
	// TCP port's number is as good as any that is not in use.
	_, number, _ := strings.Cut(t.portals[0], ":")
	control, err := strconv.Atoi(number)
	if err != nil {
		return nil, fmt.Errorf("can't tell the port of %s: %w", t.portals[0], err)
	}
	number = strconv.Itoa(control % 32768)
	t.control = number

	t.Process, err = Spawn("/usr/sbin/tgtd", "-f", "-C", number, "--iscsi", strings.Join(portals, ","))
	if err != nil {
		return nil, err
	}
	err = untilServing(ctx, t.Process, t.portals)
	if err == nil {
		_, err = Run(ctx, "/usr/sbin/tgt-admin", "-C", number, "-c", file, "-e")
	}
	// An initiator that comes back to a target which is not there yet gives up. So what it
	// knows is opened last.
	if err == nil && o.Address != "" {
		_, err = Run(ctx, "/usr/sbin/tgtadm", "-C", number, "--lld", "iscsi", "--mode", "portal", "--op", "new", "--param", "portal="+o.Address)
		t.portals = []string{o.Address}
	}
	if err != nil {
		t.Kill()
		return nil, err
	}
	return t, nil
}

// Portals are tgtd's addresses.
func (t *Tgt) Portals() []string { return t.portals }

// ControlPort is what tgtadm's -C takes for this tgtd.
func (t *Tgt) ControlPort() string { return t.control }

// Stop kills tgtd: it takes no notice of SIGTERM while it has targets.
func (t *Tgt) Stop() error {
	t.Kill()
	return nil
}
