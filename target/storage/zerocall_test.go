// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"path/filepath"
	"testing"

	"github.com/gotgtd/gotgtd/internal/zerocall"
)

// TestZeroArguments calls everything with nil and nothing: it may be refused. What
// Register is for is an init function, where a panic is how it refuses.
func TestZeroArguments(t *testing.T) {
	ram, err := NewRAM(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	file, err := OpenFile(Options{Path: filepath.Join(t.TempDir(), "disk"), Size: 1 << 20, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	zerocall.Package(t, map[string]any{
		"Check": Check, "Identify": Identify, "Existed": Existed, "Lasting": Lasting, "NewRAM": NewRAM, "OpenFile": OpenFile, "OpenBackend": OpenBackend,
		"FindDriver": FindDriver, "Drivers": Drivers, "Can": Can, "CheckRange": CheckRange, "Register": nil,
		"Length": Length, "CutBack": CutBack,
	}, ram, file, &Error{}, Driver{}, &BlockOptions{})
}
