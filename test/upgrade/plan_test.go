// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// disk is a logical unit of a configuration: its number, 0 for that which
// order gives, and the name of its file.
type disk struct {
	number int
	file   string
}

// A language writes a target with its disks as a configuration of that kind.
// ordered says that numbers may be left to order.
type language struct {
	file    string
	ordered bool
	write   func(dir string, disks []disk) string
}

var languages = []language{
	{"targets.conf", true, func(dir string, disks []disk) string {
		var b strings.Builder
		fmt.Fprintf(&b, "<target %s>\n", peer.IQN)
		for _, d := range disks {
			fmt.Fprintf(&b, "<backing-store %s>\n", filepath.Join(dir, d.file))
			if d.number > 0 {
				fmt.Fprintf(&b, "lun %d\n", d.number)
			}
			b.WriteString("</backing-store>\n")
		}
		return b.String() + "</target>\n"
	}},
	{"gotgtd.yaml", false, func(dir string, disks []disk) string {
		var b strings.Builder
		fmt.Fprintf(&b, "targets:\n  - name: %s\n    luns:\n", peer.IQN)
		for _, d := range disks {
			fmt.Fprintf(&b, "      - lun: %d\n        path: %s\n", d.number, filepath.Join(dir, d.file))
		}
		return b.String()
	}},
	{"gotgt.json", false, func(dir string, disks []disk) string {
		var devices, luns []string
		for i, d := range disks {
			devices = append(devices, fmt.Sprintf(`{"deviceID": %d, "path": "file:%s", "online": true}`, 1000+i, filepath.Join(dir, d.file)))
			luns = append(luns, fmt.Sprintf(`"%d": %d`, d.number, 1000+i))
		}
		return fmt.Sprintf(`{"storages": [%s], "iscsiportals": [{"id": 0, "portal": "127.0.0.1:3260"}], "iscsitargets": {"%s": {"tpgts": {"1": [0]}, "luns": {%s}}}}`,
			strings.Join(devices, ","), peer.IQN, strings.Join(luns, ","))
	}},
}

// ways are how an administrator asks for a reload. Each returns why it was
// refused.
var ways = map[string]func(t *testing.T, d *daemon) error{
	"upgrade": func(t *testing.T, d *daemon) error { _, err := d.upgrade(t); return err },
	"SIGHUP":  hangUp,
}

