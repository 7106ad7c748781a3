// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// TestPlugin writes to and verifies a disk in a plug-in for gotgt, which knows
// nothing of upgrades, through upgrades.
func TestPlugin(t *testing.T) {
	d := startWith(t, builds.a.Path(t), "gotgtd.yaml", func(disk string) string {
		return fmt.Sprintf("targets:\n  - name: %s\n    luns:\n      - {lun: 1, backend: 'gotgt:file', path: %s}\n", peer.IQN, disk)
	})
	s := login(t, d, "iqn.2026-11.test:plugin")
	const workers, blocks = 4, diskSize / blockSize / 4
	var jobs []func() error
	for w := range uint64(workers) {
		r := newRegion(s, w*blocks, blocks, w)
		jobs = append(jobs, again(t, d, func() error { return r.step(t.Context()) }))
	}
	during(t, d, 0, jobs...)
}
