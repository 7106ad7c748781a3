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

// TestWithPhase: what ends after an upgrade is the upgrade's, whatever has failed since, and is counted.
func TestWithPhase(t *testing.T) {
	good := Report{Generation: 2, Phases: []Phase{{"freeze", time.Millisecond}}}
	history := Remember(Remember(Remember(nil, good), good), Report{Generation: 3, Error: "no"})
	before := TotalsOf(history)
	after := WithPhase(history, Phase{"rest", time.Second})
	if p := after[1].Phases; len(p) != 2 || p[1] != (Phase{"rest", time.Second}) || len(after[0].Phases) != 1 || len(after[2].Phases) != 0 {
		t.Errorf("the history has become %+v", after)
	}
	all := TotalsOf(after)
	rest := all.Phases["rest"]
	if rest.Count() != 1 || rest.Sum != time.Second || all.Phases["freeze"] != before.Phases["freeze"] || all.Succeeded != 2 || all.Failed != 1 {
		t.Errorf("the totals have become %+v", all)
	}
	if _, ok := before.Phases["rest"]; ok || len(history[1].Phases) != 1 || len(TotalsOf(history).Phases) != 1 {
		t.Errorf("who looks at the history before sees a change: %+v", history)
	}
	if none := WithPhase(nil, Phase{"rest", 1}); len(none) != 0 {
		t.Errorf("without any upgrade: %+v", none)
	}
}
