// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// TestZeroOptions makes a disk of nothing but a store: it is what a configuration
// makes of a logical unit that says nothing either.
func TestZeroOptions(t *testing.T) {
	h, lu := newHost(t, scsi.LogicalUnitOptions{Store: newRAM(t)})
	h.want(good, []byte{0, 5: 0}, nil, 0) // TEST UNIT READY
	i := lu.Info()
	if !i.Online || !i.WriteCache || !i.Thin || i.ReadOnly || i.BlockSize != 512 {
		t.Errorf("%+v", i)
	}
}

// TestDevicesWithoutNumbers has two devices that are given none: initiators
// must not take their disks for one.
func TestDevicesWithoutNumbers(t *testing.T) {
	seen := make(map[string]string)
	for _, name := range []string{"iqn.2026-11.test:a", "iqn.2026-11.test:b"} {
		d, err := scsi.NewDevice(scsi.DeviceOptions{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		lu := attach(t, d, 1, scsi.LogicalUnitOptions{Store: newRAM(t)})
		for _, id := range []string{lu.Info().Serial, lu.Info().SCSIID, lu.Info().NAA} {
			if seen[id] != "" && seen[id] != name {
				t.Errorf("%s and %s are both known by %q", seen[id], name, id)
			}
			seen[id] = name
		}
	}
}

func newRAM(t *testing.T) storage.Store {
	t.Helper()
	st, err := storage.NewRAM(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}
