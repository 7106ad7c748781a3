// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/gotgtd/gotgtd/target/storage"
)

// Numbers are the numbers that targets and logical units were given, by the
// name of the target. A number that the configuration leaves open stays what it
// was, whatever comes or goes beside it: from a targets.conf, initiators know a disk by
// it. The zero Numbers is valid and empty.
type Numbers map[string]TargetNumbers

// TargetNumbers are the numbers of one target.
type TargetNumbers struct {
	TID    int                    `json:"tid"`
	LUNs   map[string]uint16      `json:"luns,omitempty"`   // by the path of the backing store
	Stores map[string]StoreNumber `json:"stores,omitempty"` // by what it is, see [storage.Identify]
}

// StoreNumber is the number of a logical unit whose store is known by its ID.
type StoreNumber struct {
	LUN uint16 `json:"lun"`

	// Path is where the store was, and empty if its ID can't be that of another one. File
	// systems give the inode of a file that is gone to the next.
	Path string `json:"path,omitempty"`

	// Existed, unless it is zero, is a time at which the store was there: what is no
	// younger is the same one, though it is no longer at Path.
	Existed time.Time `json:"existed,omitzero"`
}

// is reports whether the store at path, whose ID is the one that was noted, is the one that had it then.
func (s *StoreNumber) is(path, id string) bool {
	if s.Path == "" || !s.Existed.IsZero() && storage.Existed(path, s.Existed) {
		return true
	}
	there, _, err := storage.Identify(s.Path)
	return err == nil && there == id
}

// NewNumbers reports whether a target or logical unit that no number was known of has got one by order.
func (c *Config) NewNumbers() bool { return c.newNumbers }

// NewIdentities reports whether initiators know a disk by such a number: those from a targets.conf.
func (c *Config) NewIdentities() bool { return c.newNumbers && c.language == formatTGT }

// Set notes the number of a target and, unless path is empty, that of a
// logical unit.
func (n Numbers) Set(target string, tid int, path string, lun uint16) {
	t := n[target]
	t.TID = tid
	if t.LUNs == nil {
		t.LUNs = make(map[string]uint16)
	}
	if path != "" {
		t.LUNs[filepath.Clean(path)] = lun
	}
	n[target] = t
}

// SetStore notes the number of a logical unit by the ID of its store, for a target that
// [Numbers.Set] has noted.
func (n Numbers) SetStore(target, id string, number StoreNumber) {
	t := n[target]
	if t.Stores == nil {
		t.Stores = make(map[string]StoreNumber)
	}
	t.Stores[id] = number
	n[target] = t
}

// Add notes numbers, in the place of those that were known.
func (n Numbers) Add(known Numbers) {
	for target, t := range known {
		n.Set(target, t.TID, "", 0)
		for path, lun := range t.LUNs {
			n.Set(target, t.TID, path, lun)
		}
		for id, number := range t.Stores {
			n.SetStore(target, id, number)
		}
	}
}

// tid returns the TID that a target was given, 0 if it has none or taken says
// that another has it.
func (n Numbers) tid(target string, taken map[int]bool) int {
	if tid := n[target].TID; !taken[tid] {
		return tid
	}
	return 0
}

// MaxTID is the highest TID.
const MaxTID = 65535

// nextTID returns the TID of a new target where all are given by order: one
// more than the highest, as tgt-admin has it, and none that another target has. Behind
// the last that there can be it is the lowest that is free, also of those that are kept for
// targets that are gone.
func (n Numbers) nextTID(latest int, taken map[int]bool) (int, error) {
	known := make(map[int]bool, len(n))
	for _, t := range n {
		latest, known[t.TID] = max(latest, t.TID), true
	}
	for tid := latest + 1; tid <= MaxTID; tid++ {
		if !taken[tid] {
			return tid, nil
		}
	}
	if tid := freeTID(1, taken, known); tid <= MaxTID {
		return tid, nil
	}
	if tid := freeTID(1, taken, nil); tid <= MaxTID {
		return tid, nil
	}
	return 0, fmt.Errorf("there is no TID left for this target: other targets have all from 1 to %d", MaxTID)
}

// freeTID returns the first TID from tid on that is in neither set.
func freeTID(tid int, taken, known map[int]bool) int {
	for taken[tid] || known[tid] {
		tid++
	}
	return tid
}

// storeLUN returns the number that the logical unit of the store at path was given,
// whatever the path was by which it was known.
func (n Numbers) storeLUN(target, path string) (lun uint16, ok bool) {
	stores := n[target].Stores
	if len(stores) == 0 {
		return 0, false
	}
	id, _, err := storage.Identify(path)
	if err != nil {
		return 0, false // its path is all that there is to know it by
	}
	number, ok := stores[id]
	return number.LUN, ok && number.is(path, id)
}

// pathLUN returns the number that the logical unit with a path was given.
func (n Numbers) pathLUN(target, path string) (lun uint16, ok bool) {
	lun, ok = n[target].LUNs[filepath.Clean(path)]
	return lun, ok
}

// takenLUNs returns the numbers that logical units of a target were given.
func (n Numbers) takenLUNs(target string) map[uint16]bool {
	taken := make(map[uint16]bool)
	for _, lun := range n[target].LUNs {
		taken[lun] = true
	}
	for _, s := range n[target].Stores {
		taken[s.LUN] = true
	}
	return taken
}
