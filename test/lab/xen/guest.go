// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/lab"
)

//go:embed busybox.cfg
var guestTemplate string

// guestFile is where the hosts have the guest's configuration.
const guestFile = "/root/busybox.cfg"

func guestConfig(disk string) string { return strings.ReplaceAll(guestTemplate, "@DISK@", disk) }

// guest is the busybox guest.
type guest struct {
	hosts    [2]*lab.Machine
	at       int          // the host on which it runs
	consoles []consoleLog // oldest first
	moves    []move
}

// consoleLog is a file in which a host has the guest's console.
type consoleLog struct {
	host *lab.Machine
	file string
}

// move is a migration.
type move struct{ start, end time.Time }

// migrating reports whether some of the time from start to end was a migration's.
func (g *guest) migrating(start, end time.Time) bool {
	return slices.ContainsFunc(g.moves, func(m move) bool { return start.Before(m.end) && m.start.Before(end) })
}

// createGuest starts the guest on a host.
func createGuest(ctx context.Context, hosts [2]*lab.Machine, at int) (*guest, error) {
	g := &guest{hosts: hosts, at: at}
	g.logged("/var/log/xen/console/guest-busybox.log")
	_, err := hosts[at].Run(ctx, "xl create -q "+guestFile)
	return g, err
}

// logged notes that from now on the console goes to a file of the host on which the guest is.
func (g *guest) logged(file string) {
	g.consoles = append(g.consoles, consoleLog{g.hosts[g.at], file})
}

// migrate moves the guest, live, to the other host. Its memory goes over the second network, for the
// disk is on the first.
func (g *guest) migrate(ctx context.Context) error {
	from, to := g.at, 1-g.at
	m := move{start: time.Now()}
	if _, err := g.hosts[from].Run(ctx, "xl migrate busybox "+g.hosts[to].Address2()); err != nil {
		return err
	}
	m.end = time.Now()
	g.moves = append(g.moves, m)
	g.at = to
	// While it comes in, a guest has another name, and the log keeps it.
	g.logged("/var/log/xen/console/guest-busybox--incoming.log")
	var exit *lab.ExitError
	if out, err := g.hosts[from].Run(ctx, "xl domid busybox"); !errors.As(err, &exit) {
		return fmt.Errorf("%s still has the guest: %s %w", g.hosts[from].Name(), out, err)
	}
	_, err := g.hosts[to].Run(ctx, "xl domid busybox")
	return err
}

// shutdown has the guest shut itself down and waits until it is gone.
func (g *guest) shutdown(ctx context.Context) error {
	_, err := g.hosts[g.at].Run(ctx, "xl shutdown -w busybox")
	return err
}

// console is all that the guest has printed.
func (g *guest) console(ctx context.Context) (string, error) {
	var text strings.Builder
	for _, c := range g.consoles {
		out, err := c.host.Run(ctx, "cat "+c.file)
		if err != nil {
			return "", err
		}
		text.WriteString(out)
	}
	return strings.ReplaceAll(text.String(), "\r", ""), nil
}
