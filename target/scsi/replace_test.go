// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gotgtd/gotgtd/target/mem"
	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// named is a store that is known by an ID.
type named struct {
	storage.Store
	id string
}

func (n named) Info() storage.Info {
	i := n.Store.Info()
	i.ID = n.id
	return i
}

func namedDisk(id string) scsi.LogicalUnitOptions {
	return scsi.LogicalUnitOptions{Store: named{storagetest.NewRAM(1 << 20), id}}
}

// TestReplacedUnit puts other disks in the place of one that an initiator has
// registered with and sent a command to.
func TestReplacedUnit(t *testing.T) {
	serial, vendor := namedDisk("one"), namedDisk("one")
	serial.Serial = "another"
	vendor.Vendor = "OTHER"
	naa := namedDisk("one")
	naa.NAA = "3001020304050607"
	for _, c := range []struct {
		name string
		unit scsi.LogicalUnitOptions
		same bool
	}{
		{"the same", namedDisk("one"), true},
		{"an unknown store", namedDisk(""), true},
		{"another store", namedDisk("two"), false},
		{"another serial number", serial, false},
		{"another vendor", vendor, false},
		{"another NAA", naa, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			old := newDevice(t, scsi.DeviceOptions{StateDir: dir})
			attach(t, old, 1, namedDisk("one"))
			h := openHost(t, old, "a").settle()
			h.persist(t)

			next := newDevice(t, scsi.DeviceOptions{StateDir: dir})
			attach(t, next, 1, c.unit)
			if err := next.Restore(carry(t, old)); err != nil {
				t.Fatal(err)
			}
			if got := len(next.Replaced()) == 0; got != c.same {
				t.Fatalf("Replaced: %v", next.Replaced())
			}
			h = h.resume(t, next)
			// A write that the predecessor had let pass.
			w := scsi.Command{Pool: new(mem.Pool), LUN: h.lun, OutExpected: 512}
			copy(w.CDB[:], rw10(0x2a, 0, 0, 1))
			h.n.Reprepare(&w)
			if w.Done() == c.same {
				t.Fatalf("the write under way is done: %v", w.Done())
			}
			if c.same {
				h.expect(t)
				return
			}
			if r := h.finish(&w); r.String() != "5/25/00" {
				t.Errorf("the write under way ends with %v", r)
			}
			h.checkReplaced(t, dir)
		})
	}
}

// persist makes a registration that persists through power loss.
func (h *host) persist(t *testing.T) {
	t.Helper()
	p := make([]byte, 24)
	p[15], p[20] = 11, 1 // key, APTPL
	h.want(good, []byte{0x5f, 0, 8: 24, 9: 0}, p, 0)
}

// checkReplaced follows what h sees of a logical unit in the place of its own.
func (h *host) checkReplaced(t *testing.T, dir string) {
	t.Helper()
	h.want("6/3f/0e", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	h.want("6/3f/03", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	for range 3 { // a retry changes nothing
		h.want("5/25/00", rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	}
	h.want(good, inquiry(0x83, 255), nil, 255)
	h.want(good, rw10(0x2a, 0, 0, 1), fill(1, 1), 0)
	if b := h.want(good, []byte{0x5e, 0, 8: 255, 9: 0}, nil, 255).data; b[7] != 0 {
		t.Errorf("the registration has gone over to the other disk: % x", b)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.reservations"))
	if err != nil || len(files) != 1 {
		t.Fatalf("before Settle the predecessor can go on, and its file is there: %v, %v", files, err)
	}
	if err := h.dev.Settle(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(files[0]); !os.IsNotExist(err) {
		t.Errorf("after Settle: %v", err)
	}
}

// TestReservationsOfAnotherUnit starts with the file of a disk that had the
// same number.
func TestReservationsOfAnotherUnit(t *testing.T) {
	dir := t.TempDir()
	old := newDevice(t, scsi.DeviceOptions{StateDir: dir})
	attach(t, old, 1, namedDisk("one"))
	openHost(t, old, "a").settle().persist(t)
	for _, c := range []struct {
		naa  string
		want byte
	}{{"", 8}, {"3001020304050607", 0}} {
		o := namedDisk("one")
		o.NAA = c.naa
		next := newDevice(t, scsi.DeviceOptions{StateDir: dir})
		attach(t, next, 1, o)
		h := openHost(t, next, "a").settle()
		if b := h.want(good, []byte{0x5e, 0, 8: 255, 9: 0}, nil, 255).data; b[7] != c.want {
			t.Errorf("NAA %s: %d bytes of keys, want %d", c.naa, b[7], c.want)
		}
	}
}
