// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/plan"
)

// What was served from a path is known over restarts, also over one at which it
// could not be opened; what never was is not.
func TestLedgerKnowsWhatWasServed(t *testing.T) {
	dir := t.TempDir()
	for _, store := range []string{"file:1:2:3", ""} {
		l, err := openLedger(dir)
		if err != nil {
			t.Fatal(err)
		}
		err = l.note(&plan.Running{Targets: []plan.Target{{Name: "iqn.2026-11.test:a", TID: 1, LUNs: []plan.LUN{
			{LUN: 1, Path: "/disk.img", Store: store}, {LUN: 2, Path: "/never.img", Error: "it is a qcow2 image"},
		}}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !l.served("/disk.img") || l.served("/never.img") || l.served("/other.img") {
		t.Errorf("known: %v %v %v", l.served("/disk.img"), l.served("/never.img"), l.served("/other.img"))
	}
}
