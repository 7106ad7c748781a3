// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gotgtd/gotgtd/target"
	"github.com/gotgtd/gotgtd/target/config"
	"github.com/gotgtd/gotgtd/target/overlay"
)

// TestTgtAdminKeepsParameters: a target that tgt-admin makes has the parameters of its sessions that
// the file gives it, and the usual ones else.
func TestTgtAdminKeepsParameters(t *testing.T) {
	for _, directives := range []string{
		"",
		"MaxBurstLength 65536\n",
		"MaxBurstLength 262144\nFirstBurstLength 8192\nMaxOutstandingR2T 2\nMaxConnections 1\nMaxQueueCmd 32\n",
		"FirstBurstLength 131072\nMaxRecvDataSegmentLength 8192\nMaxXmitDataSegmentLength 16384\n",
		"InitialR2T Yes\nImmediateData No\nHeaderDigest CRC32C\nDataDigest CRC32C,None\n",
		"nop_interval 0\nDefaultTime2Wait 0\nDefaultTime2Retain 60\n",
		"nop_interval 5\nnop_count 3\n",
		"nop_count 2\n",
	} {
		c, err := config.Parse("targets.conf", []byte("<target iqn.2026-11.test:a>\n"+directives+"</target>\n"))
		if err != nil {
			t.Fatal(err)
		}
		made := &config.Config{}
		if _, err := new(overlay.Overlay).Add(made, targetOperations(&c.Targets[0], 1, nil), nil); err != nil {
			t.Errorf("%q: %v", directives, err)
			continue
		}
		if diff := cmp.Diff(c.Targets[0].Parameters, made.Targets[0].Parameters); diff != "" {
			t.Errorf("%q (-file +made):\n%s", directives, diff)
		}
	}
}

func TestFreeTID(t *testing.T) {
	for want, taken := range map[int][]int{1: nil, 3: {1, 2}, 8: {7}, 2: {1, 65535}, 65535: {65534}} {
		var targets []target.TargetStatus
		for _, tid := range taken {
			targets = append(targets, target.TargetStatus{TID: tid})
		}
		if got := freeTID(targets); got != want {
			t.Errorf("beside %v: %d, want %d", taken, got, want)
		}
	}
}
