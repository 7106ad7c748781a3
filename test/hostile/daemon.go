// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// Target is the name of the target of [Config], and Initiator that of whom attacks.
const (
	Target    = peer.IQN
	Initiator = "iqn.2026-11.test:hostile"
)

// DiskSize is the size in bytes of the disk of [Config].
const DiskSize = 64 << 20

// Config is a YAML with a RAM disk as LUN 1, after other lines such as "limits:\n  memory: 64MiB\n".
func Config(lines string) string {
	return fmt.Sprintf("%stargets:\n  - name: %s\n    luns:\n      - {lun: 1, backend: ram, size: %d}\n", lines, Target, DiskSize)
}

// Daemon is a running gotgtd.
type Daemon struct {
	*peer.Gotgtd
	Dir string // its state, configuration and control socket
}

// Start runs the program with a YAML, on a loopback port. It is stopped in order at the end of the
// test, which fails if that can't be done.
func Start(t testing.TB, program *peer.Program, yaml string) *Daemon {
	t.Helper()
	return StartIn(t, program, t.TempDir(), yaml)
}

// StartIn is Start with a folder that a daemon may have had before, and with a command before
// it, such as a supervisor.
func StartIn(t testing.TB, program *peer.Program, dir, yaml string, before ...string) *Daemon {
	t.Helper()
	g, err := peer.StartGotgtd(t.Context(), program.Path(t), peer.Options{Dir: dir, YAML: yaml, Env: before})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Errorf("%v\n%s", err, g.Log())
		}
	})
	return &Daemon{g, dir}
}

// Portal is the address at which the daemon serves.
func (d *Daemon) Portal() string { return d.Portals()[0] }

// Dial connects to the daemon. The connection is closed at the end of the test.
func (d *Daemon) Dial(t testing.TB) *Client {
	t.Helper()
	return d.DialFrom(t, netip.Addr{})
}

// DialFrom is Dial from an address of one's own.
func (d *Daemon) DialFrom(t testing.TB, from netip.Addr) *Client {
	t.Helper()
	c, err := Dial(t.Context(), d.Portal(), from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Login connects and logs in to [Target] as the n-th session of [Initiator].
func (d *Daemon) Login(t testing.TB, n int, keys ...string) *Client {
	t.Helper()
	c := d.Dial(t)
	c.ISID[4], c.ISID[5] = byte(n>>8), byte(n)
	if err := c.Login(Initiator, Target, keys...); err != nil {
		t.Fatal(err)
	}
	return c
}

// LoginAs connects and logs in as the n-th of many initiators, each with its name and its loopback address.
func (d *Daemon) LoginAs(t testing.TB, n int, keys ...string) *Client {
	t.Helper()
	c := d.DialFrom(t, netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}))
	if err := c.Login(fmt.Sprintf("%s-%d", Initiator, n), Target, keys...); err != nil {
		t.Fatalf("initiator %d: %v", n, err)
	}
	return c
}

// RSS is how much memory the daemon has in use now, in bytes: VmRSS.
func (d *Daemon) RSS(t testing.TB) int64 {
	t.Helper()
	return d.status(t, "VmRSS")
}

// PeakRSS is the most that it had in use since the last ResetPeak: VmHWM.
func (d *Daemon) PeakRSS(t testing.TB) int64 {
	t.Helper()
	return d.status(t, "VmHWM")
}

// ResetPeak makes the present use the peak.
func (d *Daemon) ResetPeak(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.PID()), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

func (d *Daemon) status(t testing.TB, field string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, field+": %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatalf("no %s in the daemon's status", field)
	return 0
}

// CPU is how much processor time the daemon has had so far.
func (d *Daemon) CPU(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	if err != nil {
		t.Fatal(err)
	}
	var user, system time.Duration // in ticks of 10 ms, the 14th and 15th field; the second is in parentheses
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return (user + system) * 10 * time.Millisecond
}

// CountLog is how many lines of the daemon's log have a text.
func (d *Daemon) CountLog(text string) (n int) {
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// MiB is a number of bytes for people to read.
func MiB(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// Figure tells what was measured. The gate shows it although the test passes.
func Figure(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Logf("figure: "+format, args...)
}
