// SPDX-License-Identifier: Apache-2.0

package scsi_test

import (
	"path/filepath"
	"testing"

	"github.com/gotgtd/gotgtd/target/scsi"
	"github.com/gotgtd/gotgtd/target/storage"
)

// TestSpace: what a thin disk takes is told when it is attached, and follows what is written when
// it is measured again.
func TestSpace(t *testing.T) {
	const size = 1 << 20
	store, err := storage.OpenFile(storage.Options{Path: filepath.Join(t.TempDir(), "disk"), Size: size, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	h, lu := newHost(t, scsi.LogicalUnitOptions{Store: store})
	defer lu.Close()
	before := lu.Space()
	if before == nil || before.Allocated >= size || before.Total < size || before.Free > before.Total {
		t.Fatalf("an empty disk: %+v", before)
	}
	h.write(0, fill(1, 1024))
	h.want(good, rw10(0x35, 0, 0, 0), nil, 0)
	if err := lu.MeasureSpace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := lu.Space(); after.Allocated < before.Allocated+512<<10 {
		t.Errorf("512 KiB were written: %+v, before %+v", after, before)
	}
}

// noSpace is a store that can't tell.
type noSpace struct{ storage.Store }

func (noSpace) Capabilities() storage.Capabilities { return storage.Capabilities{} }

// TestNoSpace: a store that does not know its space has none.
func TestNoSpace(t *testing.T) {
	_, lu := newHost(t, scsi.LogicalUnitOptions{Store: noSpace{newRAM(t)}})
	if err := lu.MeasureSpace(t.Context()); err != nil || lu.Space() != nil {
		t.Errorf("%+v, %v", lu.Space(), err)
	}
}
