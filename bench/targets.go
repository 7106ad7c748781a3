// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// unit is a logical unit and how it is reached.
type unit struct {
	Address string // host:port
	Target  string // iSCSI name
	LUN     uint16
}

// String returns the address that libiscsi and QEMU use.
func (u unit) String() string { return peer.URL(u.Address, u.Target, int(u.LUN)) }

// parseUnit reads what String writes.
func parseUnit(s string) (unit, error) {
	parsed, err := url.Parse(s)
	if err != nil {
		return unit{}, err
	}
	target, lun, ok := strings.Cut(strings.TrimPrefix(parsed.Path, "/"), "/")
	n, err := strconv.ParseUint(lun, 10, 14)
	if parsed.Scheme != "iscsi" || parsed.Port() == "" || target == "" || !ok || err != nil {
		return unit{}, fmt.Errorf("%q is not iscsi://HOST:PORT/TARGET/LUN", s)
	}
	return unit{parsed.Host, target, uint16(n)}, nil
}

// running is a target that serves.
type running struct {
	name    string
	version string
	unit    unit
	pid     int    // whose CPU time counts; 0 when it can't be known
	disk    string // its backing file; empty when it can't be known
	stop    func()
}

// peers are the targets of the flag -peer.
type peers []running

// String implements flag.Value.
func (p *peers) String() string { return fmt.Sprint(len(*p), " peers") }

// Set implements flag.Value.
func (p *peers) Set(s string) error {
	name, address, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return fmt.Errorf("%q is not a name, '=' and an iscsi:// address", s)
	}
	u, err := parseUnit(address)
	if err != nil {
		return err
	}
	*p = append(*p, running{name: name, version: "not known", unit: u, stop: func() {}})
	return nil
}

// findProcesses finds the process behind each peer, for its CPU time, and
// returns a line about each that it could not find.
func (p peers) findProcesses() (missing []string) {
	for i := range p {
		address, err := netip.ParseAddrPort(p[i].unit.Address)
		if err == nil {
			p[i].pid, err = listenerPID(address.Port())
		}
		if err != nil {
			missing = append(missing, fmt.Sprintf("CPU time of %s: %v", p[i].name, err))
		}
	}
	return missing
}

// lineup is every target in the run, gotgtd first.
type lineup struct {
	targets []running
	gotgtd  *peer.Gotgtd
	missing []string // what could not be had, and why
}

func (l *lineup) stop() {
	for _, t := range l.targets {
		t.stop()
	}
}

// startAll builds and starts gotgtd and its peers, each with a file of its own
// What can't be had is noted and left out; gotgtd must be there.
func startAll(ctx context.Context, dir string, o *options) (*lineup, error) {
	l, size := new(lineup), o.plan.diskSize
	program, version, err := buildGotgtd(ctx, dir)
	if err != nil {
		return l, err
	}
	own, err := startGotgtd(ctx, program, filepath.Join(dir, "gotgtd.d"), size)
	if err != nil {
		return l, err
	}
	own.version, l.gotgtd = version, own.gotgtd
	l.targets = append(l.targets, own.running)
	for _, p := range []struct {
		name  string
		start func(ctx context.Context, dir, disk string) (running, error)
	}{{"tgt", startTgt}, {"istgt", startIstgt}, {"gotgt", startGotgt}} {
		if slices.Contains(o.without, p.name) {
			l.missing = append(l.missing, p.name+": left out by -without")
			continue
		}
		disk, err := newDisk(filepath.Join(dir, p.name+".d"), size)
		if err != nil {
			return l, err
		}
		t, err := p.start(ctx, filepath.Dir(disk), disk)
		if err != nil {
			l.missing = append(l.missing, fmt.Sprintf("%s: %v", p.name, err))
			continue
		}
		if err := writeBack(disk); err != nil {
			return l, err
		}
		t.name, t.disk = p.name, disk
		l.targets = append(l.targets, t)
	}
	l.missing = append(l.missing, o.peers.findProcesses()...)
	l.targets = append(l.targets, o.peers...)
	if err := writeBack(own.disk); err != nil {
		return l, err
	}
	l.keepWarm()
	say(os.Stdout, l.missing)
	return l, nil
}

// keepWarm keeps the targets' files in the page cache until the targets are stopped.
func (l *lineup) keepWarm() {
	for i := range l.targets {
		t := &l.targets[i]
		if t.disk == "" {
			continue
		}
		release, err := keepWarm(t.disk)
		if err != nil {
			l.missing = append(l.missing, fmt.Sprintf("the disk of %s may leave the page cache: %v", t.name, err))
			continue
		}
		stop := t.stop
		t.stop = func() { stop(); release() }
	}
}

// programName is gotgtd, built for the run.
const programName = "gotgtd"

// ownTarget is a gotgtd that serves.
type ownTarget struct {
	running
	gotgtd *peer.Gotgtd
}

