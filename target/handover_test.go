// SPDX-License-Identifier: Apache-2.0

package target

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/handoff"
)

// A RAM disk can't move to a successor, and the successor that would lose it is
// refused before anything stands still.
func TestRAMDiskRefusesUpgrade(t *testing.T) {
	conf := &config.Config{Targets: []config.Target{{
		Name: "iqn.2026-11.test:ram", LUNs: []config.LUN{{Number: 1, Backend: "ram", Size: 1 << 20}},
	}}}
	conf.SetDefaults()
	if err := conf.Validate(); err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Config: conf})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	hello := handoff.Hello{Version: "next", Oldest: 1, Newest: handoff.Schema, Features: features}
	if err := hello.Check((&giver{server: s}).Needs()); err == nil {
		t.Error("a successor that can't take the RAM disk over is accepted")
	}
}
