// SPDX-License-Identifier: Apache-2.0

package config

// Numbers are the numbers that targets and logical units were given, by the
// name of the target. A number that the configuration leaves open stays what it
// was, whatever comes or goes beside it: from a targets.conf, initiators know a disk by
// it. The zero Numbers is valid and empty.
type Numbers map[string]TargetNumbers

// TargetNumbers are the numbers of one target.
type TargetNumbers struct {
	TID  int               `json:"tid"`
	LUNs map[string]uint16 `json:"luns,omitempty"` // by the path of the backing store
}

// Set notes the number of a target and, unless path is empty, that of a
// logical unit.
func (n Numbers) Set(target string, tid int, path string, lun uint16) {
	t := n[target]
	t.TID = tid
	if t.LUNs == nil {
		t.LUNs = make(map[string]uint16)
	}
	if path != "" {
		t.LUNs[path] = lun
	}
	n[target] = t
}

// Add notes numbers, in the place of those that were known.
func (n Numbers) Add(known Numbers) {
	for target, t := range known {
		n.Set(target, t.TID, "", 0)
		for path, lun := range t.LUNs {
			n.Set(target, t.TID, path, lun)
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

// nextTID returns the TID of a new target where all are given by order: one
// more than the highest, as tgt-admin has it, and none that another target has.
func (n Numbers) nextTID(latest int, taken map[int]bool) int {
	for _, t := range n {
		latest = max(latest, t.TID)
	}
	for latest++; taken[latest]; latest++ {
	}
	return latest
}

// lun returns the number that a logical unit was given.
func (n Numbers) lun(target, path string) (lun uint16, ok bool) {
	lun, ok = n[target].LUNs[path]
	return lun, ok
}

// takenLUNs returns the numbers that logical units of a target were given.
func (n Numbers) takenLUNs(target string) map[uint16]bool {
	taken := make(map[uint16]bool)
	for _, lun := range n[target].LUNs {
		taken[lun] = true
	}
	return taken
}
