// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
)

// TestExampleUnderSocketUnit starts the example with two portal groups as
// gotgtd.socket does: with one socket for all addresses.
func TestExampleUnderSocketUnit(t *testing.T) {
	pass, addr := passSocket(t, "[::]:0")
	example, err := os.ReadFile("../../docs/examples/shared-disk.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	disk, conf := filepath.Join(dir, "disk.img"), filepath.Join(dir, "shared-disk.yaml")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(addr.(*net.TCPAddr).Port)
	text := strings.NewReplacer("172.16.31.1:3260", "127.0.0.1:"+port, "172.16.32.1:3260", "127.0.0.2:"+port, "/dev/vg0/busybox", disk).Replace(string(example))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemonAs(t, func(c *exec.Cmd) {
		i := slices.Index(c.Args, "--listen")
		c.Args = slices.Delete(c.Args, i, i+2)
		pass(c)
	}, "--config", conf)
	want := map[string]uint16{"127.0.0.1:" + port: 1, "127.0.0.2:" + port: 2}
	portals := d.status(t).Portals
	for _, p := range portals {
		if want[p.Address.String()] != p.Group {
			t.Errorf("portal %v is in group %d", p.Address, p.Group)
		}
	}
	if len(portals) != len(want) {
		t.Errorf("portals %v, want %v", portals, want)
	}
}

// TestAllOfIPv4AndAllOfIPv6 has both at one port, which works only if the
// socket of IPv6 leaves IPv4 to the other.
func TestAllOfIPv4AndAllOfIPv6(t *testing.T) {
	groups := []config.PortalGroup{{Tag: 1, Portals: []config.Portal{{Address: "0.0.0.0:0"}, {Address: "[::]:0"}}}}
	both, alone := &opener{groups: groups}, &opener{}
	if n, m := both.network("0.0.0.0:0"), both.network("[::]:0"); n != "tcp4" || m != "tcp6" {
		t.Fatalf("networks %s and %s", n, m)
	}
	if n := alone.network("[::]:0"); n != "tcp" {
		t.Errorf("[::] alone is %s", n)
	}
	four, err := net.Listen(both.network("0.0.0.0:0"), "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	six, err := net.Listen(both.network("[::]:0"), "[::]:"+strconv.Itoa(four.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	six.Close()
}
