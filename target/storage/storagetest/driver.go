// SPDX-License-Identifier: Apache-2.0

package storagetest

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
)

// TestDriver checks that a driver's answers about a store that it can open are those that the
// store gives then: a reload compares the one with the other. backend is what a configuration
// says, "DRIVER" or "DRIVER:NAME".
func TestDriver(t *testing.T, backend string, o storage.Options) {
	t.Helper()
	d, name, ok := storage.FindDriver(backend)
	if !ok {
		t.Fatalf("backend %q is none of %q", backend, storage.Drivers())
	}
	if d.Check != nil {
		if err := d.Check(name, o); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
	id, size, err := d.Look(name, o)
	if err != nil {
		t.Errorf("Look: %v", err)
	}
	s, err := storage.OpenBackend(t.Context(), backend, o)
	if err != nil {
		t.Fatalf("OpenBackend: %v", err)
	}
	defer s.Close()
	if info := s.Info(); info.ID != id || size != 0 && size != info.Size {
		t.Errorf("the store has the ID %q and %d bytes, the driver told %q and %d", info.ID, info.Size, id, size)
	}
}
