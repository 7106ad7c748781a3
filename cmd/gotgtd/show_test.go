// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/control"
	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/scsi"
)

func show(st *control.Status) string {
	var b strings.Builder
	writeUpgrades(&b, st.Upgrades)
	writeTargets(&b, st, tgtSize)
	return b.String()
}

// withController adds a controller before a target's disk, which has the
// identifiers that tgt gives.
func withController(number string, info scsi.UnitInfo) []target.LUNStatus {
	disk := target.LUNStatus{UnitInfo: info}
	disk.LUN, disk.Type, disk.BlockSize, disk.Online, disk.StoreType = 1, "disk", 512, true, "rdwr"
	disk.SCSIID, disk.Serial = "IET     000"+number+"0001", "beaf"+number+"1"
	return []target.LUNStatus{{UnitInfo: scsi.UnitInfo{
		Type: "controller", SCSIID: "IET     000" + number + "0000", Serial: "beaf" + number + "0",
		BlockSize: 512, Online: true, StoreType: "null",
	}}, disk}
}

// seed is one shared disk.
func seed() *control.Status {
	return &control.Status{Status: target.Status{Targets: []target.TargetStatus{{
		TID: 1, Name: "iqn.2015-02.com.stu31:t1", State: "ready", ACL: []string{"172.16.31.0/24"},
		LUNs: withController("1", scsi.UnitInfo{Size: 5378310144, StorePath: "/dev/sda3"}),
	}}}}
}

// captured is the state in which the output of tgtadm 1.0.85 was taken: an
// initiator is logged in, and the second target has accounts.
func captured() *control.Status {
	return &control.Status{Status: target.Status{
		Targets: []target.TargetStatus{{
			TID: 1, Name: "iqn.2015-02.com.stu31:t1", State: "ready", ACL: []string{"172.16.31.0/24", "127.0.0.1"},
			LUNs: withController("1", scsi.UnitInfo{Size: 1 << 30, StorePath: "/srv/busybox.img"}),
		}, {
			TID: 2, Name: "iqn.2015-02.com.stu31:t2", State: "ready", ACL: []string{"ALL", "iqn.2015-02.com.stu31:xen1"},
			Accounts: []string{"alice"}, OutAccount: "target",
			LUNs: append(withController("2", scsi.UnitInfo{Size: 1572864000, StorePath: "/srv/b.img", Removable: true, ReadOnly: true}), target.LUNStatus{
				LUN: 2, StoreFlags: "sync:direct", UnitInfo: scsi.UnitInfo{
					Type: "disk", SCSIID: "IET     00020002", Serial: "beaf22", Size: 16 << 20, BlockSize: 512, Online: true, Thin: true,
					StoreType: "rdwr", StorePath: "/srv/c.img",
				},
			}),
		}},
		Sessions: []target.SessionStatus{{
			TSIH: 1, Initiator: "iqn.2015-02.com.stu31:xen1", Target: "iqn.2015-02.com.stu31:t1", ISID: "800000000000",
			Started:     time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC),
			Counters:    scsi.Counters{Reads: 7, Writes: 5, ReadBytes: 28672, WrittenBytes: 20480},
			Connections: []target.ConnectionStatus{{CID: 0, Remote: netip.MustParseAddrPort("127.0.0.1:40312")}},
		}, {
			TSIH: 2, Initiator: "iqn.2015-02.com.stu31:xen2", ISID: "800000000001",
			Started:     time.Date(2026, 11, 22, 12, 0, 50, 0, time.UTC),
			Connections: []target.ConnectionStatus{{CID: 3, Remote: netip.MustParseAddrPort("[::1]:40313")}},
		}},
	}}
}

// TestShowPrintsAsTgtadm compares with what tgtadm 1.0.85 printed.
func TestShowPrintsAsTgtadm(t *testing.T) {
	want, err := os.ReadFile("testdata/tgtadm-1.0.85.txt")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), show(captured())); d != "" {
		t.Errorf("(-tgtadm +show):\n%s", d)
	}
}

func TestMegabytes(t *testing.T) {
	for size, want := range map[int64]int64{ // as tgtadm 1.0.85 showed them
		512: 0, 499712: 0, 500224: 1, 1048576: 1, 1499648: 1, 1500160: 2, 1900032: 2,
		1572864000: 1573, 5378000000: 5378, 2199023255552: 2199023,
	} {
		if got := megabytes(size); got != want {
			t.Errorf("%d bytes are %d MB, want %d", size, got, want)
		}
	}
}

// TestShowForgery has an initiator whose alias reads like a part of the output.
func TestShowForgery(t *testing.T) {
	st := captured()
	st.Sessions[0].Alias = "me\n    ACL information:\n        ALL\x1b[2J"
	got := show(st)
	if strings.Count(got, "\n") != strings.Count(show(captured()), "\n") || strings.Contains(got, "\x1b") {
		t.Errorf("the alias makes lines of its own:\n%s", got)
	}
	if want := "alias: me\uFFFD    ACL information:\uFFFD        ALL\uFFFD[2J\n"; !strings.Contains(got, want) {
		t.Errorf("no %q in:\n%s", want, got)
	}
}

func reports() []handoff.Report {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	return []handoff.Report{
		{
			Time: at, Generation: 2, OldPID: 10, NewPID: 11, OldVersion: "1.0", NewVersion: "1.1",
			Sessions: 2, Connections: 3, Tasks: 4, Bytes: 500, Pause: 1234567,
		},
		{Time: at.Add(time.Minute), Generation: 3, Error: "bad.conf:1:1: a\nbad.conf:2:1: b"},
	}
}

// TestShowUpgrades looks for the history where it is not in the way of a
// script that reads targets.
func TestShowUpgrades(t *testing.T) {
	st := seed()
	st.Upgrades = reports()
	want := "Upgrades:\n" +
		"    2026-11-22T12:00:00Z generation 2: PID 10 (1.0) to PID 11 (1.1), 2 sessions, 3 connections, 4 tasks, 500 bytes, pause 1.235ms\n" +
		"    2026-11-22T12:01:00Z failed: bad.conf:1:1: a; bad.conf:2:1: b\n" + show(seed())
	if d := cmp.Diff(want, show(st)); d != "" {
		t.Error(d)
	}
}

func TestSessions(t *testing.T) {
	var b strings.Builder
	if err := writeSessions(&b, captured().Sessions, time.Date(2026, 11, 22, 12, 1, 0, 0, time.UTC), false); err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"TSIH", "INITIATOR", "ADDRESS", "TARGET", "ISID", "CIDS", "AGE", "READS", "WRITES", "READ", "WRITTEN", "ERRORS"},
		{"1", "iqn.2015-02.com.stu31:xen1", "127.0.0.1:40312", "iqn.2015-02.com.stu31:t1", "800000000000", "0", "1m00s", "7", "5", "28.0KiB", "20.0KiB", "0"},
		{"2", "iqn.2015-02.com.stu31:xen2", "[::1]:40313", "(discovery)", "800000000001", "3", "10s", "0", "0", "0B", "0B", "0"},
	}
	var got [][]string
	for line := range strings.Lines(b.String()) {
		got = append(got, strings.Fields(line))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
