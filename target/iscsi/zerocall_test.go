// SPDX-License-Identifier: Apache-2.0

package iscsi

import (
	"testing"

	"github.com/gotgtd/gotgtd/internal/zerocall"
)

// TestZeroArguments calls everything with nil and nothing: it may be refused.
func TestZeroArguments(t *testing.T) {
	served := NewNode(Options{})
	target, _ := newDisk(t, Limits{}, Auth{})
	served.SetTargets([]*Target{target, nil, {}}, nil, Auth{})
	defer served.Close()
	zerocall.Package(t, map[string]any{
		"NewNode":        func(o Options) { NewNode(o).Close() },
		"ParseFastPaths": ParseFastPaths,
	}, served, &NodeState{}, &NodeLimits{}, &Rest{})
}
