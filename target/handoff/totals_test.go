// SPDX-License-Identifier: Apache-2.0

package handoff

import (
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// TestTotals: more upgrades than the history keeps are counted, and what an older process has
// left of the history is counted on.
func TestTotals(t *testing.T) {
	good := Report{Pause: 3 * time.Millisecond, Phases: []Phase{{"freeze", time.Millisecond}}}
	var history []Report
	for range 3 * HistoryLength {
		history = Remember(history, good)
		history = Remember(history, Report{Error: "no"})
		b, err := cbor.Marshal(history)
		if err != nil {
			t.Fatal(err)
		}
		history = nil
		if err := cbor.Unmarshal(b, &history); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want uint64) {
		t.Helper()
		all := TotalsOf(history)
		freeze := all.Phases["freeze"]
		if all.Succeeded != want || all.Failed != want || all.Pause.Count() != want || freeze.Count() != want || freeze.Sum != time.Duration(want)*time.Millisecond {
			t.Errorf("%s: %+v, want %d of each", what, all, want)
		}
	}
	check("all upgrades", 3*HistoryLength)
	with := 0
	for i := range history {
		if history[i].Totals != nil {
			with++
		}
	}
	if with != 1 || len(history) != HistoryLength {
		t.Errorf("%d of %d reports have the totals, want the last of %d", with, len(history), HistoryLength)
	}
	history[len(history)-1].Totals = nil // an older process passed it by
	check("what is left", HistoryLength/2)
	// A history is shared: who looks at it sees no change.
	before := TotalsOf(history)
	Remember(history, good)
	if after := TotalsOf(history); after.Succeeded != before.Succeeded || after.Phases["freeze"] != before.Phases["freeze"] {
		t.Errorf("%+v has become %+v", before, after)
	}
}