// startGotgtd starts one with a disk of size bytes in dir.
func startGotgtd(ctx context.Context, program, dir string, size int64) (o ownTarget, err error) {
	disk, err := newDisk(dir, size)
	if err != nil {
		return o, err
	}
	o.gotgtd, err = peer.StartGotgtd(ctx, program, peer.Options{Config: peer.OneDisk(disk, ""), Dir: dir})
	if err != nil {
		return o, err
	}
	// Upgrades replace the process, so it is ended through what it says of itself.
	o.running = running{name: "gotgtd", unit: unit{o.gotgtd.Portals()[0], peer.IQN, 1}, pid: o.gotgtd.PID(), disk: disk,
		stop: func() { stopGotgtd(o.gotgtd) }}
	return o, nil
}

func buildGotgtd(ctx context.Context, dir string) (program, version string, err error) {
	program = filepath.Join(dir, programName)
	version = said(ctx, ".+", "git", "describe", "--tags", "--always", "--dirty")
	_, err = peer.Run(ctx, "go", "build", "-trimpath", "-ldflags", "-X 'main.version="+version+"'", "-o", program, "./cmd/gotgtd")
	return program, version, err
}

// newDisk makes a file whose blocks are all allocated and in the page cache.
//
// It is written a page at a time. What is written 1 MiB at a time lies in the page cache in
// large folios, and ext4 walks over the blocks of a folio for each write to a part of it: 13 µs for
// 4 KiB, as much as gotgtd needs for all the rest. It is the walk that would be compared.
func newDisk(dir string, size int64) (string, error) {
	path := filepath.Join(dir, "disk.img")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for i := range page {
		page[i] = byte(i * 31)
	}
	for done := int64(0); done < size; done += int64(len(page)) {
		if _, err := f.Write(page); err != nil {
			return "", err
		}
	}
	return path, nil
}

// writeBack writes what is dirty of a file to the disk, so that it does not happen
// in the middle of a later measurement. The rest of the file system is others'
// business, and may take long.
func writeBack(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func startTgt(ctx context.Context, dir, disk string) (running, error) {
	t, err := peer.StartTgt(ctx, peer.Options{Config: peer.OneDisk(disk, ""), Dir: dir})
	if err != nil {
		return running{}, err
	}
	return running{version: packageVersion(ctx, "tgt"), unit: unit{t.Portals()[0], peer.IQN, 1}, pid: t.PID(), stop: func() { _ = t.Stop() }}, nil
}

// istgtConfig is its example's, with queues as deep and sessions as many as the
// workloads need.
const istgtConfig = `[Global]
  NodeBase "iqn.2007-09.jp.ne.peach.istgt"
  PidFile %[1]s/istgt.pid
  AuthFile %[1]s/auth.conf
  MediaDirectory %[1]s
  LogFacility "local7"
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod Auto
  MaxSessions 600
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 2
  DefaultTime2Retain 60
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod None
  AuthGroup None
[PortalGroup1]
  Portal DA1 %[2]s
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  TargetName bench
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  QueueDepth 128
  LUN0 Storage %[3]s Auto
`

func startIstgt(ctx context.Context, dir, disk string) (running, error) {
	portal, err := peer.FreePort()
	if err != nil {
		return running{}, err
	}
	config := filepath.Join(dir, "istgt.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, istgtConfig, dir, portal, disk), 0o600); err != nil {
		return running{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, "auth.conf"), nil, 0o600); err != nil {
		return running{}, err
	}
	p, err := peer.Spawn("/usr/sbin/istgt", "-D", "-c", config)
	if err != nil {
		return running{}, err
	}
	r := running{version: packageVersion(ctx, "istgt"), unit: unit{portal, "iqn.2007-09.jp.ne.peach.istgt:bench", 0}, pid: p.PID(), stop: p.Kill}
	if err := r.answers(ctx, p); err != nil {
		p.Kill()
		return running{}, err
	}
	return r, nil
}

const gotgtTarget = "iqn.2016-09.com.gotgt.gostor:bench" // as in its configuration below

// startGotgt builds gotgt from its module and starts it.
func startGotgt(ctx context.Context, dir, disk string) (running, error) {
	program := filepath.Join(dir, "gotgt")
	if err := peer.BuildGotgt(ctx, program); err != nil {
		return running{}, err
	}
	portal, err := peer.FreePort()
	if err != nil {
		return running{}, err
	}
	config := fmt.Sprintf(`{"storages":[{"deviceID":1000,"path":"file:%s","online":true,"thinProvisioning":false,"blockShift":9}],
"iscsiportals":[{"id":0,"portal":%q}],
"iscsitargets":{%q:{"tpgts":{"1":[0]},"luns":{"1":1000}}}}`, disk, portal, gotgtTarget)
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return running{}, err
	}
	g, err := peer.StartGotgt(ctx, program, path, portal)
	if err != nil {
		return running{}, err
	}
	return running{version: peer.GotgtVersion, unit: unit{portal, gotgtTarget, 1}, pid: g.PID(), stop: g.Kill}, nil
}

// answers waits until the logical unit of a target, which is process p, answers.
func (r *running) answers(ctx context.Context, p *peer.Process) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := peer.Until(ctx, func() error {
		_, err := peer.Run(ctx, "iscsi-inq", r.unit.String())
		select {
		case <-p.Done():
			cancel()
		default:
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.Log())
	}
	return nil
}

// say prints a line about what could not be run.
func say(w io.Writer, missing []string) {
	for _, m := range missing {
		fmt.Fprintln(w, "could not be run:", m)
	}
}
