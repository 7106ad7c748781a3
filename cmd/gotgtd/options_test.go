// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskOption(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		arg  string
		path string
		size int64
		err  string
	}{
		{arg: "/srv/a.img", path: "/srv/a.img"},
		{arg: "a.img", path: filepath.Join(dir, "a.img")},
		{arg: "/srv/a.img,size=1GiB", path: "/srv/a.img", size: 1 << 30},
		{arg: "/srv/a.img,size=4096", path: "/srv/a.img", size: 4096},
		{arg: "", err: "needs a path"},
		{arg: ",size=1GiB", err: "needs a path"},
		{arg: "/srv/a.img,size=", err: "bad size"},
		{arg: "/srv/a.img,size=0", err: "bad size"},
		{arg: "/srv/a.img,size=-1", err: "bad size"},
		{arg: "/srv/a.img,ro", err: `unknown option "ro"`},
	} {
		path, size, err := parseDisk(tc.arg)
		switch {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("--disk %q: error %v, want one with %q", tc.arg, err, tc.err)
			}
		case err != nil || path != tc.path || size != tc.size:
			t.Errorf("--disk %q: %q, %d, %v; want %q, %d", tc.arg, path, size, err, tc.path, tc.size)
		}
	}
}

// TestMissingDisk reads the advice where a file is missing.
func TestMissingDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	o := serveOptions{disks: []string{path}, target: defaultTarget}
	_, err := o.configuration(nil)
	if want := fmt.Sprintf("can't find %q: to have the file made, give --disk %s,size=1GiB", path, path); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	if exitStatus(errRun{err}) != statusConfig {
		t.Errorf("exit status %d", exitStatus(errRun{err}))
	}
}

func TestConfigurationOfADisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	o := serveOptions{disks: []string{path + ",size=1MiB"}, target: "IQN.2026-11.test:Disk", listen: []string{"127.0.0.1:0", "[::1]:3261"}}
	c, err := o.configuration(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Targets) != 1 || c.Targets[0].Name != "iqn.2026-11.test:disk" || !c.Targets[0].Access.All {
		t.Fatalf("targets are %+v", c.Targets)
	}
	if l := c.Targets[0].LUNs; len(l) != 1 || l[0].Number != 1 || l[0].Path != path || l[0].Size != 1<<20 || !l[0].Create {
		t.Errorf("LUNs are %+v", l)
	}
	if g := c.PortalGroups; len(g) != 1 || g[0].Tag != 1 || len(g[0].Portals) != 2 || g[0].Portals[1].Address != "[::1]:3261" {
		t.Errorf("portal groups are %+v", g)
	}
	for want, o := range map[string]serveOptions{
		"--listen nowhere": {disks: []string{path + ",size=1MiB"}, target: "iqn.2026-11.test:a", listen: []string{"nowhere"}},
		"disk.img":         {disks: []string{path}, target: "iqn.2026-11.test:a"}, // not there
		"nothing to serve": {},
		"not-an-iqn":       {disks: []string{path + ",size=1MiB"}, target: "not-an-iqn"},
	} {
		if _, err := o.configuration(nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", o, err, want)
		}
	}
}

// TestListenReplacesPortals keeps the tag that the configuration gives.
func TestListenReplacesPortals(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "gotgtd.yaml")
	text := "portal-groups:\n  - tag: 7\n    portals:\n      - address: 192.0.2.1:3260\ntargets:\n  - name: iqn.2026-11.test:a\n    luns:\n      - lun: 1\n        path: " + dir + "/a.img\n        size: 1MiB\n        create: true\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := serveOptions{config: file, listen: []string{"127.0.0.1:3299"}}
	c, err := o.configuration(nil)
	if err != nil {
		t.Fatal(err)
	}
	if g := c.PortalGroups; len(g) != 1 || g[0].Tag != 7 || len(g[0].Portals) != 1 || g[0].Portals[0].Address != "127.0.0.1:3299" {
		t.Errorf("portal groups are %+v", g)
	}
}

func TestStateDirectory(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")
	if got := new(serveOptions).state(); got != "/var/lib/a" {
		t.Errorf("with STATE_DIRECTORY the state is in %q", got)
	}
	o := serveOptions{stateDir: "/srv/state"}
	if got := o.state(); got != "/srv/state" {
		t.Errorf("with --state-dir the state is in %q", got)
	}
}

func TestHumanSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 512: "512 bytes", 1536: "1.5 KiB", 1 << 30: "1.0 GiB", 5378310144: "5.0 GiB", 3 << 40: "3.0 TiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := humanSize(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// listenerAt is a listener that says it is at an address.
type listenerAt struct {
	net.Listener
	addr net.Addr
}

func (l listenerAt) Addr() net.Addr { return l.addr }

func TestPassedSocketCoversPortal(t *testing.T) {
	for _, tc := range []struct {
		passed, portal string
		want           bool
	}{
		{"127.0.0.1:3260", "127.0.0.1:3260", true},
		{"127.0.0.1:3260", "127.0.0.1:3261", false},
		{"127.0.0.1:3260", "127.0.0.2:3260", false},
		{"0.0.0.0:3260", "127.0.0.2:3260", true},
		{"0.0.0.0:3260", "[::1]:3260", false},
		{"[::]:3260", "[::1]:3260", true},
		{"[::]:3260", "0.0.0.0:3260", true},
		{"[::1]:3260", "[::1]:3260", true},
	} {
		a, err := net.ResolveTCPAddr("tcp", tc.passed)
		if err != nil {
			t.Fatal(err)
		}
		if got := covers(listenerAt{addr: a}, tc.portal); got != tc.want {
			t.Errorf("%s covers %s: %v", tc.passed, tc.portal, got)
		}
	}
	if covers(listenerAt{addr: &net.UnixAddr{Name: "/run/a", Net: "unix"}}, "0.0.0.0:3260") {
		t.Error("a unix socket passes for a portal")
	}
}

// TestDiskIdentities: disks of two hosts, two files and two targets are told
// apart, and one is the same after a restart.
func TestDiskIdentities(t *testing.T) {
	dir := t.TempDir()
	disks := []string{filepath.Join(dir, "a") + ",size=1MiB", filepath.Join(dir, "b") + ",size=1MiB"}
	seen := map[string]string{}
	for _, target := range []string{defaultTarget, "iqn.2026-11.test:a", "iqn.2026-11.test:b"} {
		o := serveOptions{disks: disks, target: target}
		c, err := o.configuration(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := o.configuration(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Targets[0].LUNs) != 2 {
			t.Fatalf("%d logical units of 2 disks", len(c.Targets[0].LUNs))
		}
		for i, l := range c.Targets[0].LUNs {
			at := target + " " + l.Path
			for _, id := range []string{l.SCSIID, l.Serial, l.NAA} {
				if other := seen[id]; other != "" && other != at {
					t.Errorf("%s and %s have one identity, %s", at, other, id)
				}
				seen[id] = at
			}
			if n := again.Targets[0].LUNs[i]; n.NAA != l.NAA || n.Serial != l.Serial || n.SCSIID != l.SCSIID || l.Number != uint16(i+1) {
				t.Errorf("%s is another disk after a restart", at)
			}
		}
	}
	if diskIdentity("host 1", "/a") == diskIdentity("host 2", "/a") {
		t.Error("disks of two hosts have one identity")
	}
}
