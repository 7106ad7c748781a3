// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"bytes"
	"testing"

	"github.com/gotgtd/gotgtd/internal/initiator"
	"github.com/gotgtd/gotgtd/target/iscsi/stream"
	"github.com/gotgtd/gotgtd/target/storage/storagetest"
)

// withFastPaths runs a test with each setting of [FastPaths].
func withFastPaths(t *testing.T, test func(t *testing.T, f FastPaths)) {
	for _, name := range []string{"auto", "always", "never"} {
		f, err := ParseFastPaths(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { test(t, f) })
	}
}

func TestParseFastPaths(t *testing.T) {
	if f, err := ParseFastPaths(""); f != FastPathsAuto || err != nil {
		t.Errorf("nothing is %v, %v", f, err)
	}
	if _, err := ParseFastPaths("sometimes"); err == nil {
		t.Error("nonsense was taken")
	}
}

// TestInPlace reads what the store has at hand: the reading goroutine asks for
// that, unless it must not.
func TestInPlace(t *testing.T) {
	withFastPaths(t, func(t *testing.T, f FastPaths) {
		r := newRigWith(t, Limits{}, Auth{}, realSystem, 0, f)
		store := storagetest.NewFaultStore(storagetest.NewRAM(testDiskSize))
		disk := diskOver(t, store, Limits{}, Auth{})
		r.node.SetTargets([]*Target{disk}, announced, Auth{})
		s := r.dial(initiator.Options{})
		data, back := pattern(4096, 3), make([]byte, 4096)
		var cmd initiator.Command
		if err := s.Do(t.Context(), cmd.Write16(initiator.LUN(1), 8, 8, data, 0)); err != nil {
			t.Fatal(err)
		}
		if err := s.Do(t.Context(), cmd.Read16(initiator.LUN(1), 8, 8, back, 0)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back, data) {
			t.Error("what was written reads back otherwise")
		}
		tried, waited := len(store.Calls(storagetest.TryRead)), len(store.Calls(storagetest.Read))
		if f == FastPathsNever && (tried != 0 || waited != 1) || f != FastPathsNever && (tried != 1 || waited != 0) {
			t.Errorf("%d reads were tried in place and %d done by workers", tried, waited)
		}
	})
}

// TestDirect tells which segments are read into a buffer of their own.
func TestDirect(t *testing.T) {
	for _, tc := range []struct {
		f             FastPaths
		length, total int
		want          bool
	}{
		{FastPathsAuto, bulkThreshold, bulkThreshold + 48, false},
		{FastPathsAuto, bulkThreshold + 1, bulkThreshold + 52, true},
		{FastPathsAlways, 1, 52, true},
		{FastPathsAlways, 0, 48, false},
		{FastPathsNever, stream.ChunkSize - 48, stream.ChunkSize, false},
		{FastPathsNever, stream.ChunkSize - 47, stream.ChunkSize + 4, true},
	} {
		if got := tc.f.direct(tc.length, tc.total); got != tc.want {
			t.Errorf("%d: %d bytes in a PDU of %d: %v", tc.f, tc.length, tc.total, got)
		}
	}
}
