// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"testing"

	"github.com/gotgtd/gotgtd/test/peer"
)

// TestAlerts has promtool check the alerts that come with gotgtd, and run their tests.
func TestAlerts(t *testing.T) {
	peer.Need(t, "promtool")
	if out, err := peer.Run(t.Context(), "promtool", "check", "rules", "--lint-fatal", "../../docs/prometheus/alerts.yaml"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := peer.Run(t.Context(), "promtool", "test", "rules", "../../docs/prometheus/alerts-test.yaml"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
