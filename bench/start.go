// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gotgtd/gotgtd/test/peer"
)

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
	err = peer.GoBuild(ctx, program, "./cmd/gotgtd", "-ldflags", "-X 'main.version="+version+"'")
	return program, version, err
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
