// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"

	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/plan"
)

// briefing is what a generation tells its successor before that reads its
// configuration. Fields are only ever added; one that a generation does not
// know it can do without.
type briefing struct {
	Running *plan.Running `json:"running"`
	Force   bool          `json:"force"` // carry out a plan that would be refused

	// ForceFor is what Force is meant for, everything if there is nothing in it. A generation that
	// does not know it forces everything.
	ForceFor []plan.Part `json:"force_for,omitempty"`

	// Clock is what days are counted by.
	Clock *calendar `json:"clock,omitempty"`

	// LogLevel is the least level to log, if a command has asked for one.
	LogLevel string `json:"log_level,omitempty"`

	// Page are the last minutes, for graphs; see package page.
	Page json.RawMessage `json:"page,omitempty"`
}

// parseBriefing reads what the predecessor has left: nothing, if there is none
// or it is of a version that leaves none.
func parseBriefing(text []byte) (*briefing, error) {
	b := new(briefing)
	if text == nil {
		return b, nil
	}
	if err := json.Unmarshal(text, b); err != nil {
		return nil, fmt.Errorf("can't read the predecessor's briefing: %w", err)
	}
	return b, nil
}

// numbers returns those that were given: what runs, before what was noted.
func (b *briefing) numbers(noted config.Numbers) config.Numbers {
	n := config.Numbers{}
	n.Add(noted)
	n.Add(b.Running.Numbers())
	return n
}