// hangUp reloads as `systemctl reload` does, and waits for the outcome.
func hangUp(t *testing.T, d *daemon) error {
	t.Helper()
	before, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(before.PID, unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var refused error
	err = peer.Until(ctx, func() error {
		st, err := d.client.Status(ctx)
		switch {
		case err != nil:
			return err
		case len(st.Upgrades) == len(before.Upgrades):
			return fmt.Errorf("no upgrade so far")
		}
		last := &st.Upgrades[len(st.Upgrades)-1]
		if last.Error != "" {
			refused = fmt.Errorf("%s", last.Error)
		} else {
			d.remember(last)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return refused
}

// identity is what a session's initiator tells a disk by: VPD page 83h up to
// the port's designators, which are the same anyway, and the serial number.
func identity(t *testing.T, s *initiator.Session, lun uint16) string {
	t.Helper()
	var all []byte
	for _, page := range []byte{0x80, 0x83} {
		b, err := s.Inquiry(t.Context(), initiator.LUN(lun), true, page, 255)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return hex.EncodeToString(all)
}

// mark writes a block that is known again.
func mark(t *testing.T, s *initiator.Session, lun uint16, text string) error {
	t.Helper()
	block := make([]byte, blockSize)
	copy(block, text)
	var cmd initiator.Command
	return s.Do(t.Context(), cmd.Write10(initiator.LUN(lun), 0, 1, block, 0))
}

func marked(t *testing.T, d *daemon, file string) string {
	t.Helper()
	f, err := os.Open(filepath.Join(d.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, blockSize)
	if _, err := f.ReadAt(block, 0); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(block, "\x00"))
}

func startDisks(t *testing.T, l language, disks ...disk) *daemon {
	t.Helper()
	return startWith(t, builds.a.Path(t), l.file, func(path string) string {
		for _, name := range []string{"a.img", "m.img", "z.img"} {
			image(t, filepath.Join(filepath.Dir(path), name), 8<<20)
		}
		return l.write(filepath.Dir(path), disks)
	})
}

// TestDiskIsNotExchanged changes the file behind a logical unit in each way
// that there is, under a session: what it writes lands where it did, and the reload
// says why it did not happen.
func TestDiskIsNotExchanged(t *testing.T) {
	for _, l := range languages {
		for way, reload := range ways {
			t.Run(l.file+" "+way, func(t *testing.T) {
				d := startDisks(t, l, disk{1, "m.img"}, disk{2, "z.img"})
				s := login(t, d, "iqn.2026-11.test:plan")
				before := identity(t, s, 1)
				for what, disks := range map[string][]disk{
					"exchanged paths": {{1, "z.img"}, {2, "m.img"}},
					"another path":    {{1, "a.img"}, {2, "z.img"}},
				} {
					d.configure(t, l.write(d.dir, disks))
					err := reload(t, d)
					if err == nil {
						t.Fatalf("%s: the reload went through", what)
					}
					for _, part := range []string{"LUN 1", "iqn.2026-11.test:plan", "--force", "session end"} {
						if !strings.Contains(err.Error(), part) {
							t.Errorf("%s: %q says nothing of %q", what, err, part)
						}
					}
				}
				if err := mark(t, s, 1, "mine"); err != nil {
					t.Fatal(err)
				}
				if got := marked(t, d, "m.img"); got != "mine" || identity(t, s, 1) != before {
					t.Errorf("m.img begins with %q; identity %s, was %s", got, identity(t, s, 1), before)
				}
				d.configure(t, l.write(d.dir, []disk{{1, "m.img"}, {2, "z.img"}, {3, "a.img"}}))
				if err := reload(t, d); err != nil {
					t.Errorf("a disk more: %v", err)
				}
				if identity(t, s, 1) != before {
					t.Error("a disk more changes the identity of another")
				}
			})
		}
	}
}

// TestOrderDoesNotMoveDisks adds a disk and a target that sort before those that
// are there, takes them away, and restarts.
func TestOrderDoesNotMoveDisks(t *testing.T) {
	l := languages[0]
	d := startDisks(t, l, disk{0, "m.img"}, disk{0, "z.img"})
	s := login(t, d, "iqn.2026-11.test:order")
	first, second := identity(t, s, 1), identity(t, s, 2)
	for _, text := range []string{
		l.write(d.dir, []disk{{0, "a.img"}, {0, "m.img"}, {0, "z.img"}}),
		"<target iqn.2000-01.test:before>\n</target>\n" + l.write(d.dir, []disk{{0, "m.img"}, {0, "z.img"}}),
	} {
		d.configure(t, text)
		mustUpgrade(t, d)
		if identity(t, s, 1) != first || identity(t, s, 2) != second {
			t.Fatalf("disks have moved after a reload of:\n%s", text)
		}
	}
	d.restart(t)
	s = login(t, d, "iqn.2026-11.test:order")
	if identity(t, s, 1) != first || identity(t, s, 2) != second {
		t.Error("disks have moved after a restart")
	}
}

// TestFileInThePlace puts another file at the path of a disk that is used, as
// `mv new.img disk.img` does, and forces it in the end: the session's writes do
// not land in the new file before its initiator has looked.
func TestFileInThePlace(t *testing.T) {
	d := startDisks(t, languages[1], disk{1, "m.img"})
	s := login(t, d, "iqn.2026-11.test:mv")
	if err := os.Rename(filepath.Join(d.dir, "a.img"), filepath.Join(d.dir, "m.img")); err != nil {
		t.Fatal(err)
	}
	_, err := d.upgrade(t)
	if err == nil || !strings.Contains(err.Error(), "another file is at") {
		t.Fatalf("another file in the place of a disk that is used: %v", err)
	}
	r, err := d.force(t)
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(r.Plan, "\n"); !strings.Contains(text, "INQUIRY DATA HAS CHANGED") {
		t.Errorf("the report says nothing of what the initiator sees:\n%s", text)
	}
	var codes []uint16
	for range 4 {
		codes = append(codes, attention(t, s, 1))
		if err := mark(t, s, 1, "late"); err == nil {
			t.Fatal("a write lands in a disk that the initiator has not seen")
		}
	}
	if marked(t, d, "m.img") != "" {
		t.Error("the new file is written to")
	}
	identity(t, s, 1)
	if err := mark(t, s, 1, "new"); err != nil || marked(t, d, "m.img") != "new" {
		t.Errorf("after INQUIRY: %v; the codes before were %x", err, codes)
	}
}

// TestWithoutSessionsNothingIsRefused exchanges disks that nobody uses.
func TestWithoutSessionsNothingIsRefused(t *testing.T) {
	d := startDisks(t, languages[1], disk{1, "m.img"}, disk{2, "z.img"})
	d.configure(t, languages[1].write(d.dir, []disk{{1, "z.img"}, {2, "a.img"}}))
	mustUpgrade(t, d)
	s := login(t, d, "iqn.2026-11.test:after")
	if err := mark(t, s, 1, "new"); err != nil || marked(t, d, "z.img") != "new" {
		t.Errorf("LUN 1: %v, z.img begins with %q", err, marked(t, d, "z.img"))
	}
}

// TestUsedDiskStays takes away a disk that was just written to, and a target.
func TestUsedDiskStays(t *testing.T) {
	d := startDisks(t, languages[1], disk{1, "m.img"}, disk{2, "z.img"})
	s := login(t, d, "iqn.2026-11.test:used")
	if err := mark(t, s, 1, "mine"); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{languages[1].write(d.dir, []disk{{2, "z.img"}}), "targets: []\n"} {
		d.configure(t, text)
		_, err := d.upgrade(t)
		if err == nil || !strings.Contains(err.Error(), "LUN 1 was read or written") || !strings.Contains(err.Error(), "iqn.2026-11.test:used") {
			t.Errorf("%v, of:\n%s", err, text)
		}
	}
	d.configure(t, languages[1].write(d.dir, []disk{{1, "m.img"}})) // LUN 2 is idle
	mustUpgrade(t, d)
}
