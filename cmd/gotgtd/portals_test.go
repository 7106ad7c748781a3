// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// TestPassedByMistake passes what can't be a portal.
func TestPassedByMistake(t *testing.T) {
	socket := func(domain, kind int, address unix.Sockaddr) *os.File {
		t.Helper()
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil && address != nil {
			err = unix.Bind(fd, address)
		}
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(uintptr(fd), "socket")
	}
	dir := t.TempDir()
	unixSocket := socket(unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: filepath.Join(dir, "a.sock")})
	if err := unix.Listen(int(unixSocket.Fd()), 1); err != nil {
		t.Fatal(err)
	}
	regular, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	for what, tc := range map[string]struct {
		file *os.File
		want string
	}{
		"a bound TCP socket":      {socket(unix.AF_INET, unix.SOCK_STREAM, loopback), "the TCP socket does not listen; who passes it has to call listen(2) first"},
		"a TCP socket of IPv6":    {socket(unix.AF_INET6, unix.SOCK_STREAM, nil), "the TCP socket does not listen"},
		"a UDP socket":            {socket(unix.AF_INET, unix.SOCK_DGRAM, loopback), "it is no TCP socket; portals need ListenStream="},
		"a Unix socket":           {socket(unix.AF_UNIX, unix.SOCK_STREAM, nil), "it is no TCP socket"},
		"a listening Unix socket": {unixSocket, filepath.Join(dir, "a.sock") + " is no TCP socket"},
		"a file":                  {regular, "it is no socket"},
	} {
		defer tc.file.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c := asMain(exec.CommandContext(ctx, os.Args[0], "serve", "--disk", filepath.Join(dir, "disk.img")+",size=1MiB", "--control", filepath.Join(dir, "c.sock"), "--listen", "127.0.0.1:0"))
		passFile(t, tc.file)(c)
		out, err := c.CombinedOutput()
		if want := `can't serve on "iscsi", which was passed: ` + tc.want; err == nil || ctx.Err() != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want %q in:\n%s", what, err, want, out)
		}
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
