// SPDX-License-Identifier: Apache-2.0

package target

import (
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/internal/headroom"
)

// TestNoRoom: an upgrade that would end both processes is refused, and the reason says what is short.
func TestNoRoom(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	real := available
	defer func() { available = real }()
	g := &giver{server: s}
	available = func() headroom.Memory { return headroom.Memory{Bytes: roomBeside - 1, Of: "the control group /a"} }
	for _, follows := range []bool{true, false} {
		if err := g.Room(follows); err == nil || !strings.Contains(err.Error(), "it would take 32 MiB of memory, and the control group /a has 31 MiB left") {
			t.Errorf("without room: %v", err)
		}
	}
	available = func() headroom.Memory { return headroom.Memory{Bytes: roomBeside} }
	if err := g.Room(true); err != nil {
		t.Errorf("with room: %v", err)
	}
}
