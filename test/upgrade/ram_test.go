// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// ramDisk configures a RAM disk of size bytes as LUN 1.
func ramDisk(size int64) string {
	return fmt.Sprintf("targets:\n  - name: %s\n    luns:\n      - {lun: 1, backend: ram, size: %d}\n", peer.IQN, size)
}

// startRAM runs the first generation, serving a RAM disk.
func startRAM(t *testing.T, program string, env ...string) *daemon {
	t.Helper()
	return startWith(t, program, "gotgtd.yaml", func(string) string { return ramDisk(diskSize) }, env...)
}

// expectCapacity checks the size in bytes of LUN 1.
func expectCapacity(t *testing.T, s *initiator.Session, size uint64) {
	t.Helper()
	if c, err := s.ReadCapacity(t.Context(), initiator.LUN(1)); err != nil || c.Blocks != size/blockSize {
		t.Errorf("capacity %+v, %v, want %d bytes", c, err, size)
	}
}

// TestRAMDisk writes to and verifies a RAM disk through upgrades: its contents
// move. Then the configuration makes the disk larger, and smaller again, and
// at last takes it away.
func TestRAMDisk(t *testing.T) {
	const capacityChanged = 0x2a09
	d := startRAM(t, builds.a.Path(t))
	s := login(t, d, "iqn.2026-11.test:ram")
	const workers = 8
	var regions []*region
	var jobs []func() error
	for w := range uint64(workers) {
		const blocks = diskSize / blockSize / workers
		r := newRegion(s, w*blocks, blocks, w)
		regions = append(regions, r)
		jobs = append(jobs, again(t, d, func() error {
			for range 20 {
				if err := r.step(t.Context()); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	during(t, d, 0, jobs...)
	verify := func(when string, regions []*region) {
		t.Helper()
		for _, r := range regions {
			for at := 0; at < len(r.stamps); at += maxBlocks {
				n := min(maxBlocks, len(r.stamps)-at)
				if err := r.read(t.Context(), r.first+uint64(at), at, r.buf[:n*blockSize]); err != nil {
					t.Fatalf("%s: %v", when, err)
				}
			}
		}
	}
	resize := func(size int64) {
		t.Helper()
		d.configure(t, ramDisk(size))
		mustForce(t, d)
		if code := attention(t, s, 1); code != capacityChanged {
			t.Errorf("with %d bytes, the unit attention is %#x, want %#x", size, code, capacityChanged)
		}
		expectCapacity(t, s, uint64(size))
	}
	verify("after the upgrades", regions)
	resize(2 * diskSize)
	verify("when the disk has grown", regions)
	resize(diskSize / 2)
	verify("when it has shrunk", regions[:workers/2])
	resize(diskSize)
	for _, r := range regions[workers/2:] {
		clear(r.stamps)
	}
	verify("when it has grown again", regions)

	d.configure(t, peerYAML(d.disk))
	mustForce(t, d)
	const notice = "contents are gone"
	if n := strings.Count(d.log(), notice); n != 1 {
		t.Errorf("%d lines of the log say %q, want one:\n%s", n, notice, d.log())
	}
}

// peerYAML configures a file as LUN 2.
func peerYAML(path string) string {
	return fmt.Sprintf("targets:\n  - name: %s\n    luns:\n      - {lun: 2, path: %s}\n", peer.IQN, path)
}

// TestRAMDiskRollback kills a successor that has rebuilt everything, with
// another size for the RAM disk: the predecessor has the disk as it was.
func TestRAMDiskRollback(t *testing.T) {
	for _, size := range []int64{2 * diskSize, diskSize / 2} {
		d := startRAM(t, builds.faulty.Path(t), "HANDOFF_FAULT=new.prepared=kill")
		s := login(t, d, "iqn.2026-11.test:ram")
		r := newRegion(s, 0, diskSize/blockSize, 1)
		for range 200 {
			if err := r.step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		d.configure(t, ramDisk(size))
		if _, err := d.force(t); err == nil {
			t.Error("the upgrade did not fail")
		}
		expectCapacity(t, s, diskSize)
		for range 200 {
			if err := r.step(t.Context()); err != nil {
				t.Fatalf("after the rollback: %v", err)
			}
		}
		if strings.Contains(d.log(), "contents are gone") {
			t.Errorf("the log says that the disk is lost:\n%s", d.log())
		}
	}
}
