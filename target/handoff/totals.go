// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"maps"
	"slices"

	"github.com/gotgtd/gotgtd/target/scsi/latency"
)

// UpgradeTotals is what all upgrades of a service have come to, which the history has the last of.
type UpgradeTotals struct {
	Succeeded uint64                    `cbor:"1,keyasint" json:"succeeded"`
	Failed    uint64                    `cbor:"2,keyasint" json:"failed"`
	Pause     latency.Counts            `cbor:"3,keyasint" json:"pause"`            // of those that have succeeded
	Phases    map[string]latency.Counts `cbor:"4,keyasint" json:"phases,omitempty"` // of those too, by name
}

// with returns the totals after one more upgrade.
func (t UpgradeTotals) with(r *Report) UpgradeTotals {
	if r.Error != "" {
		t.Failed++
		return t
	}
	t.Succeeded++
	t.Pause.Record(r.Pause)
	t.Phases = maps.Clone(t.Phases)
	if t.Phases == nil {
		t.Phases = make(map[string]latency.Counts)
	}
	for _, p := range r.Phases {
		t.count(p)
	}
	return t
}

// count counts a phase, in a map that is t's own.
func (t *UpgradeTotals) count(p Phase) {
	c := t.Phases[p.Name]
	c.Record(p.Duration)
	t.Phases[p.Name] = c
}

// WithPhase adds a phase to the last upgrade of a history that has succeeded: one that has ended since.
func WithPhase(history []Report, p Phase) []Report {
	history = slices.Clone(history)
	for i := len(history) - 1; i >= 0; i-- {
		if r := &history[i]; r.Error == "" {
			all := TotalsOf(history)
			all.Phases = maps.Clone(all.Phases)
			if all.Phases == nil {
				all.Phases = make(map[string]latency.Counts)
			}
			all.count(p)
			history[len(history)-1].Totals = &all
			r.Phases = append(slices.Clip(r.Phases), p)
			break
		}
	}
	return history
}

// TotalsOf returns the totals of a history. One that comes from a process that told none has
// those of the reports that are left.
func TotalsOf(history []Report) UpgradeTotals {
	var t UpgradeTotals
	for i := range history {
		if all := history[i].Totals; all != nil {
			t = *all
		} else {
			t = t.with(&history[i])
		}
	}
	return t
}
