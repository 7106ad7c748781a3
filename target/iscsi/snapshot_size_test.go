// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"testing"

	"github.com/gotgtd/gotgtd/target/handoff"
)

// TestSnapshotGrowsOnce encodes a state with many megabytes in it: its buffer is made
// once, for what it has to hold.
func TestSnapshotGrowsOnce(t *testing.T) {
	state := &NodeState{Connections: []ConnectionState{{In: make([]byte, 1<<20), Out: make([]byte, 1<<20)}}}
	tasks := make([]TaskState, 8)
	for i := range tasks {
		tasks[i].Data = make([]byte, 1<<20)
	}
	state.Sessions = []SessionState{{Tasks: tasks, Pending: []PendingState{{Data: make([]byte, 1<<20)}}}}
	const data = 11 << 20
	n := 0
	for p := range state.Bulk() {
		n += len(*p)
	}
	if n != data {
		t.Errorf("the state holds %d bytes of data, and yields %d", data, n)
	}
	var s handoff.Snapshot
	if err := s.Put("iscsi", state); err != nil {
		t.Fatal(err)
	}
	if b := s.Sections["iscsi"]; len(b) < data || cap(b) > data+1<<20 {
		t.Errorf("%d bytes in a buffer of %d", len(b), cap(b))
	}
}
