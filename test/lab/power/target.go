// SPDX-License-Identifier: Apache-2.0

package power

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/pdu"
	"github.com/gotgtd/gotgtd/test/peer"
)

// The machine's disks: the number of each is its place in diskKinds, and its name in the
// machine follows from that.
const (
	stateDisk = iota
	ext4Disk
	xfsDisk
	rawDisk
	directDisk
)

// diskKinds are the disks. mkfs.xfs makes no file system of less than 300 MB.
var diskKinds = []diskKind{
	stateDisk: {320 << 20, 512}, ext4Disk: {320 << 20, 512}, xfsDisk: {320 << 20, 512}, rawDisk: {unitSize, 512}, directDisk: {unitSize, 4096},
}

// device is the name of a disk in the machine; the first, vda, has the programs.
func device(disk int) string { return "/dev/vd" + string(rune('b'+disk)) }

const (
	unitSize = 2 << 20
	// grownSize is where the logical unit that grows stops, in bytes, and growth is a step.
	grownSize = 8 << 20
	growth    = 256 << 10

	growing     = 10 // the LUN of what grows
	reserving   = 11 // the LUN of reservations, without I/O
	extraTarget = "iqn.2026-11.io.gotgtd:extra"

	stateFolder = "/mnt/state/gotgtd"
	configFile  = "/mnt/state/gotgtd.yaml"
	controlFile = "/run/gotgtd.sock"
	superviser  = "/run/upgraded.sock"
	programs    = "/run/programs/"
	logFile     = "/run/gotgtd.log"

	// serveTime is how long gotgtd may take to serve, of which upgraded must not tire before: a
	// machine with other work takes minutes where an idle one takes seconds.
	serveTime = 5 * time.Minute
)

// layout is the logical units under load: where their blocks are, and their settings in YAML.
var layout = []struct {
	lun             uint16
	path, settings  string
	blockSize       int  // of the logical unit; 0: 512
	sector          int  // of its disk; 0: 512
	fixed, uncached bool // it has a device's size; it has no write cache
}{
	{lun: 1, path: device(rawDisk), fixed: true},
	{lun: 2, path: device(directDisk), settings: "direct: true", fixed: true, blockSize: 4096, sector: 4096},
	{lun: 3, path: "/mnt/ext4/sparse"},
	{lun: 4, path: "/mnt/ext4/preallocated", settings: "preallocate: true", blockSize: 4096},
	{lun: 5, path: "/mnt/ext4/direct", settings: "direct: true"},
	{lun: 6, path: "/mnt/ext4/uncached", settings: "write-cache: false", uncached: true},
	{lun: 7, path: "/mnt/xfs/sparse"},
	{lun: 8, path: "/mnt/xfs/preallocated", settings: "preallocate: true"},
	{lun: 9, path: "/mnt/xfs/direct", settings: "direct: true, write-cache: false", blockSize: 4096, uncached: true},
	{lun: growing, path: "/mnt/ext4/growing"},
}

// configuration is gotgtd's, in YAML.
func configuration() string {
	var b strings.Builder
	fmt.Fprintf(&b, "targets:\n  - name: %s\n    alias: none\n    access: { addresses: [172.16.31.0/24] }\n    luns:\n", peer.IQN)
	for _, u := range layout {
		settings := []string{fmt.Sprintf("lun: %d, path: %s", u.lun, u.path)}
		if !u.fixed {
			settings = append(settings, fmt.Sprintf("size: %d, create: true", unitSize))
		}
		if u.blockSize != 0 {
			settings = append(settings, fmt.Sprintf("block-size: %d", u.blockSize))
		}
		if u.settings != "" {
			settings = append(settings, u.settings)
		}
		fmt.Fprintf(&b, "      - { %s }\n", strings.Join(settings, ", "))
	}
	fmt.Fprintf(&b, "      - { lun: %d, path: /mnt/xfs/reserving, size: 1MiB, create: true }\n", reserving)
	return b.String()
}

// A fileSystem says how one is made, and how it is checked after it has been mounted, which replays
// its journal, and unmounted.
type fileSystem struct{ name, make, check string }

var (
	ext4 = fileSystem{"ext4", "mke2fs -q -F -t ext4", "e2fsck -fn"}
	xfs  = fileSystem{"xfs", "mkfs.xfs -q -f -K", "xfs_repair -n"}
)

// mounts are the file systems of the machine.
func (s *scene) mounts() []mount {
	return []mount{{stateDisk, "/mnt/state", s.state}, {ext4Disk, "/mnt/ext4", ext4}, {xfsDisk, "/mnt/xfs", xfs}}
}

type mount struct {
	disk   int
	folder string
	fs     fileSystem
}

// makeDisks makes the file systems, with gotgtd's configuration.
func (s *scene) makeDisks(ctx context.Context) error {
	var script strings.Builder
	for _, m := range s.mounts() {
		fmt.Fprintf(&script, "%s %s && mount -t %s %[2]s %[4]s && ", m.fs.make, device(m.disk), m.fs.name, m.folder)
	}
	fmt.Fprintf(&script, "mkdir -m 700 %s && cat >%s <<'END' && sync\n%sEND\n", stateFolder, configFile, configuration())
	_, err := s.machine.run(ctx, script.String())
	return err
}

