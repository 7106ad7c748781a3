// SPDX-License-Identifier: Apache-2.0

package storage_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gotgtd/gotgtd/target/storage"
)

// TestCutBack gives a file the length back that it had before a process grew it which is gone, but
// cuts nothing away that was written.
func TestCutBack(t *testing.T) {
	for _, preallocate := range []bool{false, true} {
		s, path := create(t, 1<<20)
		was, ok := storage.Length(s)
		if !ok || was != 1<<20 {
			t.Fatalf("it has a length of %d, %v", was, ok)
		}
		grow := func() {
			t.Helper()
			if err := open(t, storage.Options{Path: path, Size: 4 << 20, InheritLock: true, Preallocate: preallocate}).Close(); err != nil {
				t.Fatal(err)
			}
		}
		old := storage.Options{Path: path, Size: 1 << 20, InheritLock: true}
		grow()
		want := fmt.Sprintf("truncate -s 1048576 %q", path)
		if err := storage.Check(old); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("grown, with the old size: %v, want it to say %q", err, want)
		}
		if err := storage.CutBack(s, was); err != nil {
			t.Error(err)
		}
		if size, _ := stat(t, path); size != was {
			t.Errorf("cut back it has %d bytes", size)
		}
		if err := storage.Check(old); err != nil {
			t.Errorf("cut back: %v", err)
		}
		grow()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{0}, 2<<20); err != nil {
			t.Fatal(err)
		}
		f.Close()
		for what, err := range map[string]error{"CutBack": storage.CutBack(s, was), "Check": storage.Check(old)} {
			if err == nil || !strings.Contains(err.Error(), "raise size") || strings.Contains(err.Error(), "truncate") {
				t.Errorf("%s of what was written to: %v", what, err)
			}
		}
		if size, _ := stat(t, path); size != 4<<20 {
			t.Errorf("what was written to has %d bytes", size)
		}
		s.Close()
	}
	ram, err := storage.NewRAM(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	if _, ok := storage.Length(ram); ok {
		t.Error("memory has a length")
	}
}
