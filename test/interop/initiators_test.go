// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gotgtd/gotgtd/test/peer"
)

// sharing is how long the two initiators work on one logical unit.
const sharing = 30 * time.Second

// TestTwoInitiators lets two initiators write, each in its own region of one
// logical unit, and verify what they have written, over two portals.
func TestTwoInitiators(t *testing.T) {
	t.Parallel()
	peer.Need(t, "qemu-io")
	const region = 64 << 20
	target, _, _ := startDisk(t, 2*region, 2, "")
	deadline := time.Now().Add(sharing)
	ends := make(chan error, 2)
	for i := range 2 {
		image := qemuImage(target.Portals()[i], fmt.Sprintf("iqn.2026-01.test:host-%d", i),
			fmt.Sprintf(",offset=%d,size=%d", i*region, region))
		random := rand.New(rand.NewPCG(uint64(i), 42))
		go func() { ends <- verifyRegion(t.Context(), image, region, random, deadline) }()
	}
	if err := errors.Join(<-ends, <-ends); err != nil {
		t.Fatal(err)
	}
}

// verifyRegion writes random extents of a region and reads them back, with a new
// session every few hundred commands, until the deadline. It knows what every
// extent should hold, also what an earlier session has written.
func verifyRegion(ctx context.Context, image string, size int, random *rand.Rand, deadline time.Time) error {
	const extent = 64 << 10
	holds := make([]byte, size/extent) // the pattern byte of each extent
	for time.Now().Before(deadline) {
		args := []string{"--image-opts"}
		for range 100 {
			i := random.IntN(len(holds))
			args = append(args, "-c", fmt.Sprintf("read -P %d %d %d", holds[i], i*extent, extent))
			i = random.IntN(len(holds))
			holds[i] = byte(1 + random.IntN(255))
			// A whole extent in two writes at once, at a boundary that is anywhere.
			cut := 512 * (1 + random.IntN(extent/512-1))
			args = append(args,
				"-c", fmt.Sprintf("aio_write -P %d %d %d", holds[i], i*extent, cut),
				"-c", fmt.Sprintf("aio_write -P %d %d %d", holds[i], i*extent+cut, extent-cut),
				"-c", "aio_flush",
				"-c", fmt.Sprintf("read -P %d %d %d", holds[i], i*extent, extent))
		}
		if _, err := peer.Run(ctx, "qemu-io", append(args, image)...); err != nil {
			return err
		}
	}
	return nil
}

