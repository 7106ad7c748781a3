// SPDX-License-Identifier: Apache-2.0

//go:build !handofffault

package handoff

// at marks a step of the talk, where builds for tests can be made to fail.
func at(string) {}

// schemas returns the oldest and the newest snapshot schema that this process
// reads.
func schemas() (oldest, newest int) { return 1, Schema }
