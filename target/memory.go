// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"os"

	"github.com/gotgtd/gotgtd/target/handoff"
	"github.com/gotgtd/gotgtd/target/storage"
)

// featureMemory is the feature that a successor needs to take RAM disks over. The first
// version could not pass them on and required "contents of RAM disks", to refuse every
// successor: no version may offer that one.
const featureMemory = "RAM disks in memory files"

// memoryState says whose blocks are in a file of kind fileMemory. The n-th
// state belongs to the n-th of these files.
type memoryState struct {
	Target string `cbor:"1,keyasint"`
	LUN    uint16 `cbor:"2,keyasint"`
	NAA    string `cbor:"3,keyasint"` // the disk's NAA designator in hexadecimal
	Size   int64  `cbor:"4,keyasint"` // bytes
}

func (m *memoryState) String() string { return fmt.Sprintf("target %s LUN %d", m.Target, m.LUN) }

// ramDisk is a RAM disk with what it is called.
type ramDisk struct {
	memoryState
	store storage.Movable
}

// ramDisks returns the RAM disks of all targets.
func (s *Server) ramDisks() []ramDisk {
	var list []ramDisk
	for _, t := range s.targets {
		for _, u := range t.device.LogicalUnits() {
			if m := storage.Can(u.Unit.Store()).Movable; m != nil {
				i := u.Unit.Info()
				list = append(list, ramDisk{memoryState{t.conf.Name, u.Number, i.NAA, i.Size}, m})
			}
		}
	}
	return list
}

// putMemory adds the RAM disks to a snapshot.
func (g *giver) putMemory(snap *handoff.Snapshot, add addFile) error {
	var states []memoryState
	for _, d := range g.server.ramDisks() {
		if err := add(fileMemory, d.String(), d.store.MemoryFile()); err != nil {
			return err
		}
		states = append(states, d.memoryState)
	}
	return snap.Put(sectionMemory, states)
}

// takeMemory gives the RAM disks the blocks that the predecessor had for them.
// A disk is told by its NAA designator, as initiators do, whatever its target
// and LUN are by now. The predecessor can still go on afterwards. The files
// are taken, also on error.
func (t *taker) takeMemory(snap *handoff.Snapshot, files []*os.File) error {
	var states []memoryState
	err := snap.Get(sectionMemory, &states)
	if err == nil && len(states) != len(files) {
		err = fmt.Errorf("%d memory files for %d RAM disks", len(files), len(states))
	}
	if err != nil {
		closeFiles(files)
		return err
	}
	disks := make(map[string]storage.Movable)
	for _, d := range t.server.ramDisks() {
		disks[d.NAA] = d.store
	}
	for i, m := range states {
		disk := disks[m.NAA]
		if disk == nil {
			t.dropped = append(t.dropped, m)
			files[i].Close()
			continue
		}
		delete(disks, m.NAA)
		if err := disk.AdoptMemory(files[i]); err != nil {
			closeFiles(files[i+1:])
			return fmt.Errorf("%v: %w", &m, err)
		}
	}
	return nil
}

// settleMemory does what has to wait until the predecessor can't go on any
// more: blocks that the configuration has no place for are given back.
func (t *taker) settleMemory() {
	log := t.server.log
	for _, m := range t.dropped {
		log.Warn("RAM disk not configured any more: its contents are gone", "target", m.Target, "lun", m.LUN, "naa", m.NAA, "bytes", m.Size)
	}
	for _, d := range t.server.ramDisks() {
		if err := d.store.TrimMemory(); err != nil {
			log.Error("memory of a RAM disk not given back", "target", d.Target, "lun", d.LUN, "error", err)
		}
	}
}