// checkDisks has the file systems replay their journals, has them checked, and mounts them.
func (s *scene) checkDisks(ctx context.Context) error {
	for _, m := range s.mounts() {
		_, err := s.machine.run(ctx, fmt.Sprintf("mount -t %s %s %s && umount %[3]s && %[4]s %[2]s >/run/check.log 2>&1 || { cat /run/check.log; false; } && mount -t %[1]s %[2]s %[3]s",
			m.fs.name, device(m.disk), m.folder, m.fs.check))
		if err != nil {
			return fmt.Errorf("the file system %s is not in order: %w", m.folder, err)
		}
	}
	return nil
}

// serve starts gotgtd and logs in.
func (s *scene) serve(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	return s.login(ctx)
}

// start starts gotgtd under upgraded, as a boot does. A service has far more descriptors than the 4,096 of
// this machine, of which the vault says that they are too few.
func (s *scene) start(ctx context.Context) error {
	_, err := s.machine.run(ctx, fmt.Sprintf(
		"ulimit -n 65536 && setsid %[1]supgraded run --ready-timeout %[8]v --control %[2]s --listen portal=0.0.0.0:3260 -- %[1]s%[3]s serve --config %[4]s --control %[5]s --state-dir %[6]s </dev/null >%[7]s 2>&1 &",
		programs, superviser, s.program, configFile, controlFile, stateFolder, logFile, serveTime))
	return err
}

// login opens the sessions: one for I/O, one for reservations, which is known by its ISID.
func (s *scene) login(ctx context.Context) error {
	s.logout()
	ctx, cancel := context.WithTimeoutCause(ctx, serveTime, fmt.Errorf("it was waited for for %v", serveTime))
	defer cancel()
	o := initiator.Options{Address: net.JoinHostPort(s.machine.address(), "3260"), TargetName: peer.IQN, ImmediateData: true}
	err := peer.Until(ctx, func() (err error) {
		s.session, err = initiator.Dial(ctx, o)
		return err
	})
	if err == nil {
		o.ISID = pdu.ISID{0x80, 0, 0, 1, 0, 0}
		s.registrar, err = initiator.Dial(ctx, o)
	}
	if err != nil {
		log, _ := s.machine.run(ctx, "tail -n 20 "+logFile) // without it the message is shorter
		return errors.Join(fmt.Errorf("gotgtd does not serve: %w\n%s", err, log))
	}
	for _, u := range s.units {
		if err := u.attach(ctx, s.session); err != nil {
			return err
		}
	}
	return s.registrar.Settle(ctx, initiator.LUN(reserving))
}

// logout ends the sessions from this side.
func (s *scene) logout() {
	s.endSessions()
	s.session, s.registrar = nil, nil
}

// endSessions ends them under those who use them.
func (s *scene) endSessions() {
	for _, session := range []*initiator.Session{s.session, s.registrar} {
		if session != nil {
			_ = session.Close() // why it has ended was told by who used it
		}
	}
}

// status is what of `gotgtd show --json` has to stay.
type status struct {
	Targets []struct {
		TID   int    `json:"tid"`
		Name  string `json:"name"`
		Alias string `json:"alias"`
		LUNs  []struct {
			LUN   uint16 `json:"lun"`
			Type  string `json:"type"`
			ID    string `json:"scsi_id"`
			NAA   string `json:"naa"`
			Size  int64  `json:"size"`
			Error string `json:"error"`
			Lost  string `json:"reservations_lost"`
		} `json:"luns"`
	} `json:"targets"`
}

func (s *scene) show(ctx context.Context) (st status, err error) {
	out, err := s.machine.run(ctx, programs+"gotgtd show --json --control "+controlFile)
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	return st, err
}

// complaints are the lines of gotgtd's log that tell of a fault.
func (s *scene) complaints(ctx context.Context) error {
	out, err := s.machine.run(ctx, "grep -E 'level=(ERROR|WARN)|panic|DATA RACE' "+logFile+" || true")
	if err == nil && strings.TrimSpace(out) != "" {
		err = fmt.Errorf("gotgtd says:\n%s", strings.TrimSpace(out))
	}
	return err
}

// newUnits are models of the logical units, all zeros.
func newUnits(counts *counts) (units []*unit) {
	for _, l := range layout {
		u := &unit{model: newModel(l.lun, max(l.sector, 512), unitSize), blockSize: max(l.blockSize, 512), through: l.uncached, counts: counts}
		units = append(units, u)
	}
	return units
}

// split makes workers of a unit, each with a region of its own.
func (u *unit) split(random *rand.Rand) (list []*worker) {
	each := u.blocks() / workers
	for i := range workers {
		w := &worker{unit: u, random: rand.New(rand.NewPCG(random.Uint64(), 0)), first: i * each, past: (i + 1) * each}
		list = append(list, w)
	}
	return slices.Clip(list)
}
