// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/test/peer"
)

// TestTrimOfMigratedImage is the weekly fstrim of a guest whose preallocated image was
// served by tgt: its space stays taken under gotgtd and the same targets.conf, and is given
// back with thin_provisioning alone.
func TestTrimOfMigratedImage(t *testing.T) {
	t.Parallel()
	image := sparse(t, "image.img", 0)
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, 16<<20), f.Close()); err != nil { // gotgtd refuses one that is open
		t.Fatal(err)
	}
	full := blocksOf(t, image)
	if full < 16<<20/512 {
		t.Fatalf("the image has %d blocks of 512 bytes", full)
	}
	for _, directives := range []string{"", "params thin_provisioning=0", "thin_provisioning 1"} {
		wanted := directives == "thin_provisioning 1"
		target := start(t, peer.Options{Config: peer.OneDisk(image, directives)})
		s, err := initiator.Dial(t.Context(), initiator.Options{Address: target.Portals()[0], TargetName: peer.IQN})
		if err != nil {
			t.Fatal(err)
		}
		if offered := trim(t, s); offered != wanted {
			t.Errorf("%q: the disk says that it gives space back: %v", directives, offered)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := target.Stop(); err != nil { // the image is for the next
			t.Error(err)
		}
		if left := blocksOf(t, image); (left < full) != wanted {
			t.Errorf("%q: %d blocks of 512 bytes are left of %d", directives, left, full)
		}
	}
}

// blocksOf returns how much space a file takes, in 512 bytes.
func blocksOf(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// trim sends what fstrim makes Linux send, whether the disk offers it or not, and returns
// whether it does: LBPME in the READ CAPACITY (16) data, and LBPU in VPD page B2h.
func trim(t *testing.T, s *initiator.Session) (offered bool) {
	t.Helper()
	lun := initiator.LUN(1)
	if err := s.Settle(t.Context(), lun); err != nil {
		t.Fatal(err)
	}
	a := &asker{t: t, s: s, lun: 1}
	capacity := a.ask(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32)
	page := a.ask(0x12, 1, 0xb2, 4, 0)
	if len(capacity) < 15 || len(page) < 6 {
		t.Fatalf("READ CAPACITY (16) % x, page B2h % x", capacity, page)
	}
	offered = capacity[14]&0x80 != 0
	if unmaps := page[5]&0x80 != 0; unmaps != offered {
		t.Errorf("LBPME %v, LBPU %v", offered, unmaps)
	}
	unmap := new(initiator.Command).Unmap(lun, initiator.Range{LBA: 0, Blocks: 16 << 20 / 512})
	same := &initiator.Command{LUN: lun, Out: make([]byte, 512), CDB: [16]byte{0: 0x93, 1: 0x08, 12: 0x80}} // UNMAP, 32768 blocks
	for _, cmd := range []*initiator.Command{unmap, same} {
		err := s.Do(t.Context(), cmd)
		var refused *initiator.StatusError
		if key, _ := initiator.DecodeSense(cmd.Sense); offered && err != nil || !offered && (!errors.As(err, &refused) || key != 5) {
			t.Errorf("offered: %v, command %02Xh: %v", offered, cmd.CDB[0], err)
		}
	}
	// Zeros are written all the same, and keep their space unless the disk is thin.
	zeros := &initiator.Command{LUN: lun, Out: make([]byte, 512), CDB: [16]byte{0: 0x93, 12: 0x40}}
	if err := s.Do(t.Context(), zeros); err != nil {
		t.Errorf("WRITE SAME (16) of zeros: %v", err)
	}
	return offered
}