// TestKilledInitiators kills initiators at any moment of their life. What the
// target held for them must go.
func TestKilledInitiators(t *testing.T) {
	t.Parallel()
	target, urls, _ := startDisk(t, 64<<20, 1, "")
	must(t, "iscsi-inq", urls[0])
	before := openFiles(t, target.PID())
	random := rand.New(rand.NewPCG(5, 6))
	peer.Need(t, "iscsi-perf", "qemu-img")
	for i := range 24 {
		args := []string{"iscsi-perf", "-m", "32", "-b", "64", "-r", "-t", "30", urls[0]}
		if i%2 == 0 {
			args = []string{"qemu-img", "bench", "-w", "-f", "raw", "-c", "1000000", "-d", "16", "-s", "65536", urls[0]}
		}
		p, err := peer.Spawn(args[0], args[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Done():
			t.Errorf("%q ended by itself:\n%s", args, lastLines(p.Log(), 5))
		case <-time.After(time.Duration(random.IntN(150)) * time.Millisecond):
			p.Kill()
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := peer.Until(ctx, func() error {
		if now := openFiles(t, target.PID()); now > before {
			return fmt.Errorf("%d open files, %d before", now, before)
		}
		g, ok := target.(*peer.Gotgtd)
		if !ok {
			return nil
		}
		sessions, err := g.Sessions(ctx)
		if err == nil && len(sessions) > 0 {
			err = fmt.Errorf("sessions are left: %+v", sessions)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	must(t, "iscsi-inq", urls[0])
}

// openFiles counts the file descriptors of a process.
func openFiles(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// allocated is how many bytes of a file take room on the disk.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestDiscovery asks for the targets and logical units at both portals.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	target, _, _ := startDisk(t, 16<<20, 2, "")
	for _, portal := range target.Portals() {
		out := must(t, "iscsi-ls", "-s", "iscsi://"+portal)
		contains(t, out, "Target:"+peer.IQN+" Portal:"+portal+",1", "Lun:0", "STORAGE_ARRAY_CONTROLLER",
			"Lun:1", "DIRECT_ACCESS (Size:15M)") // iscsi-ls counts up to the last block
	}
}

// TestAnnouncedPortal asks a portal that is announced under another address, and
// libiscsi logs in there, not where it asked.
func TestAnnouncedPortal(t *testing.T) {
	t.Parallel()
	if *onTgt {
		t.Fatal("tgt announces the address that it was asked at, always")
	}
	inside, err := peer.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(inside, ":")
	outside := "127.0.0.9:" + port
	start(t, peer.Options{OwnPortals: true, YAML: fmt.Sprintf(
		"portal-groups: [{tag: 3, portals: [{address: '0.0.0.0:%s', announce: ['%s']}]}]\ntargets: [{name: '%s', luns: [{lun: 1, backend: ram, size: 16MiB}]}]\n",
		port, outside, peer.IQN)})
	out := must(t, "iscsi-ls", "-s", "iscsi://"+inside)
	contains(t, out, "Target:"+peer.IQN+" Portal:"+outside+",3", "Lun:1", "DIRECT_ACCESS")
	if strings.Contains(out, inside) {
		t.Errorf("the address inside is told as well:\n%s", out)
	}
}

// TestInquiry reads the standard INQUIRY data and every VPD page that is offered.
func TestInquiry(t *testing.T) {
	t.Parallel()
	_, urls, _ := startDisk(t, 16<<20, 1, "vendor_id ACME\nproduct_id Disk\nproduct_rev 0042\nscsi_sn SN-1")
	contains(t, must(t, "iscsi-inq", urls[0]), "DIRECT_ACCESS", "Vendor:ACME", "Product:Disk", "Revision:0042")
	pages := must(t, "iscsi-inq", "-e", "1", "-c", "0", urls[0])
	for _, page := range []int{0x80, 0x83, 0xb0, 0xb1, 0xb2} {
		contains(t, pages, fmt.Sprintf("Page:0x%02x", page))
		must(t, "iscsi-inq", "-e", "1", "-c", fmt.Sprint(page), urls[0])
	}
	contains(t, must(t, "iscsi-inq", "-e", "1", "-c", fmt.Sprint(0x80), urls[0]), "SN-1")
	contains(t, must(t, "iscsi-readcapacity16", urls[0]), "Total size:16777216")
}

// TestIdentityIsStable restarts the target: what names the logical unit is the
// same, or multipath and Xen would take it for another disk.
func TestIdentityIsStable(t *testing.T) {
	t.Parallel()
	peer.Need(t, "iscsi-inq")
	file := sparse(t, "disk.img", 16<<20)
	var ids []string
	for range 2 {
		t.Run("run", func(t *testing.T) {
			target := start(t, peer.Options{Config: peer.OneDisk(file, "")})
			url := peer.URL(target.Portals()[0], peer.IQN, 1)
			ids = append(ids, must(t, "iscsi-inq", "-e", "1", "-c", fmt.Sprint(0x83), url)+must(t, "iscsi-inq", "-e", "1", "-c", fmt.Sprint(0x80), url))
		})
	}
	if len(ids) != 2 || ids[0] != ids[1] {
		t.Errorf("identity of the two runs:\n%s", strings.Join(ids, "\n"))
	}
	if len(ids) > 0 {
		contains(t, strings.ToLower(ids[0]), "naa")
	}
}
