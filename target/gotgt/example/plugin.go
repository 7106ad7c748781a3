// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/scsi"
)

// pluginName is what the plug-in is registered as with gotgt.
const pluginName = "memory"

func init() {
	scsi.RegisterBackingStore(pluginName, func() (api.BackingStore, error) { return new(backend), nil })
}

// backend is a plug-in for gotgt that reaches a volume as gotgt's own RemBs
// does, and frees space besides. Its path is the target's name.
type backend struct{ volume *volume }

// Open finds the volume that was given to scsi.InitSCSILUMapEx for the target.
func (b *backend) Open(_ *api.SCSILu, target string) error {
	store, err := scsi.GetTargetBSMap(target)
	if err != nil {
		return err
	}
	v, ok := store.(*volume)
	if !ok {
		return fmt.Errorf("target %s has a %T for a volume", target, store)
	}
	b.volume = v
	return nil
}

// Close leaves the volume to the one who opened it.
func (b *backend) Close(*api.SCSILu) error { return nil }

// Init takes no options.
func (b *backend) Init(*api.SCSILu, string) error { return nil }

// Exit does nothing.
func (b *backend) Exit(*api.SCSILu) error { return nil }

// Size returns the volume's size in bytes.
func (b *backend) Size(*api.SCSILu) uint64 { return uint64(b.volume.size()) }

// Read returns n bytes at off.
func (b *backend) Read(off, n int64) ([]byte, error) {
	p := make([]byte, n)
	_, err := b.volume.ReadAt(p, off)
	return p, err
}

// Write writes p at off.
func (b *backend) Write(p []byte, off int64) error {
	_, err := b.volume.WriteAt(p, off)
	return err
}

// DataSync makes what was written durable.
func (b *backend) DataSync(int64, int64) error {
	_, err := b.volume.Sync()
	return err
}

// DataAdvise ignores advice.
func (b *backend) DataAdvise(int64, int64, uint32) error { return nil }

// Unmap frees ranges of bytes.
func (b *backend) Unmap(ranges []api.UnmapBlockDescriptor) error {
	for _, r := range ranges {
		if _, err := b.volume.Unmap(int64(r.Offset), int64(r.TL)); err != nil {
			return err
		}
	}
	return nil
}
